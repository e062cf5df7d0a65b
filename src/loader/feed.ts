/**
 * Owns the run of batches from one cursor to the end of its epoch: planned ahead, read ahead, assembled ahead, in order.
 *
 *   steps → rows → segments (pinned, reads begun)  ──queue──▶  wait for reads → gather, decode images
 *     ──queue──▶  map  ──queue──▶  next()
 *
 * The queues are bounded, and so is the memory that pins may hold. Images of several batches are decoded at a time; batches are
 * mapped and come in their order. A feed belongs to one epoch; whoever abandons it calls `stop`, which gives its pins back.
 */
import { setImmediate } from "node:timers/promises";
import type { Digest } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import type { Maybe } from "../model/maybe.ts";
import { abortError, untilAborted } from "../shards/until-aborted.ts";
import { assembleBatch, batchBytes, checkColumns, type BatchShape, type Columns } from "./batch.ts";
import type { BatchArray, GatherTools } from "./columns/gather.ts";
import type { ImageDecoder } from "./columns/image-threads.ts";
import type { Block, BlockCache } from "./fetch/block-cache.ts";
import { createBoundedQueue } from "./fetch/bounded-queue.ts";
import type { Located, Locator } from "./fetch/locate.ts";
import { allReady, pinAll } from "./fetch/pins.ts";
import { epochKey, subKey } from "./order/keys.ts";
import { createRowNumbers } from "./order/row-numbers.ts";
import { createEpochOrder, type OrderInput } from "./order/order.ts";
import { sliceStep, stepAt, type Step } from "./order/slices.ts";
import type { LoaderPlan } from "./plan.ts";
import { originOf, type BatchOrigin } from "./origin.ts";
import { batchDigest } from "./receipt.ts";
import { createRng, type Rng } from "../merkle/rng.ts";

/** Batches, and rows of them, whose reads have begun. */
const PLANNED_MAX = 64;
const PLANNED_ROWS_MAX = 65_536;
/** They are planned in so many bursts: one after the other, until there are as many as there may be. */
const PLANNED_BURSTS = 8;
/**
 * The event loop gets a turn after so long, though the next batch is there: a loop over promises alone would keep timers and
 * signals waiting. Not sooner, for V8 then also does what it has put off: in a training process that is some milliseconds.
 */
const TURN_EVERY_MS = 1_000;
/** What threads have read meanwhile is taken without such a turn, so often at most: in many steps a little is done, and never much in one. */
const TAKE_EVERY_MS = 1;

/** What a map may ask for beside the columns. */
export interface MapContext {
  /** Random numbers for row `i` of the batch, from seed, epoch and row: equal for every world size, and resumable. */
  rng(i: number): Rng;
  /** Row numbers in the selection. */
  readonly ids: Float64Array;
}
export type MapColumns = (columns: Columns, context: MapContext) => Columns;

/** One batch of one rank, and the global positions of its step. */
export interface HostBatch {
  readonly columns: Columns;
  readonly epoch: number;
  /** Real positions [from, to) of the step, of all ranks. */
  readonly from: number;
  readonly to: number;
  /** Digest of the columns before `map`, when receipts cover bytes. */
  readonly digest: Uint8Array | null;
  /** Row numbers in the selection, in the order of the batch. */
  readonly ids: Float64Array;
  readonly origin: BatchOrigin;
  /** Says that an array of the columns is not looked at any more: later batches may use it. A map's arrays are its own. */
  recycle(array: BatchArray): void;
}

export interface Feed {
  /** The next batch, or null at the end of the epoch. @throws whatever reading, verifying or converting throws */
  next(): Maybe<HostBatch | null>;
  /** Ends reading ahead and gives memory back. Idempotent. */
  stop(): Promise<void>;
}

