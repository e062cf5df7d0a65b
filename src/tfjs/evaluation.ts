/**
 * Owns evaluation: the same split in file order from row 0, as often as it is asked for.
 *
 * Each iterator starts over: `validationBatches` abandons them in the middle. All share one loader and its memory, since shared
 * memory that is let go for each pass comes back only when garbage is collected.
 */
import { createHostLoader, type LoaderOptions } from "../loader/host-loader.ts";
import { DEFAULT_PORTS, type LoaderPorts } from "../loader/internal.ts";
import { explainPlan, type Explanation } from "../loader/explain.ts";
import type { ConfirmedVersion } from "../client/types.ts";
import { disposeTensors, loadTfjs, scalarsOf, toTensors, type BatchTensors, type Scalars } from "./tensors.ts";

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
  /** A new pass from row 0; it ends the one before. Columns of single values as [rows, 1], as models have them. */
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
  const fixed = { shuffle: "none", seed: 0, rank: 0, world: 1, last: "partial" } as const;
  const host = createHostLoader(version, { ...options, ...fixed } as LoaderOptions, ports, "at row 0");

  const scalars = scalarsOf(options);

  function iterate(forModel: Scalars | null): EvalIterator {
    const iterator = host.iterate();
    const pass: EvalIterator = {
      async next() {
        const tf = await loadTfjs();
        const batch = await iterator.next();
        if (batch === null) return { done: true, value: undefined };
        const tensors = toTensors(tf, batch, forModel);
        return { done: false, value: { ...tensors, [Symbol.dispose]: () => disposeTensors(tensors) } };
      },
      async return() {
        await iterator.return();
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]: () => pass,
    };
    return pass;
  }

  return {
    size: host.plan.steps,
    iterator: async () => iterate(scalars),
    explain: () => explainPlan(host.plan),
    close: host.close,
    [Symbol.asyncIterator]: () => iterate(null),
    [Symbol.asyncDispose]: host.close,
  };
}
