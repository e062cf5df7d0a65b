/**
 * Owns one run: a seed makes a group, its clients and its faults; after the storm everything is healed, progress is
 * required, and the history of every dataset must be linearizable.
 */
import { type Clients, DATASETS, type Recorded, startClients } from "./clients.ts";
import { type Cluster, createCluster, fork } from "./cluster.ts";
import { datasetModel, type Output } from "./dataset-model.ts";
import { type EngineName, withEngine } from "./engines.ts";
import { writeHistory } from "./history.ts";
import { checkLinearizable, type Operation } from "./linearizability.ts";
import { type Fault, startNemesis } from "./nemesis.ts";
import { type Deed, type Operator, startOperator } from "./operator.ts";
import { startRanks } from "./ranks.ts";
import { createAcknowledged, startReaders } from "./readers.ts";
import { below, chance, createRandom, createScheduler, pick, type Scheduler } from "./scheduler.ts";

const GROUP_SIZES = [3, 3, 3, 3, 3, 5, 5, 7, 1];
/** A quiet group (one replica that is down, say) storms on until it has done something. */
const STORM_MS = 12_000;
const STORM_MS_MAX = 60_000;
const STEPS_MIN = 2_000;
/** Of seeds whose group has an operator. */
const MEMBERSHIP_SHARE = 0.5;
const HEAL_MS = 30_000;

export interface SimulationOptions {
  readonly stormMs?: number;
  /** Raft when it is left out. */
  readonly engine?: EngineName;
  /** Histories are appended to this file as JSON lines. */
  readonly historyFile?: string;
  /** So many replicas, instead of a number that the seed draws. */
  readonly replicas?: number;
  /** Changes of the membership, or none; the seed draws when it is left out. */
  readonly membership?: boolean;
  /** Ranks of runs that follow a dataset, or none: they are no part of a seed, so that seeds stay what they are. */
  readonly ranks?: boolean;
  /** Only these faults. */
  readonly focus?: readonly Fault[];
}

export interface SimulationReport {
  readonly seed: number;
  readonly replicas: number;
  readonly steps: number;
  readonly virtualMs: number;
  readonly elections: number;
  readonly chosen: number;
  /** Deaths of processes and of databases. */
  readonly crashes: number;
  readonly compactions: number;
  /** Snapshots that were installed. */
  readonly installs: number;
  /** Damaged disks that are whole again. */
  readonly repairs: number;
  /** What the group answered to its operator with yes. */
  readonly changes: number;
  readonly deeds: Readonly<Record<Deed, number>>;
  readonly operations: number;
  /** Operations that returned an answer. */
  readonly answered: number;
  /** Answers of one replica, linearizable or of a bounded age. */
  readonly reads: number;
  /** Epochs that ranks came to, where there are ranks. */
  readonly rankEpochs: number;
  readonly messages: number;
  readonly faults: Readonly<Record<Fault, number>>;
  readonly traceHash: number;
}

/** Runs a seed. @throws Error naming the seed, the step, the invariant and the command that runs it again */
export async function simulate(seed: number, options: SimulationOptions = {}): Promise<SimulationReport> {
  const scheduler = createScheduler();
  const random = createRandom(seed);
  const drawn = pick(random, GROUP_SIZES);
  const replicaCount = options.replicas ?? drawn;
  const name = options.engine ?? "raft";
  const cluster = withEngine(name, (engine) =>
    createCluster({ scheduler, random: fork(random), replicaCount, engine }),
  );
  const acknowledged = createAcknowledged(scheduler);
  const stop = catchStrays(scheduler);
  try {
    for (const id of cluster.ids) cluster.start(id);
    const clients = startClients({
      scheduler,
      random: fork(random),
      cluster,
      count: 2 + below(random, 4),
      acknowledged,
    });
    const readers = startReaders({ scheduler, random: fork(random), cluster, acknowledged });
    const wanted = chance(random, MEMBERSHIP_SHARE);
    const operator =
      (options.membership ?? wanted) ? startOperator({ scheduler, random: fork(random), cluster }) : null;
    const ranks = options.ranks === true ? startRanks({ scheduler, random: fork(random), cluster }) : null;
    const names = [...clients.names, readers.name, ...(ranks?.names ?? [])];
    const nemesis = startNemesis({
      scheduler,
      random: fork(random),
      cluster,
      clientNames: operator === null ? names : [...names, operator.name],
      focus: options.focus,
    });
    const stormMs = options.stormMs ?? STORM_MS;
    do await scheduler.run(scheduler.nowMs() + stormMs);
    while (scheduler.steps() < STEPS_MIN && scheduler.nowMs() < STORM_MS_MAX);
    nemesis.stop();
    clients.stop();
    ranks?.stop();
    operator?.stop();
    readers.stop();
    await recover(scheduler, cluster, clients, operator, nemesis.heal);
    const history = settleHistory(cluster, clients);
    if (options.historyFile !== undefined) writeHistory(options.historyFile, seed, history);
    checkHistory(history);
    return {
      seed,
      replicas: replicaCount,
      steps: scheduler.steps(),
      virtualMs: Math.round(scheduler.nowMs()),
      elections: cluster.checker.elections(),
      chosen: cluster.checker.chosenCount(),
      crashes: cluster.crashes(),
      ...cluster.checker.counts,
      changes: Object.values(operator?.counts ?? {}).reduce((sum, count) => sum + count, 0),
      deeds: operator?.counts ?? { add_learner: 0, promote: 0, remove: 0, replace: 0, transfer: 0 },
      operations: history.length,
      answered: history.filter(({ output }) => output !== null).length,
      reads: readers.counts.linearizable + readers.counts.bounded,
      rankEpochs: ranks?.counts.epochs ?? 0,
      messages: cluster.network.counts.sent,
      faults: nemesis.counts,
      traceHash: scheduler.traceHash(),
    };
  } catch (error) {
    const where = `seed ${seed}, step ${scheduler.steps()} (${scheduler.nowMs().toFixed(1)} ms)`;
    const membership =
      (options.membership === true ? " --membership" : "") + (options.ranks === true ? " --ranks" : "");
    const replicas = options.replicas === undefined ? "" : ` --replicas ${options.replicas}`;
    const focus = options.focus === undefined ? "" : ` --faults ${options.focus.join(",")}`;
    const replay = `npm run sim -- --engine ${name} --replay ${seed}${membership}${replicas}${focus}`;
    throw new Error(`${where}: ${(error as Error).message}\nreplay: ${replay}`, { cause: error });
  } finally {
    stop();
    for (const id of cluster.ids) cluster.kill(id);
  }
}

