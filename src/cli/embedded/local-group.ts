/**
 * Owns a whole group on this machine with real parts: nats-servers, one Postgres server a replica, one process a
 * replica. For development, tests and examples; everything lies in one folder and is there again at the next start.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { z } from "zod";
import { type ReplicaStatus, SUBJECTS, decodeApi, replicaStatus } from "../../model/api.ts";
import { ShardpactError } from "../../model/errors.ts";
import type { ReplicaConfigInput } from "../../replica/index.ts";
import { connectNats } from "../../transport/nats.ts";
import type { Transport } from "../../transport/port.ts";
import { type Cleanup, createCleanup } from "./cleanup.ts";
import { type GroupFiles, openGroupFiles, writeReplicaConfig, writeWhole } from "./group-files.ts";
import { type LocalReplica, localReplica } from "./local-replica.ts";
import type { EmbeddedNats } from "./nats.ts";
import { type Between, type NatsPorts, natsName, startNatsCluster } from "./nats-cluster.ts";
import { canListen, freePortNear } from "./ports.ts";
import { type EmbeddedPostgres, startPostgres } from "./postgres.ts";

export interface LocalGroupOptions {
  readonly dir: string;
  /** Default 3. */
  readonly replicas?: number;
  /** Default `local`. */
  readonly name?: string;
  readonly engine?: "raft" | "paxos";
  /** Port of the first nats-server. Default: any, kept over restarts. */
  readonly port?: number;
  /** More than one makes a cluster. Default 1. */
  readonly natsServers?: number;
  /** Puts something on every link between replicas, nats-servers and databases. */
  readonly between?: Between;
  /** How much of the replicas' logs is kept. */
  readonly log?: ReplicaConfigInput["log"];
  /** Told what is being started. */
  readonly onLine?: (line: string) => void;
}

export interface LocalGroup extends AsyncDisposable {
  /** Of the first nats-server: what `connect()` takes. */
  readonly url: string;
  readonly group: string;
  readonly groupId: string;
  /** The directory store that the replicas name to clients. */
  readonly storeDir: string;
  /** The first nats-server. */
  readonly nats: EmbeddedNats;
  readonly natsServers: readonly EmbeddedNats[];
  /** One server a replica, in the order of `replicas`. */
  readonly postgres: readonly EmbeddedPostgres[];
  readonly replicas: readonly LocalReplica[];
  /** A second process with the identity of a replica, as by a mistaken deployment. Stopped by `close`. */
  startTwin(id: string): Promise<LocalReplica>;
  /** Resolves with the id of the replica that leads and that a majority follows. @throws ShardpactError `timeout` */
  waitForLeader(timeoutMs?: number): Promise<string>;
  /** Stops everything, replicas first. Idempotent. */
  close(): Promise<void>;
}

const DATABASE = "shardpact";
const STATUS_TIMEOUT_MS = 500;
const LEADER_POLL_MS = 50;

const portsFile = z.object({
  nats: z.number(),
  /** Of the servers of a cluster; the first one's clients use `nats`. */
  cluster: z.array(z.object({ client: z.number(), route: z.number() })).default([]),
  postgres: z.array(z.number()),
});
type Ports = z.infer<typeof portsFile>;

/** Starts what is not there yet. On failure everything started is stopped again. @throws ShardpactError `setup_failed`, `config_invalid` */
export async function startLocalGroup(options: LocalGroupOptions): Promise<LocalGroup> {
  const { dir, replicas: count = 3, name = "local", engine = "raft" } = options;
  const say = options.onLine ?? (() => {});
  const cleanup = createCleanup();
  try {
    const storeDir = join(dir, "store");
    await mkdir(storeDir, { recursive: true });
    const files = await openGroupFiles({ dir, name, engine, replicas: count });
    const ports = await choosePorts(dir, count, options);

    const postgres = await startAll(files, ports, cleanup);
    for (const [i, server] of postgres.entries()) say(`postgres of r${i + 1} at 127.0.0.1:${server.port}`);
    const between = options.between ?? null;
    const access = { group: name, members: files.members };
    const nats = await startNatsCluster({ dir: join(dir, "nats"), access, ports: ports.cluster, between }, cleanup);
    for (const { url } of nats) say(`nats-server at ${url}`);
    await writeWhole(join(dir, "ports.json"), ports, 0o644);

    const servers = nats.map(({ url }) => url);
    const client = await connectNats({ servers, name: "local group", timeoutMs: 10_000 });
    cleanup.defer(() => client.close());
    const stores = [pathToFileURL(storeDir).href];
    const replicas = await configure({ files, postgres, nats, stores, client, between, log: options.log });
    cleanup.defer(() => Promise.all(replicas.map((replica) => replica.stop())));
    await Promise.all(replicas.map((replica) => replica.restart()));
    for (const replica of replicas) say(`replica ${replica.id} is process ${replica.pid}, log in ${replica.logFile}`);
    return assemble({ options: { dir, name, storeDir }, files, nats, postgres, replicas, client, cleanup });
  } catch (error) {
    await cleanup.run().catch(() => {});
    throw error;
  }
}

interface Parts {
  readonly options: { readonly dir: string; readonly name: string; readonly storeDir: string };
  readonly files: GroupFiles;
  readonly nats: readonly EmbeddedNats[];
  readonly postgres: readonly EmbeddedPostgres[];
  readonly replicas: readonly LocalReplica[];
  readonly client: Transport;
  readonly cleanup: Cleanup;
}