export interface FeedInput {
  readonly plan: LoaderPlan;
  readonly order: OrderInput;
  readonly shape: BatchShape;
  /** What was asked of the columns, as its digest. */
  readonly columns: Digest;
  readonly locator: Locator;
  readonly cache: BlockCache;
  /** Settles what has been read by now. */
  readonly takeAnswers: () => void;
  readonly tools: GatherTools;
  readonly images: ImageDecoder;
  readonly batchesAhead: number;
  /** Of these, how many are gathered at a stretch; at most half. */
  readonly gatherBurst: number;
  readonly map: MapColumns | undefined;
  readonly withDigest: boolean;
  readonly epoch: number;
  readonly offset: number;
  readonly signal: AbortSignal;
  /** A clock that never goes back. */
  readonly nowMs: () => number;
}

interface Planned {
  readonly step: Step;
  readonly rows: Float64Array;
  readonly mask: Float32Array | null;
  readonly located: Located;
  readonly blocks: readonly Block[];
}

/** A batch that is being gathered, or was. */
interface Begun {
  readonly item: Planned;
  readonly columns: Maybe<Columns>;
}

export function startFeed(input: FeedInput): Feed {
  const { plan, cache, shape } = input;
  const controller = new AbortController();
  const signal = AbortSignal.any([input.signal, controller.signal]);
  const plannedMax = Math.max(2, Math.min(PLANNED_MAX, Math.floor(PLANNED_ROWS_MAX / plan.batchSize)));
  const planned = createBoundedQueue<Planned>(plannedMax, Math.ceil(plannedMax / PLANNED_BURSTS));
  const { batchesAhead: ahead, gatherBurst } = input;
  const burst = input.map ? 1 : gatherBurst; // what a map takes is not known: one at a time
  const begun = createBoundedQueue<Begun>(ahead - burst, gatherBurst);
  const assembled = createBoundedQueue<HostBatch>(burst, burst);
  const ports = { tools: input.tools, images: input.images, signal, mayShare: !input.map };
  const gathering = new Set<Promise<unknown>>();
  let pinned = 0; // batches that hold pins
  const unpin = ({ blocks }: Planned): void => {
    pinned--;
    cache.unpin(blocks);
  };
  const isFront = (): boolean => pinned === 0;

  async function planAll(): Promise<void> {
    const order = createEpochOrder(input.order, input.epoch);
    const rowNumbers = createRowNumbers();
    let step = stepAt(plan.rows, input.offset, plan.stepRows, plan.last);
    while (step && !signal.aborted) {
      const { rows, mask } = sliceStep(order, step, plan.rank, plan.world, rowNumbers);
      const locating = input.locator.locate(rows, signal);
      const located = locating instanceof Promise ? await untilAborted(signal, locating) : locating;
      const pinning = pinAll(cache, located, isFront, signal);
      const blocks = pinning instanceof Promise ? await pinning : pinning;
      pinned++;
      const handing = planned.push({ step, rows, mask, located, blocks });
      if (!(handing instanceof Promise ? await handing : handing)) return;
      step = stepAt(plan.rows, step.to, plan.stepRows, plan.last);
    }
  }

  function gather(item: Planned): Maybe<Columns> {
    const assemble = (): Maybe<Columns> => assembleBatch(shape, item.located, item.blocks, item.mask, ports);
    const reading = allReady(item.blocks, signal);
    let columns: Maybe<Columns> | null = null;
    try {
      columns = reading ? reading.then(assemble) : assemble();
    } finally {
      if (!(columns instanceof Promise)) unpin(item);
    }
    if (!(columns instanceof Promise)) return columns;
    const settled = columns.finally(() => unpin(item));
    gathering.add(settled);
    settled.catch(() => undefined).finally(() => gathering.delete(settled)); // its failure is told in its turn
    return settled;
  }

  async function gatherAll(): Promise<void> {
    for (;;) {
      const shifting = planned.shift();
      const item = shifting instanceof Promise ? await shifting : shifting;
      if (!item) return;
      const handing = begun.push({ item, columns: gather(item) });
      if (!(handing instanceof Promise ? await handing : handing)) return;
    }
  }

  async function finishAll(): Promise<void> {
    for (;;) {
      const shifting = begun.shift();
      const next = shifting instanceof Promise ? await shifting : shifting;
      if (!next) return;
      const columns = next.columns instanceof Promise ? await next.columns : next.columns;
      const handing = assembled.push(finish(input, next.item, columns));
      if (!(handing instanceof Promise ? await handing : handing)) return;
    }
  }

  /** Nobody saw them: later batches may use their arrays. */
  const dropColumns = ({ xs, ys }: Columns): void => {
    if (input.map) return;
    for (const { data } of [...Object.values(xs), ...Object.values(ys)]) input.tools.memory.give(data.buffer);
  };
  const dropBegun = ({ columns }: Begun): void => {
    if (columns instanceof Promise) gathering.add(columns.then(dropColumns, () => undefined));
    else dropColumns(columns);
  };
  const dropBatch = ({ columns }: HostBatch): void => dropColumns(columns);
  const planning = planAll().then(planned.end, planned.fail);
  const gatheringAll = gatherAll().then(begun.end, begun.fail);
  const finishing = finishAll().then(assembled.end, (error: unknown) => {
    assembled.fail(error);
    begun.close(dropBegun);
    planned.close(unpin);
  });

  const atEnd = (batch: HostBatch | null): HostBatch | null => {
    if (batch === null && input.signal.aborted) throw abortError(input.signal);
    return batch;
  };
  let turnedMs = input.nowMs();
  let takenMs = turnedMs;
  const nextTurn = async (): Promise<HostBatch | null> => {
    await setImmediate();
    turnedMs = input.nowMs();
    return atEnd(await assembled.shift());
  };
  return {
    next() {
      const nowMs = input.nowMs();
      if (nowMs - turnedMs >= TURN_EVERY_MS) return nextTurn();
      if (nowMs - takenMs >= TAKE_EVERY_MS) {
        takenMs = nowMs;
        input.takeAnswers();
      }
      const shifting = assembled.shift();
      return shifting instanceof Promise ? shifting.then(atEnd) : atEnd(shifting);
    },
    async stop() {
      controller.abort();
      planned.close(unpin);
      begun.close(dropBegun);
      assembled.close(dropBatch);
      await Promise.all([planning, gatheringAll, finishing]);
      await Promise.allSettled(gathering);
    },
  };
}

