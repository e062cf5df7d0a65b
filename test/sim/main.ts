/**
 * Owns the command `npm run sim`: many seeds, one seed again, or the gate of mutations.
 */
import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { describeCampaign } from "./campaign/campaign.ts";
import { type EngineName, engineNamed } from "./engines.ts";
import { runGate } from "./gate.ts";
import { MUTATIONS } from "./mutations/index.ts";
import type { Fault } from "./nemesis.ts";
import { simulate, type SimulationOptions, type SimulationReport } from "./simulate.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "20" },
    from: { type: "string", default: "0" },
    /** Raft, but for the gate: it takes both when none is named. */
    engine: { type: "string" },
    replay: { type: "string" },
    history: { type: "string" },
    ms: { type: "string" },
    mutations: { type: "boolean", default: false },
    only: { type: "string" },
    parallel: { type: "string", default: `${Math.max(1, availableParallelism() - 1)}` },
    faults: { type: "string" },
    replicas: { type: "string" },
    membership: { type: "boolean" },
    ranks: { type: "boolean" },
    "until-failure": { type: "boolean", default: false },
  },
});

const options: SimulationOptions = {
  engine: engineNamed(values.engine ?? "raft"),
  ...(values.history === undefined ? {} : { historyFile: values.history }),
  ...(values.faults === undefined ? {} : { focus: values.faults.split(",") as Fault[] }),
  ...(values.replicas === undefined ? {} : { replicas: Number(values.replicas) }),
  ...(values.membership === undefined ? {} : { membership: values.membership }),
  ...(values.ranks === undefined ? {} : { ranks: values.ranks }),
  ...(values.ms === undefined ? {} : { stormMs: Number(values.ms) }),
};

if (values.mutations) await gate(values.only);
else if (values["until-failure"]) await untilFailure(Number(values.from), Number(values.seeds));
else if (values.replay !== undefined) console.log(await simulate(Number(values.replay), options));
else await many(Number(values.from), Number(values.seeds));

/** Prints the first seed that fails, as JSON. */
async function untilFailure(from: number, count: number): Promise<void> {
  for (let seed = from; seed < from + count; seed++) {
    try {
      await simulate(seed, options);
    } catch (error) {
      console.log(JSON.stringify({ seed, message: (error as Error).message }));
      return;
    }
  }
}

async function gate(only: string | undefined): Promise<void> {
  const engines: readonly EngineName[] = values.engine === undefined ? ["raft", "paxos"] : [engineNamed(values.engine)];
  const suspects = engines
    .flatMap((engine) => MUTATIONS[engine].map((mutation) => ({ engine, mutation })))
    .filter(({ mutation: { name } }) => only === undefined || only.split(",").includes(name));
  let missed = 0;
  await runGate(suspects, Number(values.parallel), ({ engine, mutation, seed, seconds, what }) => {
    if (seed === null) missed += 1;
    const verdict = seed === null ? `NOT CAUGHT in ${mutation.seedsMax}` : `seed ${seed} of ${mutation.seedsMax}`;
    const name = `${engine.padEnd(5)} ${mutation.name.padEnd(28)}`;
    console.log(`${name} ${verdict.padEnd(20)} ${seconds.toFixed(1).padStart(6)} s  ${what}`);
  });
  console.log(`${suspects.length - missed} of ${suspects.length} bugs were caught`);
  if (missed > 0) process.exitCode = 1;
}

async function many(from: number, count: number): Promise<void> {
  const startMs = performance.now();
  const reports: SimulationReport[] = [];
  let failed = 0;
  for (let seed = from; seed < from + count; seed++) {
    try {
      reports.push(await simulate(seed, options));
    } catch (error) {
      failed += 1;
      console.log((error as Error).message);
    }
  }
  const seconds = (performance.now() - startMs) / 1000;
  console.log(describeCampaign({ engine: options.engine ?? "raft", reports, twice: 0, seconds }));
  console.log(`${count - failed} seeds passed, ${failed} failed`);
  if (failed > 0) process.exitCode = 1;
}
