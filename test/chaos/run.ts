/**
 * Owns one run of chaos: a group of real processes, clients that work, a storm of faults, then healing and the judgement.
 *
 *   start → storm (faults and clients) → heal → clients read everything and end → replicas agree → judge → report
 */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { createRandom } from "../sim/scheduler.ts";
import { type Clients, startClients } from "./clients.ts";
import { type Cluster, startCluster } from "./cluster.ts";
import { machineMs, readHistory, type Recorded } from "./history.ts";
import { startMembers } from "./members.ts";
import { type Nemesis, startNemesis } from "./nemesis.ts";
import { judge } from "./verdict.ts";

export interface ChaosOptions {
  /** Data, logs and histories; kept. */
  readonly dir: string;
  readonly engine: "raft" | "paxos";
  readonly replicas: number;
  readonly seed: number;
  readonly stormMs: number;
  /** The storm goes on, up to five times as long, until so many kinds of faults have come: restarts take long on a busy machine. */
  readonly kindsMin: number;
  /** Voters are replaced by new ones meanwhile. */
  readonly members: boolean;
  readonly say: (line: string) => void;
}

export interface ChaosReport {
  readonly engine: "raft" | "paxos";
  readonly replicas: number;
  readonly seed: number;
  readonly stormMs: number;
  readonly operations: { readonly attempted: number; readonly acknowledged: number };
  /** Commands among the acknowledged operations: each has its row in every ledger. */
  readonly commands: number;
  readonly lost: readonly string[];
  readonly wrong: readonly string[];
  readonly faults: Readonly<Record<string, number>>;
  readonly leaderHits: number;
  readonly elections: number;
  /** Installed by replicas that had been away for too long. */
  readonly snapshots: number;
  readonly votersReplaced: number;
  /** The longest time without an acknowledged operation, during the storm. */
  readonly longestUnavailableMs: number;
  readonly ledgerRows: number;
}

const CLIENTS = 3;
const DATASET_MS = 20_000;
const WATCH_MS = 1_000;
const PROGRESS_MS = 10_000;
const LEADER_TIMEOUT_MS = 60_000;

/** @throws Error when the group or the harness can't go on; what the group did wrong is in the report. */
export async function runChaos(options: ChaosOptions): Promise<ChaosReport> {
  const { dir, seed, stormMs, say } = options;
  await using cluster = await startCluster(options);
  const leader = await cluster.local.waitForLeader(LEADER_TIMEOUT_MS);
  say(
    `${options.replicas} replicas on ${options.engine}, ${leader} leads; storm of ${Math.round(stormMs / 1000)} s, seed ${seed}`,
  );
  const startMs = machineMs();
  const clients = await startClients({ cluster, dir, count: CLIENTS, seed, startMs, datasetMs: DATASET_MS });
  const nemesis = startNemesis({ cluster, clients, random: createRandom(seed), say: (line) => say(`  ${line}`) });
  const members = options.members
    ? startMembers({ cluster, random: createRandom(seed + 1), busy: nemesis.busy, say: (line) => say(`  ${line}`) })
    : null;
  const isOver = (): boolean => {
    const goneMs = machineMs() - startMs;
    const isRich = Object.keys(nemesis.counts).length >= options.kindsMin;
    return goneMs >= (isRich ? stormMs : stormMs * 5) || nemesis.failed();
  };
  const fallen = await weather(cluster, clients, nemesis, isOver, say);
  await nemesis.stop();
  const stormEndMs = machineMs();
  await members?.stop();
  await cluster.local.waitForLeader(LEADER_TIMEOUT_MS);
  say("healed; clients read everything");
  await clients.finish();
  const history = readHistory(clients.files());
  say(`judging ${history.operations.length} operations`);
  const { lost, wrong, index } = await judge(cluster, history.operations);
  const acknowledged = history.operations.filter(({ output }) => output !== null);
  return {
    ...{ engine: options.engine, replicas: options.replicas, seed, stormMs },
    operations: { attempted: history.operations.length, acknowledged: acknowledged.length },
    commands: acknowledged.filter(({ commandId }) => commandId !== null).length,
    lost,
    wrong: [...history.wrong, ...fallen, ...wrong],
    faults: nemesis.counts,
    leaderHits: nemesis.leaderHits,
    elections: new Set(linesOf(cluster, / leader in term (\d+),/g)).size,
    snapshots: linesOf(cluster, /snapshot of index (\d+) was installed, from/g).length,
    votersReplaced: members?.replaced() ?? 0,
    longestUnavailableMs: longestGapMs(acknowledged, startMs, stormEndMs),
    ledgerRows: index,
  };
}

/** Waits for the end of the storm, and tells how it goes. Resolves with the replicas that ended by themselves. */
async function weather(
  cluster: Cluster,
  clients: Clients,
  nemesis: Nemesis,
  isOver: () => boolean,
  say: ChaosOptions["say"],
): Promise<string[]> {
  const fallen: string[] = [];
  const startMs = machineMs();
  let toldMs = startMs;
  while (!isOver()) {
    await sleep(WATCH_MS);
    for (const replica of cluster.replicas()) {
      if (!replica.exited() || nemesis.busy().has(replica.id)) continue;
      const log = readFileSync(replica.logFile, "utf8").trim().split("\n").slice(-3).join(" | ");
      fallen.push(`${replica.id} ended by itself: ${log}`);
      await replica.restart();
    }
    if (machineMs() - toldMs < PROGRESS_MS) continue;
    toldMs = machineMs();
    const { operations } = readHistory(clients.files());
    const acknowledged = operations.filter(({ output }) => output !== null).length;
    const faults = Object.values(nemesis.counts).reduce((sum, count) => sum + count, 0);
    const goneS = Math.round((toldMs - startMs) / 1000);
    say(`${goneS} s: ${acknowledged} of ${operations.length} operations acknowledged, ${faults} faults`);
  }
  return fallen;
}

/** What the pattern finds in the replicas' logs; of elections, terms (or ballots) in which one said that it leads. */
function linesOf({ local }: Cluster, pattern: RegExp): (string | undefined)[] {
  return local.replicas.flatMap(({ logFile }) =>
    [...readFileSync(logFile, "utf8").matchAll(pattern)].map(([, found]) => found),
  );
}

function longestGapMs(acknowledged: readonly Recorded[], startMs: number, endMs: number): number {
  const times = acknowledged.map(({ returnMs }) => returnMs ?? 0).filter((ms) => ms >= startMs && ms <= endMs);
  const points = [startMs, ...times.toSorted((a, b) => a - b), endMs];
  return Math.round(Math.max(...points.slice(1).map((ms, i) => ms - (points[i] ?? ms))));
}
