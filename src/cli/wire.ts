/**
 * Owns the wiring of a replica: the only place that names its adapters (NATS, Postgres, the engines).
 *
 * NATS and Postgres may come up later than the replica: it waits for them, and says so.
 */
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EngineKind } from "../consensus/engine.ts";
import { type PaxosMessage, paxosEngine } from "../consensus/paxos/index.ts";
import { type RaftMessage, raftEngine } from "../consensus/raft/index.ts";
import type { Genesis } from "../model/api.ts";
import { ShardpactError, isShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { type Replica, type ReplicaConfig, type ReplicaEvent, realRuntime, startReplica } from "../replica/index.ts";
import { groupIdentity } from "../replica/config.ts";
import { openPostgresStores } from "../storage/postgres/open.ts";
import type { ReplicaStores } from "../storage/port.ts";
import { snapshotFolder } from "../storage/snapshot/folder.ts";
import { connectNats } from "../transport/nats.ts";
import type { Transport } from "../transport/port.ts";

/** A replica feeds its engine only what that engine has decoded, so one type for both is enough. */
const ENGINES: Readonly<Record<Genesis["engine"], EngineKind<RaftMessage | PaxosMessage>>> = {
  raft: raftEngine,
  paxos: paxosEngine,
};

const ATTEMPT_MS = 1_000;
const PAUSE_MS = 250;

export interface OpenReplicaOptions {
  readonly onEvent?: (event: ReplicaEvent) => void;
  /** What is waited for has not come yet, and why; called when the reason changes. */
  readonly onWait?: (what: "NATS" | "Postgres", error: ShardpactError) => void;
  readonly signal?: AbortSignal;
}

/**
 * Connects to NATS and Postgres, waiting for both, and starts the replica. `close` ends all of it.
 * @throws ShardpactError `config_invalid`, `unauthorized`, `fenced`, `damaged`, `upgrade_required`, `aborted`
 */
export async function openReplica(config: ReplicaConfig, options: OpenReplicaOptions = {}): Promise<Replica> {
  const { groupId } = groupIdentity(config);
  const engine = ENGINES[config.genesis.engine];
  const { replica, nats: servers, seed } = config;
  const connect = (name: string): Promise<Transport> =>
    connectNats({ servers, name: `shardpact ${name}`, seed, timeoutMs: ATTEMPT_MS, ...signalOf(options) });
  const transport = await waitFor("NATS", options, () => connect(replica));
  let opened: ReplicaStores | null = null;
  try {
    checkPayload(transport, servers);
    const stores = await waitFor("Postgres", options, () =>
      openPostgresStores({ url: config.postgres, identity: { groupId, replica, engine: engine.name } }),
    );
    opened = stores;
    const { onEvent } = options;
    const started = await startReplica({
      config,
      transport,
      stores,
      engine,
      runtime: realRuntime(),
      snapshots: {
        folder: snapshotFolder(config.snapshotDir ?? defaultSnapshotDir(groupId, replica)),
        connect: () => connect(`${replica} snapshots`),
      },
      ...(onEvent === undefined ? {} : { onEvent }),
    });
    return withAdapters(started, stores, transport);
  } catch (error) {
    await opened?.close();
    await transport.close();
    throw error;
  }
}

/** Of a replica of a group: several may run on one machine. */
function defaultSnapshotDir(groupId: string, replica: string): string {
  return join(tmpdir(), `shardpact-${groupId.slice("b3:".length, 19)}-${replica}`);
}

function withAdapters(replica: Replica, stores: ReplicaStores, transport: Transport): Replica {
  let closing: Promise<void> | null = null;
  const close = (): Promise<void> => {
    closing ??= (async () => {
      await replica.close();
      await stores.close();
      await transport.close();
    })();
    return closing;
  };
  return { status: () => replica.status(), ended: replica.ended, close, [Symbol.asyncDispose]: close };
}

/** Tries again while the other side is not there. */
async function waitFor<T>(what: "NATS" | "Postgres", options: OpenReplicaOptions, open: () => Promise<T>): Promise<T> {
  let told = "";
  for (;;) {
    if (options.signal?.aborted) throw new ShardpactError("aborted", `waiting for ${what} was aborted`);
    try {
      return await open();
    } catch (error) {
      if (!isShardpactError(error, "unavailable")) throw error;
      if (error.message !== told) options.onWait?.(what, error);
      told = error.message;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** @throws ShardpactError `config_invalid` when the server takes smaller messages than replicas send. */
function checkPayload(transport: Transport, servers: readonly string[]): void {
  const needed = LIMITS.natsMaxPayloadBytesMin;
  if (transport.payloadBytesMax >= needed) return;
  throw new ShardpactError(
    "config_invalid",
    `the NATS server at ${servers.join(", ")} takes messages up to ${transport.payloadBytesMax} bytes; replicas need ${needed}`,
    { hint: `Set max_payload: ${needed} in nats.conf.` },
  );
}

function signalOf({ signal }: OpenReplicaOptions): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
