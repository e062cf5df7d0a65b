/**
 * What feeding costs a training step of a few milliseconds: an MLP fed by the loader, window-shuffled and verified, beside the
 * same loop over one resident tensor. And whether memory, tensors and files stay as they are over twenty epochs.
 */
import { once } from "node:events";
import { measureMemory } from "../test/loader/support/measure-memory.ts";
import { buildPackage, forkScript } from "./built.ts";
import type { FeedingJob, FeedingRun } from "./feeding-client.ts";
import { makeFloatData } from "./float-data.ts";
import { type Figure, latency, median, quantile } from "./report.ts";

const WIDTH = 64;
const BATCH_SIZE = 256;
const MiB = 1024 * 1024;

async function measure(job: FeedingJob): Promise<readonly FeedingRun[]> {
  const child = forkScript("feeding-client.ts");
  const exit = once(child, "exit");
  child.send(job);
  const [runs] = (await Promise.race([once(child, "message"), exit])) as [readonly FeedingRun[]];
  await exit;
  return runs;
}

export async function benchFeeding(note: (line: string) => void): Promise<Figure[]> {
  await buildPackage();
  await using made = await makeFloatData(WIDTH, 1024);
  const runs = await measure({ data: made.data, width: WIDTH, batchSize: BATCH_SIZE });
  for (const { residentStepMs, fedStepMs } of runs) {
    note(`step ${residentStepMs.toFixed(2)} ms, fed ${fedStepMs.toFixed(2)} ms`);
  }
  const middle = (of: (run: FeedingRun) => number): number => median(runs.map(of));
  const waits = runs.flatMap(({ waitsMs }) => waitsMs);
  const goal = (value: number) => ({ name: "goal", value });
  const batchMiB = (BATCH_SIZE * WIDTH * 4) / MiB;
  const percent = "% of wall";
  const wall = middle(({ fedStepMs, residentStepMs }) => fedStepMs / residentStepMs);
  const blocked = middle((run) => run.blockedShare) * 100;
  const between = middle((run) => run.mainThreadShare) * 100;
  return [
    latency("feeding", "wall against one resident tensor", "times", wall, goal(1.08), 1),
    latency("feeding", "blocked on data", percent, blocked, goal(1), 1),
    latency("feeding", "CPU of the main thread between steps", percent, between, goal(5), 1),
    latency("feeding", "a step's wait, p99", "ms", quantile(waits, 0.99), goal(2 + 0.5 * batchMiB), 1),
    ...(await steadiness(note)),
  ];
}

/** Twenty epochs in a budget, in a process of their own: resident memory, tensors and open files after each epoch. */
async function steadiness(note: (line: string) => void): Promise<Figure[]> {
  await using data = await makeFloatData(WIDTH, 307);
  await using small = await makeFloatData(WIDTH, 4);
  const memory = 256 * MiB;
  const shuffle = { strength: "window", windowBytes: 64 * MiB } as const;
  const o = { xs: "x", batchSize: BATCH_SIZE, shuffle, seed: 7, memory } as const;
  const { startBytes, peakBytes, tensors, files } = await measureMemory(data.data, small.data, o, 20);
  note(`20 epochs: tensors ${tensors[0]} → ${tensors.at(-1)}, open files ${files[0]} → ${files.at(-1)}`);
  const used = (peakBytes - startBytes) / memory;
  const more = (values: readonly number[]): number => (values.at(-1) ?? 0) - (values[0] ?? 0);
  const goal = (value: number) => ({ name: "goal", value });
  return [
    latency("feeding", "resident memory over 20 epochs, of the budget", "times", used, goal(1.2), 1),
    latency("feeding", "tensors more after 20 epochs than after one", "", more(tensors), goal(0), null),
    latency("feeding", "open files more after 20 epochs than after one", "", more(files), goal(0), null),
  ];
}