function assemble({ options, files, nats, postgres, replicas, client, cleanup }: Parts): LocalGroup {
  let closing: Promise<void> | null = null;
  const close = () => (closing ??= cleanup.run());
  const [first] = nats;
  if (first === undefined) throw new ShardpactError("config_invalid", "a group needs a nats-server");
  return {
    url: first.url,
    group: options.name,
    groupId: files.groupId,
    storeDir: options.storeDir,
    nats: first,
    natsServers: nats,
    postgres,
    replicas,
    async startTwin(id) {
      const at = files.members.findIndex((member) => member.id === id);
      const member = files.members[at];
      const original = replicas[at];
      if (!member || !original) throw new ShardpactError("not_found", `there is no replica '${id}' in this group`);
      const { dir, configFile } = member;
      const twin = localReplica({
        id,
        dir,
        configFile,
        logName: "twin.log",
        postgresUrl: original.postgresUrl,
        ready: () => Promise.resolve(true),
      });
      cleanup.defer(() => twin.stop());
      await twin.restart();
      return twin;
    },
    waitForLeader: (timeoutMs = 30_000) => waitForLeader(client, options.name, replicas, timeoutMs),
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function startAll(files: GroupFiles, ports: Ports, cleanup: Cleanup): Promise<EmbeddedPostgres[]> {
  const starting = files.members.map(async ({ dir }, i) => {
    const port = ports.postgres[i];
    const server = await startPostgres({ dir: join(dir, "postgres"), ...(port === undefined ? {} : { port }) });
    cleanup.defer(() => server.stop());
    await server.createDatabase(DATABASE);
    return server;
  });
  // All settle before any failure is passed on: what did start must be known to `cleanup` by then.
  await Promise.allSettled(starting);
  return Promise.all(starting);
}

interface Configured {
  readonly files: GroupFiles;
  readonly postgres: readonly EmbeddedPostgres[];
  readonly nats: readonly EmbeddedNats[];
  readonly stores: string[];
  readonly client: Transport;
  readonly between: Between | null;
  readonly log: LocalGroupOptions["log"];
}

/** Every replica knows all nats-servers. */
async function configure({ files, postgres, nats, stores, client, between, log }: Configured): Promise<LocalReplica[]> {
  return Promise.all(
    files.members.map(async (member, i) => {
      const { id, dir, configFile } = member;
      const portOf = (to: string, port: number) => between?.({ from: id, to, port }) ?? Promise.resolve(port);
      const urls = nats.map(async ({ port }, n) => `nats://127.0.0.1:${await portOf(natsName(n), port)}`);
      const postgresUrl = postgres[i]?.url(DATABASE) ?? "";
      const dialled = new URL(postgresUrl);
      dialled.port = String(await portOf(`p${i + 1}`, Number(dialled.port)));
      await writeReplicaConfig(files, member, {
        ...{ nats: await Promise.all(urls), postgres: dialled.href, stores, snapshotDir: join(dir, "snapshots") },
        ...(log === undefined ? {} : { log }),
      });
      const ready = async () => (await askStatus(client, files.genesis.name, id)) !== null;
      return localReplica({ id, dir, configFile, logName: "replica.log", postgresUrl, ready });
    }),
  );
}

/** The ports of the last start where they are still free: what people wrote down stays true. */
async function choosePorts(dir: string, replicas: number, options: LocalGroupOptions): Promise<Ports> {
  const { port: wanted = null, natsServers = 1 } = options;
  const file = join(dir, "ports.json");
  const known = existsSync(file) ? portsFile.parse(JSON.parse(await readFile(file, "utf8"))) : null;
  if (wanted !== null && !(await canListen(wanted))) {
    throw new ShardpactError("setup_failed", `port ${wanted} is taken`, {
      details: { port: wanted },
      hint: "Another nats-server runs there: stop it, or choose another port with --port.",
    });
  }
  const nats = wanted ?? (await freePortNear(known?.nats ?? null));
  const cluster: NatsPorts[] = [];
  for (let i = 0; i < natsServers; i++) {
    const client = i === 0 ? nats : await freePortNear(known?.cluster[i]?.client ?? null);
    cluster.push({ client, route: await freePortNear(known?.cluster[i]?.route ?? null) });
  }
  const postgres: number[] = [];
  for (let i = 0; i < replicas; i++) postgres.push(await freePortNear(known?.postgres[i] ?? null));
  return { nats, cluster, postgres };
}

async function waitForLeader(
  client: Transport,
  group: string,
  replicas: readonly LocalReplica[],
  timeoutMs: number,
): Promise<string> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const asked = await Promise.all(replicas.map((replica) => askStatus(client, group, replica.id)));
    const heard = asked.filter((status) => status !== null);
    const leader = electedLeader(heard, replicas.length);
    if (leader !== null) return leader;
    if (performance.now() > deadline) {
      const said =
        heard.map((s) => `${s.replica}: ${s.state}, ${s.role}, term ${s.term}`).join("; ") || "nobody answers";
      throw new ShardpactError("timeout", `no leader within ${timeoutMs} ms (${said})`, {
        details: { heard },
        hint: `Logs: ${replicas.map((replica) => replica.logFile).join(", ")}.`,
      });
    }
    await sleep(LEADER_POLL_MS);
  }
}

/** One that says itself that it leads, and that a majority names in the same term. */
function electedLeader(heard: readonly ReplicaStatus[], voters: number): string | null {
  for (const { replica, role, term } of heard) {
    const followers = heard.filter((status) => status.leader === replica && status.term === term);
    if (role === "leader" && followers.length * 2 > voters) return replica;
  }
  return null;
}

async function askStatus(client: Transport, group: string, id: string): Promise<ReplicaStatus | null> {
  try {
    const subject = SUBJECTS.api(group, id, "status");
    return decodeApi(replicaStatus, await client.request(subject, new Uint8Array(0), { timeoutMs: STATUS_TIMEOUT_MS }));
  } catch {
    return null;
  }
}
