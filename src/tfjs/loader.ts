/**
 * Owns the loader in the shape that `model.fitDataset` takes: `{size, iterator()}`, and what goes with it.
 *
 * tfjs 4.22 calls `iterator()` once more than there are epochs, never calls `return()`, and abandons iterators when
 * training stops: so an iterator costs nothing before its first `next()`, and a new one goes on at the acknowledged cursor.
 */
import type { ConfirmedVersion } from "../client/types.ts";
import type { LoaderState } from "../loader/cursor.ts";
import type { HostBatch } from "../loader/feed.ts";
import type { BatchOrigin } from "../loader/origin.ts";
import { requireKnownNames } from "../loader/columns/options.ts";
import { createHostLoader, type HostIterator, type HostLoader, type LoaderOptions } from "../loader/host-loader.ts";
import type { LoaderPorts } from "../loader/internal.ts";
import { explainPlan, type Explanation } from "../loader/explain.ts";
import type { Receipt } from "../loader/receipt.ts";
import { ShardpactError } from "../model/errors.ts";
import {
  disposeTensors,
  loadTfjs,
  scalarsOf,
  toTensors,
  type BatchTensors,
  type Scalars,
  type TfjsCore,
} from "./tensors.ts";

export type { LoaderOptions } from "../loader/host-loader.ts";

/** One batch. Whoever takes it disposes its tensors (`fitDataset` does); `Symbol.dispose` disposes all of them. */
export interface Batch extends BatchTensors, Disposable {
  readonly epoch: number;
  /** Global position of the step's first row in the epoch. */
  readonly offset: number;
  /** Row numbers in the split, one for each row of the batch. */
  readonly ids: Float64Array;
  /** Which rows of which version this is: sent beside a gradient, other ranks check it with `requireSameStep`. */
  readonly origin: BatchOrigin;
  /** Says that the batch was trained on. Without it the next `next()` says so. */
  ack(): void;
}

export interface BatchIterator extends AsyncIterableIterator<Batch, undefined> {
  next(): Promise<IteratorResult<Batch, undefined>>;
  return(): Promise<IteratorResult<Batch, undefined>>;
}

/** Callbacks of `fitDataset`; `...loader.fit()` spreads them. */
export interface FitOptions {
  readonly initialEpoch: number;
  readonly callbacks: { onBatchEnd(): Promise<void> }[];
}

export interface Loader extends AsyncDisposable, AsyncIterable<Batch> {
  /** Batches of a whole epoch on this rank; Infinity after `repeat()`. With `follow`: of the present epoch's version. */
  readonly size: number;
  /**
   * What `fitDataset` calls: one epoch from the acknowledged cursor on, columns of single values as [rows, 1] (`for await` has [rows]).
   * Costs nothing before its first `next()`. @throws `closed`, `invalid_argument`
   */
  iterator(): Promise<BatchIterator>;
  /** The same loader without ends of epochs, for `batchesPerEpoch`. @throws `invalid_argument` in the middle of an epoch */
  repeat(): Loader;
  /** Where training stands: acknowledged batches only. About 450 bytes of JSON. */
  state(): LoaderState;
  receipt(): Receipt;
  /** The plan, the quality of its shuffle and what each rank reads: counted, no I/O, a second or so. */
  explain(): Explanation;
  /** Options for `fitDataset`: the epoch to go on at, and exact acknowledgement at `onBatchEnd`. */
  fit(): FitOptions;
  /** Stops reading and gives memory back. Idempotent. */
  close(): Promise<void>;
}

/**
 * A loader for training. Synchronous, no I/O; `size` is exact at once.
 * @throws ShardpactError `column_unknown`, `type_unsupported`, `shape_differs`, `class_unknown`, `invalid_argument`,
 * `not_found` (split), `budget_too_small`, `full_shuffle_too_costly`, `resume_mismatch`. Iterating throws `shard_corrupt`,
 * `value_out_of_range`, `null_found`, `loader_busy`, `revoked`, `no_quorum`, `plan_mismatch`, `closed`, `aborted`, …
 */
export function createLoader<S = unknown>(version: ConfirmedVersion, options: LoaderOptions<S>): Loader {
  return createLoaderWith(version, options as LoaderOptions);
}

/** As `createLoader`, with ports: for benchmarks and tests, not exported by `index.ts`. */
export function createLoaderWith(version: ConfirmedVersion, o: LoaderOptions, ports?: LoaderPorts): Loader {
  requireKnownNames("a loader", o, OPTION_NAMES);
  const options: LoaderOptions = { ...o, ...ranksOf(o, process.env) };
  return wrap(createHostLoader(version, options, ports), scalarsOf(options), false);
}