/** A promise that nobody awaits and that fails is a bug of the code under test. */
function catchStrays(scheduler: Scheduler): () => void {
  const stray = (error: unknown): void => scheduler.fail(error as Error);
  process.on("unhandledRejection", stray);
  return () => process.off("unhandledRejection", stray);
}

/** Ends all faults; every healthy replica must come to the same point, and every client must be answered. */
async function recover(
  scheduler: Scheduler,
  cluster: Cluster,
  clients: Clients,
  operator: Operator | null,
  heal: () => void,
): Promise<void> {
  const { checker, members } = cluster;
  const endMs = scheduler.nowMs() + HEAL_MS;
  heal();
  await scheduler.run(endMs, () => clients.idle() && operator?.idle() !== false && cluster.leader() !== null);
  const before = checker.chosenCount();
  // Whoever was cut off from several changes of the membership first has to be shown the way to the group that is now.
  let unanswered = 0;
  do {
    const asked = clients.history.length;
    clients.readAll();
    await scheduler.run(endMs, clients.idle);
    unanswered = clients.history.slice(asked).filter(({ output }) => output === null).length;
  } while (unanswered > 0 && scheduler.nowMs() < endMs);
  // Who has left need not keep up; who belongs to the group may still change while a change ends.
  const healthy = () => [...members.values()].filter(({ id }) => checker.healthy(id) && checker.isMember(id));
  const isEven = (): boolean =>
    healthy().every(({ database }) => database.disk.applied.index === checker.chosenCount()) &&
    checker.chosenCount() > 0;
  await scheduler.run(endMs, isEven);
  const where = (): string => [...members.values()].map((m) => JSON.stringify(m.replica?.status() ?? m.id)).join("\n");
  if (unanswered > 0) throw new Error(`no progress: ${unanswered} reads were not answered after healing\n${where()}`);
  if (!isEven()) throw new Error(`no progress: ${checker.chosenCount()} (${before}) entries are chosen\n${where()}`);
  for (const { id, database } of healthy()) checker.compareTables(id, database.disk);
}

/**
 * What the ledger knows of operations that nobody was answered: those without an effect are left out; the others stay
 * open, with what they came to.
 */
function settleHistory(cluster: Cluster, { history, neverSent }: Clients): readonly Recorded[] {
  const { oracle } = cluster.checker;
  const versions = [...(oracle.rows.get("version")?.values() ?? [])].filter((row) => row.table === "version");
  const effectOf = ({ input, commandId, dataset }: Recorded): Output | null => {
    if (input.kind === "commit") {
      const row = versions.find((version) => version.dataset === dataset && version.root === input.root);
      return row ? { kind: "ok", version: row.version, root: row.root } : null;
    }
    const outcome = commandId === null ? undefined : oracle.outcomes.get(commandId)?.outcome;
    return outcome?.ok === true ? { kind: "ok", version: Number(outcome.result["version"]), root: "" } : null;
  };
  return history.flatMap((operation, at) => {
    if (operation.output !== null) return [operation];
    const effect = effectOf(operation);
    if (effect === null) return [];
    if (neverSent.has(at))
      throw new Error(`I12 ${JSON.stringify(operation)} was never sent, says its client; it was applied`);
    return [{ ...operation, output: effect }];
  });
}

function checkHistory(history: readonly Recorded[]): void {
  for (const dataset of DATASETS) {
    const operations = history.filter((operation) => operation.dataset === dataset);
    const { result, longest, explored } = checkLinearizable(datasetModel, operations);
    if (result === "linearizable") continue;
    const rest = operations.filter((_, at) => !longest.includes(at)).slice(0, 12);
    const shown = rest.map((operation: Operation<unknown, unknown>) => JSON.stringify(operation)).join("\n");
    throw new Error(`${dataset} is not linearizable (${result}, ${explored} states); not explained:\n${shown}`);
  }
}
