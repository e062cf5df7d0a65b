/**
 * Owns the layout of a selection: which page, shard and segment holds the row with a given number.
 *
 * Built per page: totals of all pages first (they are in the manifest), entries of a page when a row of it is needed, the
 * segments of a shard when it is opened. As many pages stay in memory as fit (`resident-pages.ts`). Rows of the selection are
 * numbered in file order.
 */
import type { ConfirmedVersion, ManifestPage, ShardEntry } from "../../client/types.ts";
import type { SegmentIndex } from "../../merkle/segment-index.ts";
import { invariant, ShardpactError } from "../../model/errors.ts";
import { createStripeCache, positionalRows, type StripeCache } from "../../shards/positional.ts";
import { createResidentPages, type Page, type ResidentPages } from "./resident-pages.ts";
import { BATCH_BYTES, TILE_BYTES } from "./shard-memory.ts";

/** Arrow counts the rows of a batch in int64, every implementation that we know of in int32. */
const BATCH_ROWS_MAX = 2 ** 31 - 1;

/** One record batch of a shard. */
export interface BatchSegment {
  readonly shard: ShardPlace;
  /** Ordinal among the file's segments. */
  readonly segment: number;
  readonly bytes: number;
  readonly rows: number;
  /** Row of the file at which it begins. */
  readonly firstRow: number;
  /** How it is read, once that is known. */
  tiles: SegmentTiles | null;
}

/** What is read, kept and pinned at a time (`tiles.ts`). */
export interface Tile {
  readonly segment: BatchSegment;
  /** Rows [firstRow, firstRow + rows) of the segment. */
  readonly firstRow: number;
  readonly rows: number;
  /** Read as the segment lies in the file; otherwise only the wanted bytes, packed. */
  readonly isWhole: boolean;
  /** Memory that it takes when read; −1 while offsets must be looked at to know. */
  bytes: number;
  /** Place in the batch that is being located, valid in round `round`: saves a look-up for each row. */
  slot: number;
  round: number;
}

/** The tiles of a segment: its row r lies in tile ⌊(r + shift) ÷ rowsPerTile⌋. */
export interface SegmentTiles {
  readonly rowsPerTile: number;
  readonly shift: number;
  readonly tiles: readonly Tile[];
}

/** One shard of the selection. */
export interface ShardPlace {
  readonly entry: ShardEntry;
  /** Selection rows before it, and in it. */
  readonly firstRow: number;
  readonly rows: number;
  /** File row of the k-th selected row; null when all rows are selected. */
  readonly fileRow: ((k: number) => number) | null;
  /** Record batches, once the shard's index is known. */
  batches: readonly BatchSegment[] | null;
}

/** One page of the manifest, as far as it holds rows of the selection. */
export interface PagePlace extends Page<ShardPlace> {
  readonly position: number;
  readonly firstRow: number;
  readonly rows: number;
}

export interface SelectionLayout {
  readonly rows: number;
  /** What is in memory now. */
  readonly resident: Pick<ResidentPages<ShardPlace>, "count" | "bytes">;
  /** The page of a selection row, which counts as used now. */
  pageOf(row: number): PagePlace;
  /** Brings a page into memory, for which others may leave. @throws what `version.page` throws */
  loadPage(page: PagePlace, signal: AbortSignal): Promise<readonly ShardPlace[]>;
  /** The record batches of a shard have been listed: its page takes more memory now. */
  opened(shard: ShardPlace): void;
  /** A record batch of the shard was cut into so many tiles, for which others may leave. */
  cut(shard: ShardPlace, tiles: number): void;
  /** All shards, page by page, in file order. */
  shards(signal: AbortSignal): AsyncIterable<ShardPlace>;
}

type Source = Pick<ConfirmedVersion, "manifest" | "page" | "splits" | "splitRule" | "pageRows" | "dataset" | "version">;

/**
 * The layout of one split. Reads the manifest, and no page before a row of it is asked for.
 * @param pageBytesMax memory for pages, about
 */
export async function loadLayout(
  version: Source,
  split: string,
  pageBytesMax: number,
  signal: AbortSignal,
): Promise<SelectionLayout> {
  const chooser = chooserOf(version, split);
  const pages = await placePages(version, split, chooser, signal);
  const resident = createResidentPages<ShardPlace>(pageBytesMax);
  let last: PagePlace | undefined = pages[0];

  const pageOf = (row: number): PagePlace => {
    if (last && row >= last.firstRow && row < last.firstRow + last.rows) return last;
    last = pages[lastAtOrBefore(pages, row)];
    invariant(last && row < last.firstRow + last.rows, `row ${row} lies in the selection`);
    resident.touch(last);
    return last;
  };
  const load = async (page: PagePlace, until: AbortSignal): Promise<readonly ShardPlace[]> =>
    page.shards ?? resident.admit(page, placeShards(await version.page(page.position, until), page.firstRow, chooser));
  /** Its page takes more memory, if that is here. */
  const grow = (shard: ShardPlace, bytes: number): void => {
    if (bytes === 0) return;
    const page = pageOf(shard.firstRow);
    const isResident = page.shards !== null && shardIn(page, page.shards, shard.firstRow) === shard;
    if (isResident) resident.grow(page, bytes);
  };
  return {
    rows: pages.reduce((sum, page) => sum + page.rows, 0),
    resident,
    pageOf,
    loadPage: load,
    opened: (shard) => grow(shard, (shard.batches?.length ?? 0) * BATCH_BYTES),
    cut: (shard, tiles) => grow(shard, (tiles - 1) * TILE_BYTES),
    async *shards(until) {
      for (const page of pages) yield* await load(page, until);
    },
  };
}

