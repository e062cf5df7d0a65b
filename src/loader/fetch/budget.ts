/**
 * Owns how a loader's memory is divided: what its tiles and pages may take, and what is left for all that lies beside them.
 *
 * Beside them lie row numbers, batches on their way, what threads need, and batches that were disposed but
 * not collected yet: V8 lets some tens of MiB of them gather, whatever the budget is. The order's needs come first: a budget
 * of hardly more than `memoryNeededBytes` leaves nothing for the rest, and the process then takes that much more.
 */
import { availableParallelism } from "node:os";
import type { BatchShape } from "../batch.ts";
import { LIMITS } from "../../model/limits.ts";
import type { LoaderPlan } from "../plan.ts";
import { BATCH_BYTES, expectedIndexBytes, SHARD_BYTES } from "./shard-memory.ts";
import { SIDE_BYTES } from "./side-memory.ts";
import { UNCUT_TILES_MAX } from "./tiles.ts";

const MiB = 1024 * 1024;
/** A shard in memory with one record batch. */
const SHARD_OPEN_BYTES = SHARD_BYTES + BATCH_BYTES;
/** The index of one that is hardly anything else. */
const SHARD_INDEX_BYTES = expectedIndexBytes(1, 1);

/** Batches that are assembled, or being assembled, before they are asked for. */
const BATCHES_AHEAD = 2;
/** Small ones are gathered several at a stretch, up to so many bytes ahead, and so many batches. */
const SMALL_AHEAD_BYTES = 512 * 1024;
const SMALL_AHEAD_MAX = 8;
/** Those, the one that was delivered, and one that was dropped just now. */
const BATCHES_ON_THEIR_WAY = BATCHES_AHEAD + 2;
/** Batches on their way may take this share of the budget before images are decoded further ahead. */
const BATCHES_SHARE_MAX = 0.5;
/** Heap and stack of a thread that reads or decodes (measured: 10 to 15 MiB). */
const THREAD_BYTES = 16 * MiB;
/** For a second thread that reads: of the selection, and its share of the budget. */
const SECOND_THREAD_BYTES_MIN = 256 * MiB;
const THREAD_SHARE_MAX = 1 / 32;
/** Dropped batches and the heap's young generation before a collection, and what malloc keeps (measured: 60 to 95 MiB). */
const GARBAGE_BYTES = 72 * MiB;
/** Segment indexes of open shards may take this share of the budget, or twice what the order is expected to need. */
const INDEX_SHARE = 1 / 32;
/** Dictionaries and metadata of record batches are kept up to this share of the budget. */
const KEPT_SHARE = 1 / 32;
/** Tiles get this share of the budget at least. */
const TILES_SHARE_MIN = 0.5;

/** Pages of the manifest get this share of the budget, and the order's needs at least; some, also of a small one. */
const PAGES_SHARE = 0.125;
export const PAGE_BYTES_MIN = 8 * MiB;

/**
 * What a layout may keep of the manifest's pages: those that the rank's open windows lie on, and as many more as the budget
 * allows. (A full shuffle needs all of them at any time: beyond the bound they come and go.)
 * @param shards of the split
 */
export function pageBytesOf({ order, rows, world, memoryMaxBytes }: LoaderPlan, shards: number): number {
  const lanes = order.strength === "window" ? Math.min(order.K, Math.ceil(order.K / world) + 1) : 1;
  const windowShards = rows === 0 ? 0 : (order.n * (order.g + 1) * shards) / rows;
  const pages = lanes * (Math.ceil(windowShards / LIMITS.pageShardsMax) + 1);
  const needed = Math.min(pages * LIMITS.pageShardsMax, shards) * SHARD_OPEN_BYTES;
  return Math.max(PAGE_BYTES_MIN, memoryMaxBytes * PAGES_SHARE, order.strength === "full" ? 0 : needed);
}

export interface Budget {
  /** Bytes that tiles may take, and bytes of unused ones up to which they are kept. */
  readonly tileBytesMax: number;
  readonly tileBytesKept: number;
  /** Bytes of all batches on their way. */
  readonly batchBytes: number;
  /** What indexes of open shards may take in each thread that reads. */
  readonly indexBytesMax: number;
  /** What dictionaries and metadata of record batches may take that are kept. */
  readonly keptBytesMax: number;
}

/** What works beside the training thread: how many that read, and how many that decode images. */
export interface Threads {
  readonly reading: number;
  readonly images: number;
}

