/**
 * Owns the plan of a loader: everything that is decided before any byte is read, as plain data.
 *
 * Pure: from the version's totals and the caller's options alone, so a loader knows its size at once, and
 * `explain()` can say what a run will cost before it starts.
 */
import type { ConfirmedVersion, SplitSummary } from "../client/types.ts";
import { formatDigest, type Digest } from "../model/bytes.ts";
import type { OrderSpec } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { expectedIndexBytes, READERS_MAX } from "./fetch/shard-memory.ts";
import { stepsLeft, type LastRule } from "./order/slices.ts";
import { BLOCK_BYTES, parseSeed, resolveOrder, type Shuffle } from "./order/spec.ts";
import { selectionDigest, selectSplit } from "./selection.ts";

export const MEMORY_BYTES_DEFAULT = 1024 * 1024 * 1024;
/** What may be read ahead of the batch that is being assembled. */
export const READ_AHEAD_BYTES = 16 * 1024 * 1024;
/** What memory needs beside the bytes in it: room that lies between other blocks, in pieces too small for one. */
export const BUFFER_SLACK = 1.125;
export const BATCH_ROWS_MAX = 2 ** 24;

export interface PlanOptions {
  /** Rows of one batch on one rank. */
  readonly batchSize: number;
  readonly split?: string;
  readonly shuffle?: Shuffle;
  readonly seed: number | bigint | string;
  /** Default 0 of 1. */
  readonly rank?: number;
  readonly world?: number;
  /** Default: `partial` alone, `drop` with others. `partial` with others is refused. */
  readonly last?: LastRule;
  /**
   * Bytes that a loader may make resident: verified shard data, row numbers, batches on their way, threads.
   * Default 1 GiB.
   */
  readonly memory?: number;
  /** The run moves to the newest version of the dataset at each end of an epoch, all ranks to the same. */
  readonly follow?: boolean;
  /** Allows `full` beyond `memory`: every row then costs a read of its leaf. */
  readonly allowRandomReads?: boolean;
}

export interface LoaderPlan {
  readonly dataset: string;
  readonly root: Digest;
  readonly split: string;
  readonly selection: Digest;
  readonly order: OrderSpec;
  /** Rows and bytes of the split. */
  readonly rows: number;
  readonly bytes: number;
  readonly rank: number;
  readonly world: number;
  readonly batchSize: number;
  readonly last: LastRule;
  readonly follow: boolean;
  /** Rows that all ranks consume in one step. */
  readonly stepRows: number;
  /** Batches of a whole epoch on one rank. */
  readonly steps: number;
  /** Rows of an epoch that are not delivered, and rows that are repeated, by the last rule. */
  readonly dropped: number;
  readonly padded: number;
  /** Blocks that are open at a time at most, and all there are. */
  readonly blocksOpen: number;
  readonly blocks: number;
  readonly blockBytes: number;
  /** Bytes that are read at a time, about, of record batches that are larger. */
  readonly tileBytes: number;
  /** Bytes of row numbers of open lane windows. */
  readonly orderBytes: number;
  /** Bytes of the segment indexes of shards that are open at a time, about. */
  readonly indexBytes: number;
  /** Bytes that the order needs at a time, row numbers and indexes included; bytes that are kept; bytes that may be kept. */
  readonly memoryNeededBytes: number;
  readonly memoryKeptBytes: number;
  readonly memoryMaxBytes: number;
  /** What a reader of the plan should know. */
  readonly notes: readonly string[];
}

/** What a plan needs to know of a version: totals that its root covers. */
export type PlannedVersion = Pick<ConfirmedVersion, "dataset" | "version" | "root" | "splits" | "splitRule">;

/**
 * The plan for a version and options. No I/O.
 * @throws ShardpactError `invalid_argument`, `not_found` (split), `budget_too_small`, `full_shuffle_too_costly`
 */
export function planLoader(version: PlannedVersion, o: PlanOptions): LoaderPlan {
  const split = selectSplit(version, o.split);
  const { rows, bytes } = split;
  const world = countOf("world", o.world ?? 1, 1, 65_536);
  const rank = countOf("rank", o.rank ?? 0, 0, world - 1);
  const batchSize = countOf("batchSize", o.batchSize, 1, BATCH_ROWS_MAX);
  const last = lastRule(o.last, world);
  const order = resolveOrder(rows, bytes, o.shuffle, parseSeed(o.seed));
  const stepRows = world * batchSize;
  const steps = stepsLeft(rows, 0, stepRows, last);
  const rest = steps * stepRows - rows;
  const memory = memoryOf(order, split, o.memory ?? MEMORY_BYTES_DEFAULT);
  const plan: LoaderPlan = {
    dataset: `${version.dataset}@v${version.version}`,
    root: version.root,
    split: split.name,
    selection: formatDigest(selectionDigest(version.splitRule, split.name)),
    order,
    rows,
    bytes,
    rank,
    world,
    batchSize,
    last,
    follow: o.follow ?? false,
    stepRows,
    steps,
    dropped: last === "drop" ? -rest : 0,
    padded: last === "pad" ? rest : 0,
    ...memory,
    tileBytes: BLOCK_BYTES,
    notes: [],
  };
  requireMemory(plan, o.allowRandomReads ?? false);
  const tileBytes = plan.memoryNeededBytes > plan.memoryMaxBytes ? LIMITS.leafBytes : BLOCK_BYTES;
  return { ...plan, tileBytes, notes: notesOn(plan) };
}

