/**
 * Owns the rows of the catalog: what the state machine reads and writes, table by table.
 *
 * Rows are plain data, equal in every store. `needs()` answers with keys, `decide()` with changes, and a store only has
 * to load keys and write changes. What changes over time is kept as rows by log index.
 */
import type { SplitTotals } from "../merkle/totals.ts";
import type { Digest } from "../model/bytes.ts";
import type { ObjectKind, OrderSpec, RunPlan, SplitRule } from "../model/commands.ts";

export type { SplitTotals };

export interface DatasetRow {
  readonly table: "dataset";
  readonly name: string;
  readonly headVersion: number;
  readonly headIndex: number;
  readonly headRoot: Digest;
  readonly createdIndex: number;
}

export interface VersionRow {
  readonly table: "version";
  readonly dataset: string;
  readonly version: number;
  readonly index: number;
  readonly timeMs: number;
  readonly actor: string;
  readonly commandId: string;
  readonly root: Digest;
  readonly treeHash: Digest;
  readonly pageCount: number;
  readonly kept: number;
  readonly schema: Digest;
  readonly classes: Digest;
  readonly splits: readonly string[];
  readonly totals: readonly SplitTotals[];
  readonly splitRule: SplitRule;
  readonly message: string;
  /** Perfect-subtree hashes of the tree over all pages, largest first: an append needs no other page. */
  readonly frontier: readonly Digest[];
}

/**
 * Page `page` stands at `position` of the dataset's versions fromVersion ≤ v < untilVersion (null: still).
 * Rows are self-contained: a commit that keeps `kept` pages reads only the rows it closes, at positions ≥ kept.
 */
export interface VersionPageRow {
  readonly table: "version_page";
  readonly dataset: string;
  readonly position: number;
  readonly fromVersion: number;
  readonly untilVersion: number | null;
  readonly page: Digest;
  /** What the manifest leaf covers beside the page's digest. */
  readonly totals: readonly SplitTotals[];
  /** Frontier of the tree over the pages before this position. */
  readonly frontierBefore: readonly Digest[];
}

/** A page, schema or class vocabulary, content-addressed. */
export interface PageRow {
  readonly table: "page";
  readonly digest: Digest;
  readonly kind: ObjectKind;
  readonly bytes: Uint8Array;
  readonly totals: readonly SplitTotals[];
  readonly putIndex: number;
  readonly actor: string;
  /** Log time until which the page is kept without being referenced. */
  readonly holdUntilMs: number;
}

/** One shard entry of a page, written once with its page. */
export interface ShardRow {
  readonly table: "shard";
  readonly page: Digest;
  readonly ordinal: number;
  readonly name: string;
  readonly split: number;
  readonly rows: number;
  readonly bytes: number;
  readonly digest: Digest;
  readonly segmentIndex: Digest;
}

export interface TagRow {
  readonly table: "tag";
  readonly dataset: string;
  readonly tag: string;
  readonly version: number;
  readonly index: number;
}

export interface TagMoveRow {
  readonly table: "tag_move";
  readonly dataset: string;
  readonly tag: string;
  readonly index: number;
  readonly timeMs: number;
  readonly actor: string;
  readonly fromVersion: number | null;
  readonly toVersion: number;
}

export interface RunRow {
  readonly table: "run";
  readonly run: string;
  readonly plan: RunPlan;
  readonly meta: Readonly<Record<string, string>>;
  readonly actor: string;
  readonly index: number;
  readonly timeMs: number;
  readonly endIndex: number | null;
  readonly outcome: "done" | "failed" | "stopped" | null;
}

/** What a run that follows its dataset trains on in an epoch: fixed once, for all ranks, by the first that came there. */
export interface RunEpochRow {
  readonly table: "run_epoch";
  readonly run: string;
  readonly epoch: number;
  readonly dataset: string;
  readonly version: number;
  readonly root: Digest;
  readonly orderSpec: OrderSpec;
  readonly actor: string;
  readonly index: number;
  readonly timeMs: number;
}

/** One row for each time that the claim was taken: `index` is when. Its release closes the row. */
export interface PinRow {
  readonly table: "pin";
  readonly dataset: string;
  readonly run: string;
  readonly version: number;
  readonly root: Digest;
  readonly note: string;
  readonly actor: string;
  readonly index: number;
  readonly timeMs: number;
  readonly releasedIndex: number | null;
}

export interface ReceiptRow {
  readonly table: "receipt";
  readonly run: string;
  readonly rank: number;
  readonly index: number;
  readonly timeMs: number;
  readonly receipt: Readonly<Record<string, unknown>>;
}

/** `subject` is `dataset@vN` for a version, `b3:…` for a shard's file digest. */
export interface RevocationRow {
  readonly table: "revocation";
  readonly subject: string;
  readonly index: number;
  readonly timeMs: number;
  readonly actor: string;
  readonly reason: string;
}

export interface LeaseRow {
  readonly table: "lease";
  readonly dataset: string;
  readonly version: number;
  readonly run: string;
  readonly untilMs: number;
  readonly index: number;
}

export type Row =
  | DatasetRow
  | VersionRow
  | VersionPageRow
  | PageRow
  | ShardRow
  | TagRow
  | TagMoveRow
  | RunRow
  | RunEpochRow
  | PinRow
  | ReceiptRow
  | RevocationRow
  | LeaseRow;
export type Table = Row["table"];

/** The columns of each table's primary key, in order. A key's text is `table` and these values, joined by '\n'. */
export const PRIMARY_KEYS = {
  dataset: ["name"],
  version: ["dataset", "version"],
  version_page: ["dataset", "position", "fromVersion"],
  page: ["digest"],
  shard: ["page", "ordinal"],
  tag: ["dataset", "tag"],
  tag_move: ["dataset", "tag", "index"],
  run: ["run"],
  run_epoch: ["run", "epoch"],
  pin: ["dataset", "run", "index"],
  receipt: ["run", "rank", "index"],
  revocation: ["subject"],
  lease: ["dataset", "version", "run"],
} as const satisfies Record<Table, readonly string[]>;

/** One read that `decide` depends on: a row by its key, or all open pages of a dataset from a position on. */
export type Need =
  | { readonly kind: "dataset"; readonly name: string }
  | { readonly kind: "version"; readonly dataset: string; readonly version: number }
  /** The page row, with bytes, that holds this version's class vocabularies; nothing when the version is not there. */
  | { readonly kind: "version_classes"; readonly dataset: string; readonly version: number }
  /** The open version_page rows of the dataset's head at positions ≥ from. */
  | { readonly kind: "head_pages"; readonly dataset: string; readonly from: number }
  /** Pages are loaded without `bytes` (an empty array stands for them) unless `withBytes`. */
  | { readonly kind: "page"; readonly digest: Digest; readonly withBytes: boolean }
  | { readonly kind: "tag"; readonly dataset: string; readonly tag: string }
  | { readonly kind: "run"; readonly run: string }
  | { readonly kind: "run_epoch"; readonly run: string; readonly epoch: number }
  /** The row of the last time that it was taken. */
  | { readonly kind: "pin"; readonly dataset: string; readonly run: string }
  | { readonly kind: "revocation"; readonly subject: string }
  | { readonly kind: "lease"; readonly dataset: string; readonly version: number; readonly run: string };

/** A change of one row. `put` inserts or replaces by primary key. Nothing is ever deleted by a command of this level. */
export type Change = { readonly op: "put"; readonly row: Row };