/**
 * Threads that read and hash files of folders; stores elsewhere keep none of them busy. A second one pays for itself in a large
 * selection, and where its memory is no large part of the budget.
 */
export function readingThreadsFor({ bytes, memoryMaxBytes }: LoaderPlan, areFolders: boolean): number {
  const pays = bytes >= SECOND_THREAD_BYTES_MIN && THREAD_BYTES <= memoryMaxBytes * THREAD_SHARE_MAX;
  return areFolders && pays ? Math.min(2, availableParallelism()) : 1;
}

/** @param shards of the split, whose pages the layout keeps */
export function divideMemory(plan: LoaderPlan, shape: BatchShape, shards: number, threads: Threads): Budget {
  const { memoryMaxBytes, memoryNeededBytes, memoryKeptBytes, orderBytes, indexBytes, bytes } = plan;
  const more = batchesAhead(plan, shape, threads.images) - BATCHES_AHEAD;
  const batchBytes = (BATCHES_ON_THEIR_WAY + more) * batchBytesOf(plan, shape);
  const threadBytes = THREAD_BYTES * (threads.images + threads.reading);
  // A record batch is no smaller in its file than what is known of it, so the selection's bytes bound all that.
  const pages = Math.min(pageBytesOf(plan, shards), shards * SHARD_BYTES + bytes);
  const indexBytesMax = Math.floor(
    Math.min(Math.max(2 * indexBytes, memoryMaxBytes * INDEX_SHARE), shards * SHARD_INDEX_BYTES + bytes),
  );
  const keptBytesMax = Math.floor(Math.min(memoryMaxBytes * KEPT_SHARE, bytes));
  const metadata = pages + indexBytesMax * Math.max(1, threads.reading) + keptBytesMax;
  const beside = GARBAGE_BYTES + SIDE_BYTES + metadata + batchBytes + threadBytes;
  const needed = memoryNeededBytes > memoryMaxBytes ? randomReadBytes(plan) : memoryNeededBytes;
  const least = Math.max(Math.min(needed, memoryMaxBytes), memoryMaxBytes * TILES_SHARE_MIN);
  const tileBytesMax = Math.floor(Math.max(memoryMaxBytes - beside, least - indexBytes)) - orderBytes;
  const tileBytesKept = Math.min(memoryKeptBytes - orderBytes - indexBytes, tileBytesMax);
  return { tileBytesMax, tileBytesKept, batchBytes, indexBytesMax, keptBytesMax };
}

/** What one batch lies in at most where every row may cost a tile of its own: a full shuffle beyond memory. */
function randomReadBytes({ batchSize, tileBytes, rows, bytes }: LoaderPlan): number {
  return batchSize * Math.max(UNCUT_TILES_MAX * tileBytes, Math.ceil(bytes / Math.max(1, rows)));
}

/**
 * Batches that are assembled, or being assembled, before they are asked for. Each thread that decodes images has one of its own,
 * and one waits for it, as far as they fit.
 */
export function batchesAhead(plan: LoaderPlan, shape: BatchShape, imageThreads: number): number {
  const batchBytes = Math.max(1, batchBytesOf(plan, shape));
  const fit = Math.floor((plan.memoryMaxBytes * BATCHES_SHARE_MAX) / batchBytes) - BATCHES_ON_THEIR_WAY;
  const small = isCounted(shape) ? Math.min(SMALL_AHEAD_MAX, Math.floor(SMALL_AHEAD_BYTES / batchBytes)) : 0;
  return BATCHES_AHEAD + Math.max(0, Math.min(Math.max(imageThreads, small - BATCHES_AHEAD), fit));
}

/** How many of so many batches are gathered at a stretch: of images each as soon as it may. */
export function gatherBurst(ahead: number, shape: BatchShape): number {
  return isCounted(shape) ? Math.floor(ahead / 2) : 1;
}

/** Numbers only: how many bytes they are, and about how long it takes to gather them, is known. */
function isCounted({ plans }: BatchShape): boolean {
  return plans.every(({ kind, image }) => image === null && kind !== "text");
}

/** Numbers of one batch; texts are not counted, nobody knows how long they are. */
function batchBytesOf({ batchSize }: LoaderPlan, { plans }: BatchShape): number {
  return plans.reduce((sum, { width }) => sum + width * batchSize * Float32Array.BYTES_PER_ELEMENT, 0);
}
