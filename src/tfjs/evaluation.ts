/**
 * Owns evaluation: the same split in file order from row 0, as often as it is asked for.
 *
 * Each iterator stands for itself: `validationBatches` abandons them in the middle, and the next one starts over.
 */
import { createHostLoader, type HostLoader, type LoaderOptions } from "../loader/host-loader.ts";
import { DEFAULT_PORTS, type LoaderPorts } from "../loader/internal.ts";
import { explainPlan, type Explanation } from "../loader/explain.ts";
import type { ConfirmedVersion } from "../client/types.ts";
import { ShardpactError } from "../model/errors.ts";
import { disposeTensors, loadTfjs, toTensors, type BatchTensors } from "./tensors.ts";

export type EvalOptions<S = unknown> = Pick<
  LoaderOptions<S>,
  "xs" | "ys" | "batchSize" | "split" | "map" | "memory" | "reconfirm" | "onUnconfirmed" | "signal"
>;

/** One batch; whoever takes it disposes its tensors (`fitDataset` does). */
export interface EvalBatch extends BatchTensors, Disposable {}

export interface EvalIterator extends AsyncIterableIterator<EvalBatch, undefined> {
  next(): Promise<IteratorResult<EvalBatch, undefined>>;
  return(): Promise<IteratorResult<EvalBatch, undefined>>;
}

export interface EvalLoader extends AsyncDisposable, AsyncIterable<EvalBatch> {
  /** Batches in all. */
  readonly size: number;
  /** A new pass from row 0; it ends the one before. */
  iterator(): Promise<EvalIterator>;
  explain(): Explanation;
  close(): Promise<void>;
}

/** A loader for evaluation. Synchronous, no I/O. @throws ShardpactError as `createLoader` */
export function createEvaluation<S = unknown>(version: ConfirmedVersion, options: EvalOptions<S>): EvalLoader {
  return createEvaluationWith(version, options as EvalOptions, DEFAULT_PORTS);
}

/** As `createEvaluation`, with ports: for benchmarks and tests, not exported by `index.ts`. */
export function createEvaluationWith(version: ConfirmedVersion, options: EvalOptions, ports: LoaderPorts): EvalLoader {
  const make = (): HostLoader => {
    const fixed = { shuffle: "none", seed: 0, rank: 0, world: 1, last: "partial" } as const;
    return createHostLoader(version, { ...options, ...fixed } as LoaderOptions, ports);
  };
  const { plan } = make(); // refuses bad options now; reads nothing
  let current: HostLoader | null = null;
  let closed = false;

  function iterate(): EvalIterator {
    let host: HostLoader | null = null;
    let iterator: ReturnType<HostLoader["iterate"]> | null = null;
    const pass: EvalIterator = {
      async next() {
        if (closed) throw new ShardpactError("closed", "the evaluation is closed");
        const tf = await loadTfjs();
        if (host === null) {
          await current?.close();
          current = host = make();
          iterator = host.iterate();
        }
        const batch = (await iterator?.next()) ?? null;
        if (batch === null) return pass.return();
        const tensors = toTensors(tf, batch.columns);
        return { done: false, value: { ...tensors, [Symbol.dispose]: () => disposeTensors(tensors) } };
      },
      async return() {
        await host?.close();
        if (current === host) current = null;
        iterator = { next: async () => null, return: async () => undefined };
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]: () => pass,
    };
    return pass;
  }

  async function close(): Promise<void> {
    closed = true;
    await current?.close();
    current = null;
  }
  return {
    size: plan.steps,
    iterator: async () => iterate(),
    explain: () => explainPlan(plan),
    close,
    [Symbol.asyncIterator]: iterate,
    [Symbol.asyncDispose]: close,
  };
}