function countOf(name: string, value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new ShardpactError(
    "invalid_argument",
    `${name} must be an integer from ${min} to ${max}, not ${typeof value === "number" ? value : JSON.stringify(value)}`,
  );
}

function lastRule(last: LastRule | undefined, world: number): LastRule {
  const rule = last ?? (world === 1 ? "partial" : "drop");
  if (!["partial", "drop", "pad"].includes(rule)) {
    throw new ShardpactError("invalid_argument", `'${String(rule)}' is not a rule for the last step`, {
      hint: "Use partial, drop or pad.",
    });
  }
  if (rule !== "partial" || world === 1) return rule;
  throw new ShardpactError("invalid_argument", `the last step cannot be partial with ${world} ranks`, {
    hint: "Use drop or pad: all ranks must take equal steps.",
  });
}

type PlannedMemory = Pick<
  LoaderPlan,
  | "orderBytes"
  | "indexBytes"
  | "blocksOpen"
  | "blocks"
  | "blockBytes"
  | "memoryNeededBytes"
  | "memoryKeptBytes"
  | "memoryMaxBytes"
>;

function memoryOf(order: OrderSpec, split: SplitSummary, memoryMaxBytes: number): PlannedMemory {
  const { rows, bytes, shards } = split;
  if (!(Number.isSafeInteger(memoryMaxBytes) && memoryMaxBytes > 0)) {
    throw new ShardpactError("invalid_argument", `memory must be a number of bytes, not ${String(memoryMaxBytes)}`);
  }
  const blocks = Math.ceil(rows / order.n);
  const blockBytes = rows === 0 ? 0 : order.n * Math.ceil(bytes / rows);
  const open = { none: 1, block: 1, window: order.K * (order.g + 1), full: blocks }[order.strength];
  const blocksOpen = Math.min(blocks, open);
  const openBytes = Math.min(bytes, blocksOpen * blockBytes);
  const windowRows = Math.min(rows, order.n * order.g * order.K);
  const isWindowed = order.strength === "block" || order.strength === "window";
  const orderBytes = isWindowed ? windowRows * (rows <= 2 ** 32 ? 4 : 8) : 0;
  // Blocks need not begin where segments and shards do: one may touch two.
  const shardsOpen = Math.min(shards, 2 * blocksOpen, READERS_MAX);
  const indexBytes = expectedIndexBytes(shardsOpen, bytes / Math.max(1, shards));
  const memoryNeededBytes = Math.ceil(openBytes * BUFFER_SLACK) + orderBytes + indexBytes;
  const kept = Math.ceil(Math.min(bytes, 2 * openBytes + READ_AHEAD_BYTES) * BUFFER_SLACK);
  return {
    orderBytes,
    indexBytes,
    blocksOpen,
    blocks,
    blockBytes,
    memoryNeededBytes,
    memoryKeptBytes: Math.min(kept + orderBytes + indexBytes, memoryMaxBytes),
    memoryMaxBytes,
  };
}

function requireMemory(plan: LoaderPlan, allowRandomReads: boolean): void {
  const { order, memoryNeededBytes, memoryMaxBytes } = plan;
  if (memoryNeededBytes <= memoryMaxBytes) return;
  if (order.strength !== "full") {
    throw new ShardpactError(
      "budget_too_small",
      `the order keeps ${plan.blocksOpen} blocks open, ${memoryNeededBytes} bytes; memory allows ${memoryMaxBytes}`,
      {
        details: { memoryNeededBytes, memoryMaxBytes, blocksOpen: plan.blocksOpen },
        hint: `Allow memory: ${memoryNeededBytes}${order.strength === "window" ? ", or shuffle with a smaller windowBytes or fewer lanes" : ""}.`,
      },
    );
  }
  if (allowRandomReads) return;
  const readBytes = plan.rows * LIMITS.leafBytes;
  throw new ShardpactError(
    "full_shuffle_too_costly",
    `a full shuffle of ${plan.bytes} bytes within ${memoryMaxBytes} would read up to ${readBytes} bytes an epoch`,
    {
      details: { memoryNeededBytes, memoryMaxBytes, readBytes },
      hint: "Use shuffle: 'window', allow more memory, or pass allowRandomReads.",
    },
  );
}

function notesOn({ dataset, order, world, batchSize, dropped, padded, follow }: LoaderPlan): readonly string[] {
  const notes: string[] = [];
  if (world > 1 && (order.strength === "none" || order.strength === "block")) {
    notes.push(`'${order.strength}' has one lane: each of the ${world} ranks reads nearly everything`);
  }
  if (order.strength === "window" && world > order.K) {
    notes.push(`${world} ranks share ${order.K} lanes: some data is read by several ranks`);
  }
  if (order.strength === "window" && world > 8 && batchSize < 16) {
    notes.push(`with ${batchSize} rows a rank and ${world} ranks, data is read about 2.7 times over`);
  }
  if (order.strength === "none" || order.strength === "block") {
    notes.push("sorted by label? `publish --shuffle` mixes the rows once, at no cost for reading");
  }
  if (dropped > 0) notes.push(`${dropped} rows of each epoch are dropped to keep steps equal`);
  if (padded > 0) notes.push(`${padded} rows of the last step are repeats with mask 0`);
  if (follow) notes.push(`follows its dataset: these are the figures of ${dataset}; the next epoch may have others`);
  return notes;
}
