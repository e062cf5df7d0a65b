/**
 * A sample of seeds in every test run; `npm run sim -- --seeds 1000` runs more, `--replay SEED` one again.
 */
import { describe, expect, it } from "vitest";
import type { Fault } from "./nemesis.ts";
import { simulate } from "./simulate.ts";

const SEEDS = 24;

describe("whole clusters under faults", () => {
  it(`keeps every invariant, recovers and stays linearizable, ${SEEDS} seeds`, { timeout: 240_000 }, async () => {
    const total = { elections: 0, chosen: 0, answered: 0, messages: 0 };
    const faults: Partial<Record<Fault, number>> = {};
    for (let seed = 0; seed < SEEDS; seed++) {
      const report = await simulate(seed);
      for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += report[key];
      for (const [fault, count] of Object.entries(report.faults) as [Fault, number][]) {
        faults[fault] = (faults[fault] ?? 0) + count;
      }
    }
    // Work was done: a simulation of nothing is green too.
    const least = { elections: 2, chosen: 150, answered: 150, messages: 2_000 };
    for (const key of Object.keys(total) as (keyof typeof total)[]) {
      expect(total[key], key).toBeGreaterThan(least[key] * SEEDS);
    }
    for (const [fault, count] of Object.entries(faults)) expect(count, fault).toBeGreaterThan(0);
  });

  it("is a function of its seed", { timeout: 120_000 }, async () => {
    for (const seed of [1, 2, 5]) {
      const options = { stormMs: 4_000 };
      expect(await simulate(seed, options)).toEqual(await simulate(seed, options));
    }
  });
});
