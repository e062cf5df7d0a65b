/**
 * A sample of seeds in every test run; `npm run sim -- --seeds 1000` runs more, `--replay SEED` one again.
 */
import { describe, expect, it } from "vitest";
import type { Fault } from "./nemesis.ts";
import { simulate } from "./simulate.ts";

/** As many as fit the time, in order: a slow machine runs fewer. */
const SEEDS_MAX = 24;
const SEEDS_MIN = 6;
const BUDGET_MS = 45_000;

describe("whole clusters under faults", () => {
  it("keep every invariant, recover and stay linearizable", { timeout: 600_000 }, async () => {
    const total = { elections: 0, chosen: 0, answered: 0, messages: 0 };
    const faults = new Map<string, number>();
    const endMs = performance.now() + BUDGET_MS;
    let seeds = 0;
    for (; seeds < SEEDS_MAX && (seeds < SEEDS_MIN || performance.now() < endMs); seeds++) {
      const report = await simulate(seeds);
      for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += report[key];
      for (const [fault, count] of Object.entries(report.faults) as [Fault, number][]) {
        faults.set(fault, (faults.get(fault) ?? 0) + count);
      }
    }
    // Work was done: a simulation of nothing is green too.
    const least = { elections: 2, chosen: 150, answered: 150, messages: 1_500 };
    for (const key of Object.keys(total) as (keyof typeof total)[]) {
      expect(total[key], key).toBeGreaterThan(least[key] * seeds);
    }
    expect([...faults.values()].filter((count) => count > 0).length).toBeGreaterThan(faults.size * 0.75);
    expect((faults.get("crash") ?? 0) + (faults.get("power_loss") ?? 0)).toBeGreaterThan(3);
  });

  it("are functions of their seeds", { timeout: 300_000 }, async () => {
    for (const seed of [1, 2, 5]) {
      const options = { stormMs: 2_000 };
      expect(await simulate(seed, options)).toEqual(await simulate(seed, options));
    }
  });
});
