/**
 * Owns a whole group on this machine with real parts: nats-servers, one Postgres server a replica, one process a
 * replica. For development, tests and examples; everything lies in one folder and is there again at the next start.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { z } from "zod";
import { ShardpactError } from "../../model/errors.ts";
import type { ReplicaConfigInput } from "../../replica/index.ts";
import { connectNats } from "../../transport/nats.ts";
import type { Transport } from "../../transport/port.ts";
import { type Cleanup, createCleanup } from "./cleanup.ts";
import {
  type GroupFiles,
  type GroupMember,
  openGroupFiles,
  openMember,
  writeReplicaConfig,
  writeWhole,
} from "./group-files.ts";
import { askStatus, waitForLeader } from "./local-leader.ts";
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
  /**
   * Starts one more replica, with a database and a key of its own (kept if they are there). It is no member yet: that is
   * for the group to decide (`shardpact member add`). Resolves when it answers.
   */
  join(id: string): Promise<LocalReplica>;
  /** A second process with the identity of a replica, as by a mistaken deployment. Stopped by `close`. */
  startTwin(id: string): Promise<LocalReplica>;
  /** Resolves with the id of the replica that leads and that a majority follows. @throws ShardpactError `timeout` */
  waitForLeader(timeoutMs?: number): Promise<string>;
  /** Stops everything, replicas first. Idempotent. */
  close(): Promise<void>;
}

const DATABASE = "shardpact";

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
    const ports = await choosePorts(dir, files.members.length, options);

    const postgres = await startAll(files, ports, cleanup);
    for (const [i, server] of postgres.entries())
      say(`postgres of ${files.members[i]?.id} at 127.0.0.1:${server.port}`);
    const between = options.between ?? null;
    const access = { group: name, members: files.members };
    const nats = await startNatsCluster({ dir: join(dir, "nats"), access, ports: ports.cluster, between }, cleanup);
    for (const { url } of nats) say(`nats-server at ${url}`);
    await writeWhole(join(dir, "ports.json"), ports, 0o644);

    const servers = nats.map(({ url }) => url);
    const client = await connectNats({ servers, name: "local group", timeoutMs: 10_000 });
    cleanup.defer(() => client.close());
    const stores = [pathToFileURL(storeDir).href];
    const where = { genesis: files.genesis, nats, stores, client, between, log: options.log };
    const replicas = await Promise.all(
      files.members.map((member, i) => configure(where, member, postgres[i]?.url(DATABASE) ?? "", `p${i + 1}`)),
    );
    cleanup.defer(() => Promise.all(replicas.map((replica) => replica.stop())));
    await Promise.all(replicas.map((replica) => replica.restart()));
    for (const replica of replicas) say(`replica ${replica.id} is process ${replica.pid}, log in ${replica.logFile}`);
    return assemble({ options: { dir, name, storeDir }, files, where, ports, postgres, replicas, cleanup });
  } catch (error) {
    await cleanup.run().catch(() => {});
    throw error;
  }
}

interface Parts {
  readonly options: { readonly dir: string; readonly name: string; readonly storeDir: string };
  readonly files: GroupFiles;
  readonly where: Where;
  readonly ports: Ports;
  /** Both grow when a replica joins. */
  readonly postgres: EmbeddedPostgres[];
  readonly replicas: LocalReplica[];
  readonly cleanup: Cleanup;
}

function assemble(parts: Parts): LocalGroup {
  const { options, files, where, postgres, replicas, cleanup } = parts;
  const { nats, client } = where;
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
    join: (id) => joinGroup(parts, id),
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

async function joinGroup(
  { options, where, ports, postgres, replicas, cleanup }: Parts,
  id: string,
): Promise<LocalReplica> {
  const known = replicas.find((replica) => replica.id === id);
  if (known) return known;
  const member = await openMember(options.dir, id, false);
  const server = await startPostgres({ dir: join(member.dir, "postgres") });
  cleanup.defer(() => server.stop());
  await server.createDatabase(DATABASE);
  postgres.push(server);
  await writeWhole(join(options.dir, "ports.json"), { ...ports, postgres: postgres.map(({ port }) => port) }, 0o644);
  for (const each of where.nats) await each.admit(options.name, member);
  const replica = await configure(where, member, server.url(DATABASE), `p${postgres.length}`);
  replicas.push(replica);
  await replica.restart();
  return replica;
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

interface Where {
  readonly genesis: GroupFiles["genesis"];
  readonly nats: readonly EmbeddedNats[];
  readonly stores: string[];
  readonly client: Transport;
  readonly between: Between | null;
  readonly log: LocalGroupOptions["log"];
}

/** Every replica knows all nats-servers. `databaseName`: for `between`. */
async function configure(
  where: Where,
  member: GroupMember,
  postgresUrl: string,
  databaseName: string,
): Promise<LocalReplica> {
  const { genesis, nats, stores, client, between, log } = where;
  const { id, dir, configFile } = member;
  const portOf = (to: string, port: number) => between?.({ from: id, to, port }) ?? Promise.resolve(port);
  const urls = nats.map(async ({ port }, n) => `nats://127.0.0.1:${await portOf(natsName(n), port)}`);
  const dialled = new URL(postgresUrl);
  dialled.port = String(await portOf(databaseName, Number(dialled.port)));
  await writeReplicaConfig({ genesis }, member, {
    ...{ nats: await Promise.all(urls), postgres: dialled.href, stores, snapshotDir: join(dir, "snapshots") },
    ...(log === undefined ? {} : { log }),
  });
  const ready = async () => (await askStatus(client, genesis.name, id)) !== null;
  return localReplica({ id, dir, configFile, logName: "replica.log", postgresUrl, ready });
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