/** A page's shard of a row, among those that are given in order: a guess in proportion, then neighbours. */
export function shardIn({ firstRow, rows }: PagePlace, shards: readonly ShardPlace[], row: number): ShardPlace {
  let at = Math.floor(((row - firstRow) / rows) * shards.length);
  while (row < (shards[at] as ShardPlace).firstRow) at--;
  while (row >= (shards[at] as ShardPlace).firstRow + (shards[at] as ShardPlace).rows) at++;
  return shards[at] as ShardPlace;
}

/** Where the rows of the split lie, page by page. */
async function placePages(
  version: Source,
  split: string,
  chooser: Chooser,
  signal: AbortSignal,
): Promise<readonly PagePlace[]> {
  const manifest = await version.manifest(signal);
  const pages: PagePlace[] = [];
  let firstRow = 0;
  for (const [position, page] of manifest.entries()) {
    const rows = chooser.pageRows(page, position);
    if (rows > 0) pages.push({ position, firstRow, rows, shards: null, usedAt: 0 });
    firstRow += rows;
  }
  const expected = version.splits.find((s) => s.name === split)?.rows;
  if (firstRow === expected) return pages;
  throw new ShardpactError(
    "damaged",
    `${version.dataset}@v${version.version}: pages hold ${firstRow} rows of '${split}', not ${expected}`,
  );
}

interface Chooser {
  /** Rows of the selection in a page. */
  pageRows(page: ManifestPage, position: number): number;
  /** Rows of one shard, and where they lie. */
  choose(entry: ShardEntry): Pick<ShardPlace, "rows" | "fileRow">;
}

function chooserOf({ splits, splitRule, pageRows }: Source, split: string): Chooser {
  const ordinal = splits.findIndex((s) => s.name === split);
  if (splitRule.kind !== "positional") {
    return {
      pageRows: (page) => page.totals.reduce((sum, t) => sum + (t.split === ordinal ? t.rows : 0), 0),
      choose: (entry) => ({ rows: entry.split === ordinal ? entry.rows : 0, fileRow: null }),
    };
  }
  const name = Object.hasOwn(splitRule.ppm, split) ? split : null;
  const cache: StripeCache = createStripeCache();
  return {
    pageRows: (_, position) => pageRows?.[split]?.[position] ?? 0,
    choose: (entry) => {
      const selected = positionalRows(splitRule, name, entry, cache);
      return { rows: selected.rows, fileRow: selected.rows === entry.rows ? null : selected.rowOf };
    },
  };
}

function placeShards(entries: readonly ShardEntry[], firstRow: number, chooser: Chooser): readonly ShardPlace[] {
  const shards: ShardPlace[] = [];
  for (const entry of entries) {
    const chosen = chooser.choose(entry);
    if (chosen.rows > 0) shards.push({ entry, firstRow, ...chosen, batches: null });
    firstRow += chosen.rows;
  }
  return shards;
}

/** Position of the last page that begins at or before `row`. */
function lastAtOrBefore(pages: readonly PagePlace[], row: number): number {
  let low = 0;
  let high = pages.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if ((pages[middle] as PagePlace).firstRow <= row) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** The record batches of an opened shard; empty ones hold no rows and are left out. */
export function listBatches(shard: ShardPlace, index: Pick<SegmentIndex, "segments">): readonly BatchSegment[] {
  const batches: BatchSegment[] = [];
  let firstRow = 0;
  for (const [segment, { kind, bytes, rows }] of index.segments.entries()) {
    if (kind !== "batch" || rows === 0) continue;
    if (rows > BATCH_ROWS_MAX) throw tooManyRows(shard, segment, rows);
    batches.push({ shard, segment, bytes, rows, firstRow, tiles: null });
    firstRow += rows;
  }
  return batches;
}

/** What no batch has is not cut into tiles, as many as somebody says. */
function tooManyRows({ entry: { name } }: ShardPlace, segment: number, rows: number): ShardpactError {
  return new ShardpactError("shard_malformed", `shard ${name} segment ${segment} says it has ${rows} rows`, {
    details: { shard: name, segment, rows, rowsMax: BATCH_ROWS_MAX },
    hint: "Publish the shard again with shardpact, which refuses such files.",
  });
}

/** The batch of a file row: a guess in proportion, then neighbours. */
export function batchOf(shard: ShardPlace, batches: readonly BatchSegment[], fileRow: number): number {
  let at = Math.min(batches.length - 1, Math.floor((fileRow / shard.entry.rows) * batches.length));
  while (fileRow < (batches[at] as BatchSegment).firstRow) at--;
  while (fileRow >= (batches[at] as BatchSegment).firstRow + (batches[at] as BatchSegment).rows) at++;
  return at;
}