/** The batch of gathered columns. */
function finish(
  { plan, columns: asked, map, tools, order, epoch, withDigest }: FeedInput,
  { step, rows }: Planned,
  columns: Columns,
): HostBatch {
  const digest = withDigest ? batchDigest(batchBytes(columns)) : null;
  const from = step.from;
  const to = Math.min(step.to, order.rows);
  const origin = originOf(plan, asked, { epoch, from, to, bytes: digest });
  // Written out, in this file's hot loop: a literal that begins with a spread gets a hidden class of its own each time.
  const recycle = map ? () => undefined : (array: BatchArray) => tools.memory.give(array.buffer);
  const batchOf = (given: Columns): HostBatch => ({
    columns: given,
    epoch,
    from,
    to,
    digest,
    ids: rows,
    origin,
    recycle,
  });
  if (!map) return batchOf(columns);
  const key = epochKey(order.root, order.selection, order.order, epoch);
  const rng = (i: number): Rng => createRng(subKey(key, "augment", rows[i] ?? 0));
  return batchOf(checkColumns(mapped(map, columns, { rng, ids: rows })));
}

/** What the caller's map makes of the columns. @throws ShardpactError `invalid_argument` around what it throws */
function mapped(map: MapColumns, columns: Columns, context: MapContext): Columns {
  try {
    return map(columns, context);
  } catch (cause) {
    if (cause instanceof ShardpactError) throw cause;
    const said = cause instanceof Error ? cause.message : String(cause);
    throw new ShardpactError("invalid_argument", `map threw: ${said}`, {
      cause,
      hint: "Its own error is the `cause`; the batch comes again with the next iterator.",
    });
  }
}
