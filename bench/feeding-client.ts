/**
 * Owns the training process of the feeding bench: an MLP over one resident tensor and the same fed by the loader, in turns, with
 * the built package, as users run it. Forked by `feeding.ts`, told what to load; sends what it measured.
 */
import { setImmediate } from "node:timers/promises";
import * as tf from "@tensorflow/tfjs-node";
import type { BatchIterator } from "../src/tfjs/loader.ts";
import type { VersionData } from "../test/loader/support/version.ts";
import { built, builtVersion } from "./built.ts";

const RUNS = 5;
/** Of a run, over the resident tensor and fed. The fed ones of all runs are one epoch, and fit one of a gigabyte. */
const RESIDENT_STEPS = 300;
const FED_STEPS = 750;

export interface FeedingJob {
  readonly data: VersionData;
  readonly width: number;
  readonly batchSize: number;
}

/** A run of steps each; shares of the wall time, and what each step waited in `next()`. */
export interface FeedingRun {
  readonly residentStepMs: number;
  readonly fedStepMs: number;
  readonly blockedShare: number;
  readonly mainThreadShare: number;
  readonly waitsMs: readonly number[];
}

function createStep(width: number): (xs: tf.Tensor) => void {
  const model = tf.sequential({
    layers: [
      tf.layers.dense({ inputShape: [width], units: 640, activation: "relu" }),
      tf.layers.dense({ units: 640, activation: "relu" }),
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

interface Fed {
  readonly totalMs: number;
  /** Waiting in `next()` while this thread had nothing to do; CPU time that it used there. */
  readonly blockedMs: number;
  readonly nextCpuMs: number;
  readonly nextMs: readonly number[];
}

async function fedLoop(iterator: BatchIterator, step: (xs: tf.Tensor) => void): Promise<Fed> {
  const nextMs: number[] = [];
  let blockedMs = 0;
  let nextCpuMs = 0;
  const startedMs = performance.now();
  for (let i = 0; i < FED_STEPS; i++) {
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
  return { totalMs, blockedMs, nextCpuMs, nextMs };
}

async function measure({ data, width, batchSize }: FeedingJob): Promise<FeedingRun[]> {
  const { createLoader } = await built<typeof import("../src/tfjs/loader.ts")>("tfjs/loader.ts");
  const version = await builtVersion(data);
  await using loader = createLoader(version, { xs: "x", batchSize, shuffle: "window", seed: 7 });
  const iterator = await loader.iterator();
  const step = createStep(width);
  const resident = tf.randomNormal([batchSize, width]);
  const runs: FeedingRun[] = [];
  for (let run = 0; run <= RUNS; run++) {
    const startedMs = performance.now();
    for (let i = 0; i < RESIDENT_STEPS; i++) {
      step(resident);
      await setImmediate(); // as any loop that awaits its data does
    }
    const residentStepMs = (performance.now() - startedMs) / RESIDENT_STEPS;
    const { totalMs, blockedMs, nextCpuMs, nextMs } = await fedLoop(iterator, step);
    if (run === 0) continue; // it warms up, and an epoch starts in it
    runs.push({
      residentStepMs,
      fedStepMs: totalMs / FED_STEPS,
      blockedShare: blockedMs / totalMs,
      mainThreadShare: nextCpuMs / totalMs,
      waitsMs: nextMs,
    });
  }
  return runs;
}

process.once("message", (job: FeedingJob) => {
  void measure(job).then((runs) => {
    process.send?.(runs);
    process.disconnect();
  });
});
