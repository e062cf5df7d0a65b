/**
 * Owns the tile: what is read, kept and pinned at a time. Some rows of one record batch, of the wanted columns only.
 *
 * Read in file order, most batches are one tile; one that would not fit the rhythm of a loader (a file written as one giant
 * batch) is cut by rows. An order that deals blocks gets tiles cut where its blocks begin: a batch that lies in two blocks is
 * wanted at two times, by two ranks, and would be read twice. A batch whose wanted columns are less than half of it is read
 * column by column. What a tile holds is decided from the schema where that suffices, else from the batch's verified
 * metadata, and its size is known before it is pinned.
 */
import type { DataType } from "apache-arrow";
import { LIMITS } from "../../model/limits.ts";
import { MESSAGE_PREFIX_BYTES, metadataLength } from "../../shards/message.ts";
import { sliceRows, type OffsetTable, type WantedColumns } from "../../shards/offsets.ts";
import { packPieces, sliceBytesMax } from "../../shards/pack.ts";
import { rowBytesOf, type BatchSlice } from "../../shards/slice.ts";
import { countLeaves } from "./copy-parts.ts";
import type { BatchSegment, SegmentTiles, Tile } from "./layout.ts";
import type { Part } from "./reads.ts";

/** The verified metadata of a batch, and the offsets in it that were looked at. */
export interface LoadedTable extends OffsetTable {
  /** The verified leaves that the metadata lies in, for as long as they are kept: they hold the first values too. */
  head: Uint8Array | null;
}

export interface TileRules extends WantedColumns {
  /** Bytes of wanted columns in one tile of a batch that is cut, about. */
  readonly tileBytes: number;
  /** Rows of the order's blocks, counted from the selection's first; 0 when tiles need not begin with them. */
  readonly blockRows: number;
}

/** A batch of up to this many tiles' bytes is left in one. */
export const UNCUT_TILES_MAX = 2;
/** Batches of less than this share of a block are not cut for it: little is read twice, and cutting costs a read too. */
const CUT_SHARE_MIN = 0.25;
/** From this share of leaves on, all are read: one request instead of several, and no copy. */
const WHOLE_SHARE_MIN = 0.5;

/** The tiles of a segment as far as schema and sizes tell; null when its metadata is needed. */
export function tilesBySchema(rules: TileRules, segment: BatchSegment): SegmentTiles | null {
  const { fields, wanted, tileBytes } = rules;
  if (segment.bytes <= LIMITS.leafBytes) return oneTile(segment, true, segment.bytes);
  if (isCutByBlocks(rules, segment)) {
    const types = [...wanted].map((at) => fields[at]?.type as DataType);
    if (types.some((type) => sliceBytesMax(type, 1) === null)) return null;
    const bytes = (rows: number): number => types.reduce((sum, type) => sum + (sliceBytesMax(type, rows) ?? 0), 0);
    return blockTiles(rules, segment, (_firstRow, rows) => bytes(rows));
  }
  if (segment.bytes > UNCUT_TILES_MAX * tileBytes) return null;
  if (wanted.size === fields.length) return oneTile(segment, true, segment.bytes);
  let rowBytes = 0;
  for (const at of wanted) {
    const width = rowBytesOf(fields[at]?.type as DataType);
    if (width === null) return null;
    rowBytes += width;
  }
  const isMost = rowBytes * segment.rows >= WHOLE_SHARE_MIN * segment.bytes;
  return isMost ? oneTile(segment, true, segment.bytes) : null;
}

