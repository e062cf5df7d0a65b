/**
 * The public door of a replica: the process that agrees. `shardpact node` and tests start replicas through it.
 */
import type { EngineKind } from "../consensus/engine.ts";
import type { ReplicaStatus } from "../model/api.ts";
import { ShardpactError } from "../model/errors.ts";
import type { ReplicaStores, SnapshotFolder } from "../storage/port.ts";
import type { Refusal, Transport } from "../transport/port.ts";
import { type Api, serveApi } from "./api.ts";
import { createBulkConnection } from "./bulk.ts";
import { type ReplicaConfig, groupIdentity } from "./config.ts";
import { type ReplicaEvent, startShell } from "./shell.ts";
import type { Runtime } from "./runtime.ts";
import { createSnapshotReceiver } from "./snapshot-receiver.ts";
import { createSnapshotSpool } from "./snapshot-spool.ts";

export {
  type ReplicaConfig,
  type ReplicaConfigInput,
  type ReplicaTiming,
  genesisPayload,
  groupIdOf,
  loadReplicaConfig,
  parseReplicaConfig,
} from "./config.ts";
export { type Runtime, realRuntime } from "./runtime.ts";
export type { ReplicaEvent, ReplicaState } from "./shell.ts";

export interface ReplicaOptions<M> {
  readonly config: ReplicaConfig;
  /** Stays the caller's: closed after the replica, by the caller. */
  readonly transport: Transport;
  /** Stay the caller's too. */
  readonly stores: ReplicaStores;
  readonly engine: EngineKind<M>;
  readonly runtime: Runtime;
  readonly snapshots: {
    /** For snapshots on their way; this replica's alone. */
    readonly folder: SnapshotFolder;
    /** Opens a connection of its own for them, with the replica's key. The replica closes it. */
    connect(): Promise<Transport>;
  };
  readonly onEvent?: (event: ReplicaEvent) => void;
}

export interface Replica extends AsyncDisposable {
  status(): ReplicaStatus;
  /** Resolves when the replica has ended: with the reason (`fenced`), or null after `close`. */
  readonly ended: Promise<ShardpactError | null>;
  close(): Promise<void>;
}

/**
 * Starts a replica and serves clients until it is closed or fenced. Resolves once its first boot is done, or has begun
 * to be retried because Postgres is not there.
 * @throws ShardpactError `config_invalid`, `fenced`, `damaged`, `upgrade_required`, `store_failed` (the snapshots' folder)
 */
export async function startReplica<M>(options: ReplicaOptions<M>): Promise<Replica> {
  const { config, transport, stores, runtime } = options;
  const { folder, connect } = options.snapshots;
  const identity = groupIdentity(config);
  if (options.engine.name !== config.genesis.engine) {
    throw new ShardpactError(
      "config_invalid",
      `the group runs ${config.genesis.engine}, this process ${options.engine.name}`,
    );
  }
  const onEvent = options.onEvent ?? (() => undefined);
  let api: Api | null = null;
  const found = await folder.open();
  const onRefused = (refused: Refusal): void => onEvent({ kind: "nats", connected: transport.connected, refused });
  const bulk = createBulkConnection({ connect, runtime, onRefused });
  const { groupId } = identity;
  const spool = createSnapshotSpool({ folder, groupId, catalog: stores.catalog, runtime, found: found.whole });
  const shell = await startShell({
    ...{ config, identity, transport, stores, engine: options.engine, runtime, bulk, spool, onEvent },
    files: folder.files,
    onConfirm: (body) => api?.confirm(body),
  });
  const receiver = createSnapshotReceiver({
    ...{ group: config.genesis.name, groupId, replica: config.replica, transport, bulk, folder, runtime, found },
    session() {
      const session = shell.session();
      return session && { applied: session.apply.applied().index, leader: session.engineStatus().leader };
    },
    install: (snapshot) => shell.install(snapshot),
    onStep: (step, peer, index, reason) => onEvent({ kind: "snapshot", step, peer, index, reason }),
  });
  const served = serveApi({ config, identity, transport, catalog: stores.catalog, shell });
  api = served;
  const stopNats = transport.onStatus((connected, refused) => onEvent({ kind: "nats", connected, refused }));
  const leave = async (): Promise<void> => {
    stopNats();
    served.close();
    await receiver.close();
    await spool.close();
    await bulk.close();
  };
  const close = async (): Promise<void> => {
    const left = leave();
    await shell.close();
    await left;
  };
  // Fenced: from now on only the process that took over answers under this name.
  void shell.ended.then(leave);
  return { status: shell.status, ended: shell.ended, close, [Symbol.asyncDispose]: close };
}
