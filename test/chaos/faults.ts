/**
 * Owns the kinds of faults: what each does to which parts, and how it is undone. Each is something that the group promises
 * to survive, alone and together with any other: nothing here takes away what was flushed.
 */
import { readdirSync, readFileSync } from "node:fs";
import { hold, release } from "../../src/cli/embedded/leash.ts";
import type { EmbeddedPostgres } from "../../src/cli/embedded/postgres.ts";
import { between, chance, pick, type Random } from "../sim/scheduler.ts";
import type { TcpProxy, Way } from "../support/tcp-proxy.ts";
import type { Clients } from "./clients.ts";
import { type Cluster, NATS_SERVERS } from "./cluster.ts";

export interface Fault {
  /** Parts that no other fault may touch meanwhile. */
  readonly parts: readonly string[];
  readonly text: string;
  readonly leads: boolean;
  readonly lastsMs: number;
  start(): Promise<unknown>;
  end(): Promise<unknown>;
}

export interface Site {
  readonly cluster: Cluster;
  readonly clients: Clients;
  readonly random: Random;
  readonly leader: string | null;
}

interface Target {
  /** `r2`, and its position. */
  readonly id: string;
  readonly at: number;
  readonly leads: boolean;
}

const SHORT_MS: readonly [number, number] = [200, 2_500];
/** Longer than an election, and than the patience of connections. */
const LONG_MS: readonly [number, number] = [500, 5_000];
const DELAY_MS: readonly [number, number] = [20, 250];

export const FAULTS = {
  "replica killed": (site) => onReplica(site, SHORT_MS, ({ id, at }) => killed(site, [id], [at])),
  "replica stopped": (site) =>
    onReplica(site, SHORT_MS, ({ id, at }) => {
      const replica = replicaAt(site, at);
      return { parts: [id], start: () => replica.stop(), end: () => replica.restart() };
    }),
  "replica paused": (site) =>
    onReplica(site, LONG_MS, ({ id, at }) => {
      const replica = replicaAt(site, at);
      return { parts: [id], start: () => replica.kill("SIGSTOP"), end: () => replica.kill("SIGCONT") };
    }),
  "replica cut off": (site) => onReplica(site, LONG_MS, ({ id }) => cut(linksOf(site, id, "n"), [id])),
  "replica silent": (site) => onReplica(site, LONG_MS, ({ id }) => held(site, linksOf(site, id, "n"), [id])),
  "replica far away": (site) => onReplica(site, LONG_MS, ({ id }) => slow(site, linksOf(site, id, "n"), [id])),
  "database killed": (site) =>
    onReplica(site, SHORT_MS, ({ at }) => {
      const server = postgresAt(site, at);
      return { parts: [`p${at + 1}`], start: () => server.kill("SIGKILL"), end: () => server.restart() };
    }),
  "database paused": (site) => onReplica(site, LONG_MS, ({ at }) => paused(postgresAt(site, at), `p${at + 1}`)),
  "database cut off": (site) => onReplica(site, SHORT_MS, ({ id, at }) => cut(linksOf(site, id, "p"), [`p${at + 1}`])),
  "database silent": (site) =>
    onReplica(site, LONG_MS, ({ id, at }) => held(site, linksOf(site, id, "p"), [`p${at + 1}`])),
  "database slow": (site) =>
    onReplica(site, LONG_MS, ({ id, at }) => slow(site, linksOf(site, id, "p"), [`p${at + 1}`])),
  "nats-server killed": (site) =>
    onNats(site, SHORT_MS, (at) => {
      const server = natsAt(site, at);
      return { parts: [`n${at + 1}`], start: () => server.kill("SIGKILL"), end: () => server.restart() };
    }),
  "nats-server paused": (site) =>
    onNats(site, LONG_MS, (at) => {
      const server = natsAt(site, at);
      return { parts: [`n${at + 1}`], start: () => server.kill("SIGSTOP"), end: () => server.kill("SIGCONT") };
    }),
  "route cut": (site) => onRoute(site, (links, parts) => cut(links, parts)),
  "route silent": (site) => onRoute(site, (links, parts) => held(site, links, parts)),
  "client cut off": (site) => onClient(site, LONG_MS, (name) => cut(linksOf(site, name, "n"), [name])),
  "client silent": (site) => onClient(site, LONG_MS, (name) => held(site, linksOf(site, name, "n"), [name])),
  "client killed": (site) =>
    onClient(site, SHORT_MS, (name) => {
      return { parts: [name], start: () => site.clients.kill(name), end: () => site.clients.restart(name) };
    }),
  "all replicas killed": (site) => {
    return { ...killed(site, ...everyReplica(site)), ...about(site, SHORT_MS, "all replicas") };
  },
  "all nats-servers killed": (site) => ({
    ...allNatsServers(site),
    ...about(site, SHORT_MS, "all nats-servers"),
  }),
  "all databases killed": (site) => ({
    ...allDatabases(site),
    ...about(site, SHORT_MS, "all databases"),
  }),
  "everything killed": (site) => {
    const parts = [killed(site, ...everyReplica(site)), allNatsServers(site), allDatabases(site)];
    return {
      parts: parts.flatMap((part) => part.parts),
      start: () => Promise.all(parts.map((part) => part.start())),
      // Replicas are there only when they can be asked.
      end: () => Promise.all(parts.map((part) => part.end())),
      ...about(site, SHORT_MS, "everything"),
    };
  },
} satisfies Record<string, (site: Site) => Fault>;

export type FaultKind = keyof typeof FAULTS;

type Deed = Pick<Fault, "parts" | "start" | "end">;

function about(site: Site, range: readonly [number, number], text: string): Pick<Fault, "text" | "leads" | "lastsMs"> {
  return { text, leads: false, lastsMs: Math.round(between(site.random, ...range)) };
}

