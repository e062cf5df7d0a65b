/**
 * A quick look at both engines in every test run; the campaign is the project `simulation` of `npm test`, more is
 * `npm run sim -- --seeds 1000`.
 */
import { describe, expect, it } from "vitest";
import { describeCampaign, faultsOf, runCampaign } from "./campaign/campaign.ts";
import type { EngineName } from "./engines.ts";
import { simulate } from "./simulate.ts";

const BUDGET_MS = 8_000;
const SEEDS_MIN = 6;
const ENGINES: readonly EngineName[] = ["raft", "paxos"];

describe.each(ENGINES)("whole clusters under %s", (engine) => {
  it("keep every invariant, recover and stay linearizable", { timeout: 600_000 }, async () => {
    const campaign = await runCampaign({ engine, budgetMs: BUDGET_MS, seedsMin: SEEDS_MIN });
    const { reports, twice } = campaign;
    console.log(describeCampaign(campaign));
    // Work was done: a simulation of nothing is green too.
    const least = { elections: 2, chosen: 100, answered: 100, messages: 1_000, crashes: 0.3 };
    for (const key of Object.keys(least) as (keyof typeof least)[]) {
      const total = reports.reduce((sum, report) => sum + report[key], 0);
      expect(total, key).toBeGreaterThan(least[key] * reports.length);
    }
    const faults = [...faultsOf(reports).values()];
    expect(faults.filter((count) => count > 0).length).toBeGreaterThan(faults.length * 0.6);
    expect(twice).toBeGreaterThan(0);
  });

  it("give all ranks of a run one version an epoch (I70)", { timeout: 240_000 }, async () => {
    for (const seed of [0, 1]) {
      const options = { engine, ranks: true, replicas: 3, stormMs: 6_000 };
      const report = await simulate(seed, options);
      expect(report.rankEpochs).toBeGreaterThan(20);
      if (seed === 0) expect(await simulate(seed, options)).toEqual(report);
    }
  });
});
