/**
 * Process-level chaos in short: `npm run chaos` for half a minute an engine (docs/chaos.md).
 */
import path from "node:path";
import { expect, test } from "vitest";
import { FAULTS } from "../chaos/faults.ts";
import { runChaos } from "../chaos/run.ts";
import { tempDir } from "../support/temp-dir.ts";

const STORM_MS = 30_000;
/** Fixed: a change is judged by the same plan of faults as the one before it. `npm run chaos` draws new ones. */
const SEED = 4;
const KINDS_MIN = 1 + Math.floor(Object.keys(FAULTS).length / 3);

for (const engine of ["raft", "paxos"] as const) {
  test(`${engine}: nothing acknowledged is lost, no answer is wrong, all replicas agree at the end`, async () => {
    const dir = await tempDir("chaos");
    const lines: string[] = [];
    const say = (line: string) => void lines.push(line);
    const storm = { seed: SEED, members: false, stormMs: STORM_MS, kindsMin: KINDS_MIN };
    const o = { dir: path.join(dir.path, engine), engine, replicas: 3, ...storm, say };
    const report = await runChaos(o).catch((error: unknown) => {
      throw new Error(`${lines.join("\n")}\nlogs: ${dir.path}`, { cause: error });
    });
    const again = `npm run chaos -- --minutes ${STORM_MS / 60_000} --engine ${engine} --seed ${SEED}`;
    const told = `${lines.join("\n")}\nlogs: ${dir.path}\nagain: ${again}`;
    expect(report.lost, told).toEqual([]);
    expect(report.wrong, told).toEqual([]);
    // An empty run is no success.
    expect(report.operations.acknowledged, told).toBeGreaterThan(60);
    expect(report.commands, told).toBeGreaterThan(20);
    expect(report.elections, told).toBeGreaterThanOrEqual(2);
    expect(Object.keys(report.faults).length, told).toBeGreaterThanOrEqual(KINDS_MIN);
    // After a failure the logs stay.
    await dir.remove();
  }, 360_000);
}