/** On the leader every other time, else on any. */
function onReplica(site: Site, range: readonly [number, number], deed: (target: Target) => Deed): Fault {
  const { random, leader, cluster } = site;
  const any = pick(random, cluster.replicas()).id;
  const id = chance(random, 0.5) && leader !== null ? leader : any;
  const at = cluster.local.replicas.findIndex((replica) => replica.id === id);
  const leads = id === leader;
  return { ...about(site, range, `${id}${leads ? ", the leader" : ""}`), leads, ...deed({ id, at, leads }) };
}

function onNats(site: Site, range: readonly [number, number], deed: (at: number) => Deed): Fault {
  const at = Math.floor(site.random() * NATS_SERVERS);
  return { ...about(site, range, `n${at + 1}`), ...deed(at) };
}

function onClient(site: Site, range: readonly [number, number], deed: (name: string) => Deed): Fault {
  const name = pick(site.random, site.clients.names);
  return { ...about(site, range, name), ...deed(name) };
}

function onRoute(site: Site, deed: (links: readonly TcpProxy[], parts: readonly string[]) => Deed): Fault {
  const routes = [...site.cluster.links.keys()].filter((name) => /^n\d-n\d$/.test(name));
  const name = pick(site.random, routes);
  return { ...about(site, LONG_MS, name), ...deed([linkOf(site, name)], [name]) };
}

function killed(site: Site, parts: readonly string[], positions: readonly number[]): Deed {
  const replicas = positions.map((at) => replicaAt(site, at));
  return {
    parts,
    start: () => Promise.all(replicas.map((replica) => replica.kill("SIGKILL"))),
    // Whoever was retired while the fault waited for its turn stays out.
    end: () =>
      Promise.all(replicas.filter(({ id }) => !site.cluster.isRetired(id)).map((replica) => replica.restart())),
  };
}

function everyReplica({ cluster }: Site): [parts: readonly string[], positions: readonly number[]] {
  const positions = positionsOf(cluster);
  return [positions.map((at) => `r${at + 1}`), positions];
}

function positionsOf({ local, isRetired }: Cluster): number[] {
  return [...local.replicas.entries()].flatMap(([at, { id }]) => (isRetired(id) ? [] : [at]));
}

interface Server {
  kill(signal: NodeJS.Signals): Promise<void>;
  restart(): Promise<void>;
}

function allNatsServers({ cluster }: Site): Deed {
  const { natsServers } = cluster.local;
  return allKilled(
    natsServers,
    [...natsServers.keys()].map((at) => `n${at + 1}`),
  );
}

function allDatabases(site: Site): Deed {
  const positions = positionsOf(site.cluster);
  return allKilled(
    positions.map((at) => postgresAt(site, at)),
    positions.map((at) => `p${at + 1}`),
  );
}

function allKilled(servers: readonly Server[], parts: readonly string[]): Deed {
  return {
    parts,
    start: () => Promise.all(servers.map((server) => server.kill("SIGKILL"))),
    end: () => Promise.all(servers.map((server) => server.restart())),
  };
}

function cut(links: readonly TcpProxy[], parts: readonly string[]): Deed {
  return {
    parts,
    start: () => Promise.all(links.map((link) => link.down())),
    end: () => Promise.all(links.map((link) => link.up())),
  };
}

/** One way or both; connections stay, and what was held comes late. */
function held({ random }: Site, links: readonly TcpProxy[], parts: readonly string[]): Deed {
  const ways = pick<readonly Way[]>(random, [["there"], ["back"], ["there", "back"]]);
  return {
    parts,
    start() {
      for (const link of links) for (const way of ways) link.hold(way);
      return Promise.resolve();
    },
    end: () => flow(links),
  };
}

function slow({ random }: Site, links: readonly TcpProxy[], parts: readonly string[]): Deed {
  const delayMs = Math.round(between(random, ...DELAY_MS));
  return {
    parts,
    start() {
      for (const link of links) link.delay(delayMs);
      return Promise.resolve();
    },
    end: () => flow(links),
  };
}

function flow(links: readonly TcpProxy[]): Promise<void> {
  for (const link of links) link.flow();
  return Promise.resolve();
}

/** A hung database: its backends are processes of their own, which a dying harness must not leave behind asleep. */
function paused(server: EmbeddedPostgres, part: string): Deed {
  let asleep: readonly number[] = [];
  return {
    parts: [part],
    async start() {
      await server.kill("SIGSTOP");
      asleep = server.pid === null ? [] : childrenOf(server.pid);
      for (const pid of asleep) {
        hold(pid);
        signal(pid, "SIGSTOP");
      }
    },
    async end() {
      for (const pid of asleep) {
        signal(pid, "SIGCONT");
        release(pid);
      }
      await server.kill("SIGCONT");
    },
  };
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended meanwhile.
  }
}

function childrenOf(parent: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
        return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) === parent;
      } catch {
        return false; // it has ended meanwhile
      }
    })
    .map(Number);
}

function linksOf({ cluster }: Site, from: string, letter: string): TcpProxy[] {
  return [...cluster.links].flatMap(([name, link]) => (name.startsWith(`${from}-${letter}`) ? [link] : []));
}

function linkOf({ cluster }: Site, name: string): TcpProxy {
  return present(cluster.links.get(name), name);
}

const replicaAt = ({ cluster }: Site, at: number) => present(cluster.local.replicas[at], `replica ${at + 1}`);
const natsAt = ({ cluster }: Site, at: number) => present(cluster.local.natsServers[at], `nats-server ${at + 1}`);
const postgresAt = ({ cluster }: Site, at: number) => present(cluster.local.postgres[at], `database ${at + 1}`);

function present<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`there is no ${what}`);
  return value;
}