/** The tiles of a segment by its metadata. Those whose values vary in length have no size yet. */
export function tilesByTable(rules: TileRules, segment: BatchSegment, table: LoadedTable): SegmentTiles {
  const { tileBytes } = rules;
  const all = sliceRows(rules, table, 0, segment.rows);
  const { bytes } = packPieces(all.pieces);
  const byBlocks = isCutByBlocks(rules, segment);
  const fits = bytes <= UNCUT_TILES_MAX * tileBytes && !byBlocks;
  if (fits || segment.rows === 1) {
    const leaves = countLeaves(partsOf(all, table.bodyAt));
    const isWhole = leaves >= WHOLE_SHARE_MIN * Math.ceil(segment.bytes / LIMITS.leafBytes);
    return oneTile(segment, isWhole, isWhole ? segment.bytes : bytes);
  }
  const sizeOf = (firstRow: number, rows: number): number => {
    const packed = packPieces(sliceRows(rules, table, firstRow, rows).pieces).bytes;
    return Number.isNaN(packed) ? -1 : packed;
  };
  if (byBlocks) return blockTiles(rules, segment, sizeOf);
  const even = Math.max(1, Math.floor((tileBytes * segment.rows) / bytes));
  const rowsPerTile = even > 8 ? even - (even % 8) : even; // bits then begin where bytes do
  const tiles: Tile[] = [];
  for (let firstRow = 0; firstRow < segment.rows; firstRow += rowsPerTile) {
    const rows = Math.min(rowsPerTile, segment.rows - firstRow);
    tiles.push({ segment, firstRow, rows, isWhole: false, bytes: sizeOf(firstRow, rows), slot: 0, round: 0 });
  }
  return { rowsPerTile, shift: 0, tiles };
}

/** Rows of the segment's first block that lie before it; null when its rows are not all selected. */
function rowsIntoBlock({ blockRows }: TileRules, { shard, firstRow }: BatchSegment): number | null {
  return blockRows === 0 || shard.fileRow !== null ? null : (shard.firstRow + firstRow) % blockRows;
}

function isCutByBlocks(rules: TileRules, segment: BatchSegment): boolean {
  const into = rowsIntoBlock(rules, segment);
  const { blockRows } = rules;
  return into !== null && into + segment.rows > blockRows && segment.rows >= CUT_SHARE_MIN * blockRows;
}

function blockTiles(
  rules: TileRules,
  segment: BatchSegment,
  sizeOf: (firstRow: number, rows: number) => number,
): SegmentTiles {
  const { blockRows: rowsPerTile } = rules;
  const shift = rowsIntoBlock(rules, segment) ?? 0;
  const tiles: Tile[] = [];
  for (let firstRow = 0; firstRow < segment.rows;) {
    const rows = Math.min(rowsPerTile - ((firstRow + shift) % rowsPerTile), segment.rows - firstRow);
    tiles.push({ segment, firstRow, rows, isWhole: false, bytes: sizeOf(firstRow, rows), slot: 0, round: 0 });
    firstRow += rows;
  }
  return { rowsPerTile, shift, tiles };
}

function oneTile(segment: BatchSegment, isWhole: boolean, bytes: number): SegmentTiles {
  const tile: Tile = { segment, firstRow: 0, rows: segment.rows, isWhole, bytes, slot: 0, round: 0 };
  return { rowsPerTile: segment.rows, shift: 0, tiles: [tile] };
}

/** The parts of a segment that the pieces of a slice are, at the places where they are packed, in the order of their bytes. */
export function partsOf(slice: BatchSlice, bodyAt: number): readonly Part[] {
  const { places } = packPieces(slice.pieces);
  return slice.pieces
    .map(({ from, to }, i) => ({ from: bodyAt + from, to: bodyAt + to, at: places[i] as number }))
    .sort((a, b) => a.from - b.from);
}

/** Bytes of a segment to read for its metadata, given those read so far: 0 when they suffice. */
export function metadataBytesMissing(segment: BatchSegment, read: Uint8Array): number {
  if (read.byteLength < MESSAGE_PREFIX_BYTES) return Math.min(segment.bytes, LIMITS.leafBytes);
  const length = metadataLength(read);
  const isTooLong = length !== null && length > Math.min(segment.bytes, LIMITS.segmentMetadataBytesMax);
  if (length === null || isTooLong || length <= read.byteLength) return 0; // decoding says what is wrong
  return length;
}

/** Copies what the verified first leaves hold of the parts; what is left must be read. */
export function takeFromHead(parts: readonly Part[], head: Uint8Array | null, target: Uint8Array): readonly Part[] {
  if (head === null) return parts;
  return parts.flatMap(({ from, to, at }) => {
    if (from >= head.byteLength) return [{ from, to, at }];
    const taken = head.subarray(from, to);
    target.set(taken, at);
    return to > head.byteLength ? [{ from: head.byteLength, to, at: at + taken.byteLength }] : [];
  });
}
