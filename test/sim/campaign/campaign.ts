/**
 * Owns a campaign: seed after seed until a time is over, what it must have done to count, and what it says about itself.
 *
 * The one thing to know: a run of nothing is green too, so a campaign that did too little fails.
 */
import type { EngineName } from "../engines.ts";
import type { Fault } from "../nemesis.ts";
import { simulate, type SimulationReport } from "../simulate.ts";

/** Of a group of any size, and of the seed in the middle. */
const STEPS_MIN = 2_000;
const MEDIAN_MIN = { elections: 2, chosen: 50, crashes: 1 };
/** Every so many seeds one runs twice: equal traces, or it is no function of its seed. */
const TWICE_EVERY = 20;
const FAULT_KINDS_MIN = 0.9;

export interface CampaignOptions {
  readonly engine: EngineName;
  /** No seed begins later than this; at least `seedsMin` are run. */
  readonly budgetMs: number;
  readonly seedsMin: number;
  readonly from?: number;
  /** With ranks of runs that follow a dataset. */
  readonly ranks?: boolean;
}

export interface Campaign {
  readonly engine: EngineName;
  readonly reports: readonly SimulationReport[];
  readonly twice: number;
  readonly seconds: number;
}

/** @throws Error naming the first seed that fails, with the command that runs it again */
export async function runCampaign({
  engine,
  budgetMs,
  seedsMin,
  from = 0,
  ranks = false,
}: CampaignOptions): Promise<Campaign> {
  const startMs = performance.now();
  const reports: SimulationReport[] = [];
  let twice = 0;
  for (let seed = from; reports.length < seedsMin || performance.now() - startMs < budgetMs; seed++) {
    const report = await simulate(seed, { engine, ranks });
    reports.push(report);
    if (report.steps < STEPS_MIN) throw new Error(`seed ${seed}: ${report.steps} steps are not a run`);
    if (seed % TWICE_EVERY !== 0) continue;
    const again = await simulate(seed, { engine, ranks });
    if (JSON.stringify(again) !== JSON.stringify(report)) throw new Error(`seed ${seed} is not a function of its seed`);
    twice += 1;
  }
  return { engine, reports, twice, seconds: (performance.now() - startMs) / 1000 };
}

/** What is missing for it to count; empty when it does. */
export function shortcomings({ reports, twice }: Campaign): readonly string[] {
  const missing: string[] = [];
  for (const key of Object.keys(MEDIAN_MIN) as (keyof typeof MEDIAN_MIN)[]) {
    const median = medianOf(reports.map((report) => report[key]));
    if (median < MEDIAN_MIN[key]) missing.push(`the median seed has ${median} ${key}, not ${MEDIAN_MIN[key]}`);
  }
  const faults = [...faultsOf(reports)];
  const seen = faults.filter(([, count]) => count > 0).length;
  if (seen < faults.length * FAULT_KINDS_MIN) missing.push(`only ${seen} of ${faults.length} kinds of faults happened`);
  for (const key of ["compactions", "installs", "repairs", "changes", "reads"] as const) {
    const total = reports.reduce((sum, report) => sum + report[key], 0);
    if (total < reports.length / 10) missing.push(`only ${total} ${key} in ${reports.length} seeds`);
  }
  if (twice === 0) missing.push("no seed was run twice");
  return missing;
}

/** Seeds, steps, what was done and what went wrong, in a few lines. */
export function describeCampaign({ engine, reports, twice, seconds }: Campaign): string {
  const sum = (key: SumKey): number => reports.reduce((total, report) => total + report[key], 0);
  const faults = [...faultsOf(reports)].map(([fault, count]) => `${fault} ${count}`);
  const sizes = [1, 3, 5, 7].map((n) => `${reports.filter(({ replicas }) => replicas === n).length} of ${n}`);
  return [
    `${engine}: ${reports.length} seeds (groups: ${sizes.join(", ")}; ${twice} run twice) in ${seconds.toFixed(1)} s, ` +
      `${sum("steps")} steps (${Math.round(sum("steps") / seconds)}/s), ${Math.round(sum("virtualMs") / 1000)} virtual s`,
    `${engine}: ${sum("elections")} elections, ${sum("chosen")} entries, ${sum("crashes")} crashes, ` +
      `${sum("compactions")} compactions, ${sum("installs")} snapshots installed, ${sum("repairs")} repairs, ${sum("changes")} changes of the membership, ` +
      `${sum("answered")} of ${sum("operations")} operations answered, ` +
      `${sum("reads")} reads of one replica, ${sum("messages")} messages` +
      (sum("rankEpochs") > 0 ? `, ${sum("rankEpochs")} epochs of ranks` : ""),
    `${engine}: faults: ${faults.join(", ")}`,
  ].join("\n");
}

type SumKey = { [K in keyof SimulationReport]: SimulationReport[K] extends number ? K : never }[keyof SimulationReport];

export function faultsOf(reports: readonly SimulationReport[]): ReadonlyMap<Fault, number> {
  const faults = new Map<Fault, number>();
  for (const report of reports) {
    for (const [fault, count] of Object.entries(report.faults) as [Fault, number][]) {
      faults.set(fault, (faults.get(fault) ?? 0) + count);
    }
  }
  return faults;
}

function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}
