/**
 * Owns how good a shuffle is and how often it makes ranks read the same data: counted from the order alone, no data needed.
 *
 * Everything is counted over a prefix of the epoch, so that a plan of any size takes about as long.
 */
import { createEpochOrder, type OrderInput } from "./order.ts";
import { sliceStep } from "./slices.ts";

/** Rows of the epoch that are counted at most. */
export const COUNTED_ROWS_MAX = 1_000_000;
/** Classes of the worst data there is: all rows of one class together, then all of the next. */
const CLASSES = 10;
/** Batches whose pairs are looked for in the next epoch. */
const PAIR_BATCHES_MAX = 256;
const PAIR_ROWS_MAX = 256;

export interface ShuffleQuality {
  /**
   * Variance of class counts in a step (all ranks together), on data sorted by 10 classes, ÷ that of drawing rows without
   * return: 1 is as even as chance, the rows of a step are the worst.
   */
  readonly D: number;
  /** Blocks that the batch of one rank comes from, on average. */
  readonly blocksPerBatch: number;
  /** Share of rows that follow the row that they follow in the data. */
  readonly neighboursKept: number;
  /** Share of pairs of rows in one batch that are in one batch in the next epoch too; null when the epoch is too large to count. */
  readonly pairsKept: number | null;
  /** What chance would give. */
  readonly pairsByChance: number;
  /** Rows of the epoch that were counted. */
  readonly countedRows: number;
}

/** Positions of whole steps that are counted. */
function countedSteps(rows: number, stepRows: number): number {
  return Math.floor(Math.min(rows, Math.max(COUNTED_ROWS_MAX, stepRows)) / stepRows);
}

/** Calls `each` with the rows of every rank's batch of the counted steps. */
function eachBatch(
  input: OrderInput,
  epoch: number,
  world: number,
  batchSize: number,
  each: (step: number, rank: number, rows: Float64Array) => void,
): number {
  const order = createEpochOrder(input, epoch);
  const stepRows = world * batchSize;
  const steps = countedSteps(input.rows, stepRows);
  for (let step = 0; step < steps; step++) {
    const at = { from: step * stepRows, to: (step + 1) * stepRows };
    for (let rank = 0; rank < world; rank++) each(step, rank, sliceStep(order, at, rank, world).rows);
  }
  return steps * stepRows;
}

/** Null when the epoch has no whole step. */
export function shuffleQuality(input: OrderInput, world: number, batchSize: number): ShuffleQuality | null {
  const { rows } = input;
  const stepRows = world * batchSize;
  if (countedSteps(rows, stepRows) === 0) return null;
  const spread = createSpread(rows, stepRows);
  const blocks = new Set<number>();
  let blocksSeen = 0;
  let batches = 0;
  let neighbours = 0;
  const countedRows = eachBatch(input, 0, world, batchSize, (step, rank, batch) => {
    let before = -2;
    for (const row of batch) {
      spread.add(row);
      blocks.add(Math.floor(row / input.order.n));
      if (row === before + 1) neighbours++;
      before = row;
    }
    batches++;
    blocksSeen += blocks.size;
    blocks.clear();
    if (rank === world - 1) spread.endStep();
  });
  return {
    D: spread.ratio(),
    blocksPerBatch: blocksSeen / batches,
    neighboursKept: neighbours / countedRows,
    pairsKept: rows <= COUNTED_ROWS_MAX ? pairsKept(input, world, batchSize) : null,
    pairsByChance: (batchSize - 1) / Math.max(1, rows - 1),
    countedRows,
  };
}

/** Class counts per step against the hypergeometric distribution. */
function createSpread(rows: number, stepRows: number) {
  const counts = new Float64Array(CLASSES);
  const sizes = new Float64Array(CLASSES);
  const classOf = (row: number): number => Math.floor((row * CLASSES) / rows);
  for (let c = 0; c < CLASSES; c++) sizes[c] = Math.ceil(((c + 1) * rows) / CLASSES) - Math.ceil((c * rows) / CLASSES);
  let squares = 0;
  let expected = 0;
  return {
    add: (row: number) => void counts[classOf(row)]!++,
    endStep() {
      for (let c = 0; c < CLASSES; c++) {
        const share = (sizes[c] as number) / rows;
        squares += ((counts[c] as number) - stepRows * share) ** 2;
        expected += (stepRows * share * (1 - share) * (rows - stepRows)) / Math.max(1, rows - 1);
      }
      counts.fill(0);
    },
    /** A step of all rows has no variance, and cannot be uneven. */
    ratio: () => (expected === 0 ? 0 : squares / expected),
  };
}

/** Share of the pairs in some batches of epoch 0 that share a batch in epoch 1. */
function pairsKept(input: OrderInput, world: number, batchSize: number): number {
  const batchOf = new Int32Array(input.rows).fill(-1);
  eachBatch(input, 1, world, batchSize, (step, rank, rows) => {
    for (const row of rows) batchOf[row] = step * world + rank;
  });
  const total = countedSteps(input.rows, world * batchSize) * world;
  const every = Math.max(1, Math.floor(total / PAIR_BATCHES_MAX));
  let pairs = 0;
  let kept = 0;
  eachBatch(input, 0, world, batchSize, (step, rank, rows) => {
    if ((step * world + rank) % every !== 0) return;
    const length = Math.min(rows.length, PAIR_ROWS_MAX);
    for (let i = 0; i < length; i++) {
      const mine = batchOf[rows[i] as number] as number;
      for (let j = i + 1; j < length; j++) {
        pairs++;
        if (mine >= 0 && batchOf[rows[j] as number] === mine) kept++;
      }
    }
  });
  return pairs === 0 ? 0 : kept / pairs;
}

export interface ReadShare {
  readonly world: number;
  /** Blocks that all ranks together read ÷ blocks that there are in what was counted. */
  readonly amplification: number;
  /** The largest share of the data that one rank reads. */
  readonly rankShare: number;
}

/** How often blocks are read when each rank reads each block that it needs once an epoch. Null without a whole step. */
export function readShare(input: OrderInput, world: number, batchSize: number): ReadShare | null {
  if (countedSteps(input.rows, world * batchSize) === 0) return null;
  const blocks = Math.ceil(input.rows / input.order.n);
  const seen = Array.from({ length: world }, () => new Uint8Array(Math.ceil(blocks / 8)));
  const any = new Uint8Array(Math.ceil(blocks / 8));
  const reads = new Float64Array(world);
  let distinct = 0;
  eachBatch(input, 0, world, batchSize, (_step, rank, rows) => {
    const mine = seen[rank] as Uint8Array;
    for (const row of rows) {
      const block = Math.floor(row / input.order.n);
      if (setBit(mine, block)) reads[rank]!++;
      if (setBit(any, block)) distinct++;
    }
  });
  const total = reads.reduce((sum, count) => sum + count, 0);
  return { world, amplification: total / distinct, rankShare: Math.max(...reads) / distinct };
}

/** Sets a bit; true when it was not set. */
function setBit(bits: Uint8Array, at: number): boolean {
  const byte = bits[at >>> 3] as number;
  const mask = 1 << (at & 7);
  bits[at >>> 3] = byte | mask;
  return (byte & mask) === 0;
}
