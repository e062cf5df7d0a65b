/**
 * What feeding costs a training step of a few milliseconds: an MLP fed by the loader, window-shuffled and verified, beside the
 * same loop over one resident tensor. And whether memory, tensors and files stay as they are over twenty epochs.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import * as tf from "@tensorflow/tfjs-node";
import type { Loader } from "../src/tfjs/loader.ts";
import { measureMemory } from "../test/loader/support/measure-memory.ts";
import { buildPackage, built } from "./built.ts";
import { makeFloatData } from "./float-data.ts";
import { type Figure, latency, median, quantile } from "./report.ts";

const WIDTH = 64;
const BATCH_SIZE = 256;
const STEPS = 400;
const RUNS = 5;
const MiB = 1024 * 1024;

function createStep(): (xs: tf.Tensor) => void {
  const model = tf.sequential({
    layers: [
      tf.layers.dense({ inputShape: [WIDTH], units: 512, activation: "relu" }),
      tf.layers.dense({ units: 512, activation: "relu" }),
      tf.layers.dense({ units: 1 }),
    ],
  });
  const optimizer = tf.train.sgd(1e-6);
  return (xs) => {
    const loss = optimizer.minimize(() => (model.apply(xs) as tf.Tensor).mean().asScalar(), true);
    loss?.dataSync(); // the step has ended
    loss?.dispose();
  };
}

export async function benchFeeding(note: (line: string) => void): Promise<Figure[]> {
  await buildPackage();
  const { createLoader } = await built<typeof import("../src/tfjs/loader.ts")>("tfjs/loader.ts");
  await using data = await makeFloatData(WIDTH, 307);
  await using loader = createLoader(data.version, { xs: "x", batchSize: BATCH_SIZE, shuffle: "window", seed: 7 });
  const step = createStep();
  const resident = tf.randomNormal([BATCH_SIZE, WIDTH]);
  for (let i = 0; i < 50; i++) step(resident);
  const ratios: number[] = [];
  const waits: number[] = [];
  const inNext: number[] = [];
  const stalls: number[] = [];
  for (let run = 0; run < RUNS; run++) {
    const startedMs = performance.now();
    for (let i = 0; i < STEPS; i++) {
      step(resident);
      await new Promise(setImmediate); // as any loop that awaits its data does
    }
    const residentMs = performance.now() - startedMs;
    const delay = monitorEventLoopDelay({ resolution: 1 });
    const fed = await fedLoop(loader, step);
    delay.disable();
    ratios.push(fed.totalMs / residentMs);
    waits.push(fed.blockedMs / fed.totalMs);
    inNext.push(fed.nextCpuMs / fed.totalMs);
    stalls.push(...fed.nextMs);
    note(`step ${(residentMs / STEPS).toFixed(2)} ms, fed ${(fed.totalMs / STEPS).toFixed(2)} ms`);
  }
  resident.dispose();
  const goal = (value: number) => ({ name: "goal", value });
  const batchMiB = (BATCH_SIZE * WIDTH * 4) / MiB;
  const percent = "% of wall";
  return [
    latency("feeding", "wall against one resident tensor", "times", median(ratios), goal(1.08), 1),
    latency("feeding", "blocked on data", percent, median(waits) * 100, goal(1), 1),
    latency("feeding", "CPU of the main thread between steps", percent, median(inNext) * 100, goal(5), 1),
    latency("feeding", "a step's wait, p99", "ms", quantile(stalls, 0.99), goal(2 + 0.5 * batchMiB), 1),
    ...(await steadiness(note)),
  ];
}

interface Fed {
  readonly totalMs: number;
  /** Waiting in `next()` while this thread had nothing to do; CPU time that it used there. */
  readonly blockedMs: number;
  readonly nextCpuMs: number;
  readonly nextMs: readonly number[];
}

async function fedLoop(loader: Loader, step: (xs: tf.Tensor) => void): Promise<Fed> {
  const iterator = await loader.iterator();
  const first = await iterator.next(); // starting an epoch is not feeding
  first.value?.[Symbol.dispose]();
  const nextMs: number[] = [];
  let blockedMs = 0;
  let nextCpuMs = 0;
  const startedMs = performance.now();
  for (let i = 0; i < STEPS; i++) {
    const askedMs = performance.now();
    const utilization = performance.eventLoopUtilization();
    const { value: batch } = await iterator.next();
    const { idle, active } = performance.eventLoopUtilization(utilization);
    blockedMs += idle;
    nextCpuMs += active;
    nextMs.push(performance.now() - askedMs);
    if (!batch) throw new Error("the epoch is too short");
    step(batch.xs as tf.Tensor);
    batch[Symbol.dispose]();
  }
  const totalMs = performance.now() - startedMs;
  await iterator.return();
  return { totalMs, blockedMs, nextCpuMs, nextMs };
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
