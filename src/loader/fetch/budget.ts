/**
 * Owns how a loader's memory is divided: what its tiles may take, and what is left for all that lies beside them.
 *
 * Beside them lie row numbers, batches on their way, what the reading thread needs, and batches that were disposed but
 * not collected yet: V8 lets some tens of MiB of them gather, whatever the budget is. The order's needs come first: a budget
 * of hardly more than `memoryNeededBytes` leaves nothing for the rest, and the process then takes that much more.
 */
import type { BatchShape } from "../batch.ts";
import type { LoaderPlan } from "../plan.ts";

const MiB = 1024 * 1024;

/** Batches that are assembled before they are asked for. */
export const ASSEMBLED_MAX = 2;
/** And the one that is being assembled, and the one that was delivered. */
const BATCHES_ON_THEIR_WAY = ASSEMBLED_MAX + 2;
/** For metadata and offsets: as many leaves as are kept, and as many that are being read. */
export const SIDE_BYTES = 8 * MiB;
/** Heap and stack of the reading thread (measured: 10 to 15 MiB). */
const THREAD_BYTES = 16 * MiB;
/** Dropped batches and the heap's young generation before a collection, and what malloc keeps (measured: 60 to 95 MiB). */
const GARBAGE_BYTES = 72 * MiB;
/** Tiles get this share of the budget at least. */
const TILES_SHARE_MIN = 0.5;

export interface Budget {
  /** Bytes that tiles may take, and bytes of unused ones up to which they are kept. */
  readonly tileBytesMax: number;
  readonly tileBytesKept: number;
  /** Bytes of all batches on their way. */
  readonly batchBytes: number;
}

export function divideMemory(plan: LoaderPlan, shape: BatchShape, hasThread: boolean): Budget {
  const { memoryMaxBytes, memoryNeededBytes, memoryKeptBytes, orderBytes } = plan;
  const batchBytes = BATCHES_ON_THEIR_WAY * batchBytesOf(plan, shape);
  const beside = GARBAGE_BYTES + SIDE_BYTES + batchBytes + (hasThread ? THREAD_BYTES : 0);
  const least = Math.max(Math.min(memoryNeededBytes, memoryMaxBytes), memoryMaxBytes * TILES_SHARE_MIN);
  const tileBytesMax = Math.floor(Math.max(memoryMaxBytes - beside, least)) - orderBytes;
  return { tileBytesMax, tileBytesKept: Math.min(memoryKeptBytes - orderBytes, tileBytesMax), batchBytes };
}

/** Numbers of one batch; texts are not counted, nobody knows how long they are. */
function batchBytesOf({ batchSize }: LoaderPlan, { plans }: BatchShape): number {
  return plans.reduce((sum, { width }) => sum + width * batchSize * Float32Array.BYTES_PER_ELEMENT, 0);
}