/**
 * Which rank of how many: what the caller says, else what a launcher put into RANK and WORLD_SIZE. Several ranks that all took
 * themselves for the first would train on the same rows: so nobody is by default.
 */
function ranksOf(
  { rank, world }: Pick<LoaderOptions, "rank" | "world">,
  { RANK, WORLD_SIZE }: Readonly<Record<string, string | undefined>>,
): { readonly rank: number; readonly world: number } {
  const ranks = world ?? (WORLD_SIZE ? Number(WORLD_SIZE) : 1);
  if (rank !== undefined) return { rank, world: ranks };
  if (ranks === 1) return { rank: 0, world: 1 };
  if (RANK) return { rank: Number(RANK), world: ranks };
  throw new ShardpactError("invalid_argument", `world is ${ranks}, and nothing says which of its ranks this is`, {
    hint: "Pass rank: 0 in the first process, 1 in the second, …, or set RANK in the environment.",
  });
}

const OPTION_NAMES: Readonly<Record<keyof LoaderOptions, true>> = {
  ...{
    xs: true,
    ys: true,
    batchSize: true,
    split: true,
    shuffle: true,
    seed: true,
    rank: true,
    world: true,
    last: true,
  },
  ...{ memory: true, follow: true, allowRandomReads: true, map: true, resume: true, run: true, receipt: true },
  ...{ reconfirm: true, onUnconfirmed: true, onUnfit: true, signal: true },
};

/** What stands behind each loader, for checkpoints. */
const hosts = new WeakMap<Loader, HostLoader>();

/** @throws ShardpactError `invalid_argument` for what `createLoader` did not make */
export function hostOf(loader: Loader): HostLoader {
  const host = hosts.get(loader);
  if (host) return host;
  throw new ShardpactError("invalid_argument", "this is no training loader of shardpact");
}

function wrap(host: HostLoader, scalars: Scalars, repeats: boolean): Loader {
  const loader = loaderOf(host, scalars, repeats);
  hosts.set(loader, host);
  return loader;
}

function loaderOf(host: HostLoader, scalars: Scalars, repeats: boolean): Loader {
  return {
    get size() {
      return repeats ? Infinity : host.plan.steps;
    },
    async iterator() {
      const { plan } = host;
      // A version that comes later may need padding where this one does not.
      if ((plan.padded > 0 || (plan.follow && plan.last === "pad")) && !host.hasMap) {
        throw new ShardpactError(
          "invalid_argument",
          `${plan.padded > 0 ? plan.padded : "a later version's"} rows of the last step are padding, which fitDataset would train on`,
          {
            details: { padded: plan.padded },
            hint: "Use last: 'drop', or a map that makes use of columns.mask, or iterate by hand with for await.",
          },
        );
      }
      return tensorIterator(host, repeats, scalars);
    },
    repeat() {
      if (host.isAtEpochStart) return wrap(host, scalars, true);
      throw new ShardpactError("invalid_argument", "repeat() cannot start in the middle of an epoch", {
        hint: "Finish the epoch with fitDataset without batchesPerEpoch first.",
      });
    },
    state: () => host.state(),
    receipt: () => host.receipt(),
    explain: () => explainPlan(host.plan),
    fit: () => ({ initialEpoch: host.state().epoch, callbacks: [{ onBatchEnd: async () => host.ack() }] }),
    close: () => host.close(),
    [Symbol.asyncIterator]: () => tensorIterator(host, repeats, null),
    [Symbol.asyncDispose]: () => host.close(),
  };
}

function tensorIterator(host: HostLoader, repeats: boolean, forModel: Scalars | null): BatchIterator {
  let epoch: HostIterator = host.iterate();
  let tf: TfjsCore | null = null;
  const iterator: BatchIterator = {
    async next() {
      tf ??= await loadTfjs();
      let batch = await epoch.next();
      if (batch === null && repeats && host.plan.steps > 0) {
        epoch = host.iterate();
        batch = await epoch.next();
      }
      if (batch === null) return { done: true, value: undefined };
      return { done: false, value: toBatch(host, batch, toTensors(tf, batch, forModel)) };
    },
    async return() {
      await epoch.return();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]: () => iterator,
  };
  return iterator;
}

function toBatch(host: HostLoader, batch: HostBatch, tensors: BatchTensors): Batch {
  // Not spread: a literal that begins with a spread gets a hidden class of its own each time, which is slow and stays.
  const { xs, ys, mask } = tensors;
  return {
    xs,
    ys,
    ...(mask && { mask }),
    epoch: batch.epoch,
    offset: batch.from,
    ids: batch.ids,
    origin: batch.origin,
    ack: () => host.ack(batch),
    [Symbol.dispose]: () => disposeTensors(tensors),
  };
}
