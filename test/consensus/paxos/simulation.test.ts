import { describe, expect, it } from "vitest";
import { paxosEngine } from "../../../src/consensus/paxos/index.ts";
import { simulate, type SimulationReport } from "../simulator.ts";

const STEPS = 2_000;
const SEEDS = 300;

describe("a Multi-Paxos group under faults", () => {
  const one = process.env["SIM_SEED"];
  if (one !== undefined) {
    it(`replays seed ${one}`, () => {
      expect(simulate(Number(one), STEPS, paxosEngine).commits).toBeGreaterThan(0);
    });
    return;
  }

  it(`keeps every invariant and recovers, ${SEEDS} seeds of ${STEPS} steps`, () => {
    const total = {
      elections: 0,
      commits: 0,
      crashes: 0,
      reads: 0,
      dropped: 0,
      removals: 0,
      loads: 0,
      restores: 0,
      compactions: 0,
      installs: 0,
      destroyed: 0,
      changes: 0,
    };
    for (let seed = 0; seed < SEEDS; seed += 1) {
      const report = simulate(seed, STEPS, paxosEngine);
      for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += report[key];
    }
    // Work was done: a simulation of nothing is green too. `removals` counts slots that were accepted in place of others.
    const least = {
      elections: 2,
      commits: 20,
      crashes: 1,
      reads: 10,
      dropped: 20,
      removals: 5,
      loads: 5,
      restores: 0.3,
      compactions: 1,
      installs: 0.2,
      destroyed: 0.5,
      changes: 0.5,
    };
    for (const key of Object.keys(total) as (keyof typeof total)[]) {
      expect(total[key], key).toBeGreaterThan(least[key] * SEEDS);
    }
  });

  it("is a function of its seed", () => {
    const twice = (seed: number): [SimulationReport, SimulationReport] => [
      simulate(seed, STEPS, paxosEngine),
      simulate(seed, STEPS, paxosEngine),
    ];
    for (const seed of [0, 1, 2, 3]) {
      const [first, second] = twice(seed);
      expect(second).toEqual(first);
    }
  });

  it("goes on for long runs", () => {
    for (let seed = 90_000; seed < 90_004; seed += 1) {
      expect(simulate(seed, 20_000, paxosEngine).commits).toBeGreaterThan(20);
    }
  });
});
