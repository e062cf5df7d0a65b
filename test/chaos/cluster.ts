/**
 * Owns what chaos is made with: a local group on three nats-servers, with a proxy on every link, the client processes,
 * and the names of all parts: replicas `r1`, their databases `p1`, nats-servers `n1`, clients `c1`, links `r1-n2`.
 */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { LocalReplica } from "../../src/cli/embedded/local-replica.ts";
import type { LocalGroup } from "../../src/cli/embedded/local-group.ts";
import { buildPackage, built } from "../../bench/built.ts";
import { type ReplicaStatus, SUBJECTS, decodeApi, replicaStatus } from "../../src/model/api.ts";
import { connectNats } from "../../src/transport/nats.ts";
import type { Transport } from "../../src/transport/port.ts";
import { openTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";

export const NATS_SERVERS = 3;
const STATUS_TIMEOUT_MS = 400;
const RETIRE_POLL_MS = 20;
/** Whoever was away for moments needs a snapshot. */
const LOG = { keepEntries: 48, compactEntries: 16 };

export interface Cluster extends AsyncDisposable {
  readonly local: LocalGroup;
  /** The group's folder. */
  readonly dir: string;
  /** Those that were not retired. */
  replicas(): readonly LocalReplica[];
  isRetired(id: string): boolean;
  /** Stops a replica that is no member any more and its database, for ever, once no fault has hold of them. */
  retire(id: string, busy: () => ReadonlySet<string>): Promise<void>;
  readonly engine: "raft" | "paxos";
  /** By `from-to`. */
  readonly links: ReadonlyMap<string, TcpProxy>;
  /** NATS addresses for a client, through links of its own. */
  urlsFor(client: string): Promise<readonly string[]>;
  /** What each of `replicas()` says of itself, whatever nats-server it is on; null for one that says nothing. */
  statuses(): Promise<readonly (ReplicaStatus | null)[]>;
  /** Of the replica that leads in the highest term. */
  leading(): Promise<ReplicaStatus | null>;
}

export interface ClusterOptions {
  readonly dir: string;
  readonly replicas: number;
  readonly engine: "raft" | "paxos";
}

export async function startCluster({ dir, replicas, engine }: ClusterOptions): Promise<Cluster> {
  const links = new Map<string, TcpProxy>();
  const between = async ({ from, to, port }: { from: string; to: string; port: number }): Promise<number> => {
    const proxy = links.get(`${from}-${to}`) ?? (await openTcpProxy("127.0.0.1", port));
    links.set(`${from}-${to}`, proxy);
    return proxy.port;
  };
  const closeLinks = () => Promise.all([...links.values()].map((link) => link.close()));
  const groupDir = join(dir, "group");
  // The compiled package: a replica that is started from sources takes seconds, and faults wait for it.
  await buildPackage();
  const { startLocalGroup } =
    await built<typeof import("../../src/cli/embedded/local-group.ts")>("cli/embedded/local-group.ts");
  const local = await startLocalGroup({
    ...{ dir: groupDir, name: "chaos", replicas, engine, natsServers: NATS_SERVERS, between, log: LOG },
  }).catch(async (error: unknown) => {
    await closeLinks();
    throw error;
  });
  const watchers = await watchersOf(local);
  const retired = new Set<string>();
  const members = () => local.replicas.filter(({ id }) => !retired.has(id));
  const statuses = () => Promise.all(members().map(({ id }) => statusOf(watchers, local.group, id)));
  const close = async () => {
    await Promise.all(watchers.map((watcher) => watcher.close()));
    await local.close();
    await closeLinks();
  };
  return {
    local,
    dir: groupDir,
    engine,
    links,
    replicas: members,
    isRetired: (id) => retired.has(id),
    async retire(id, busy) {
      const at = local.replicas.findIndex((replica) => replica.id === id);
      retired.add(id);
      while (busy().has(id) || busy().has(`p${at + 1}`)) await sleep(RETIRE_POLL_MS);
      await local.replicas[at]?.stop();
      await local.postgres[at]?.stop();
    },
    urlsFor: (client) =>
      Promise.all(
        local.natsServers.map(async ({ port }, i) => {
          return `nats://127.0.0.1:${await between({ from: client, to: `n${i + 1}`, port })}`;
        }),
      ),
    statuses,
    async leading() {
      const leaders = (await statuses()).filter((status) => status?.role === "leader");
      return leaders.toSorted((a, b) => (b?.term ?? 0) - (a?.term ?? 0))[0] ?? null;
    },
    [Symbol.asyncDispose]: close,
  };
}

/** One connection to each nats-server, past all proxies: a replica is seen by whatever server it is on. */
async function watchersOf(local: LocalGroup): Promise<Transport[]> {
  const dialling = local.natsServers.map(({ url }, i) =>
    connectNats({ servers: [url], name: `watcher ${i + 1}`, timeoutMs: 10_000 }),
  );
  try {
    return await Promise.all(dialling);
  } catch (error) {
    const settled = await Promise.allSettled(dialling);
    for (const one of settled) if (one.status === "fulfilled") await one.value.close();
    await local.close();
    throw error;
  }
}

async function statusOf(watchers: readonly Transport[], group: string, id: string): Promise<ReplicaStatus | null> {
  const subject = SUBJECTS.api(group, id, "status");
  const asked = watchers.map(async (watcher) => {
    const reply = await watcher.request(subject, new Uint8Array(0), { timeoutMs: STATUS_TIMEOUT_MS });
    return decodeApi(replicaStatus, reply);
  });
  return Promise.any(asked).catch(() => null);
}
