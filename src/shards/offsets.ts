/**
 * Owns looking up offsets before rows are cut out of a batch: where values vary in length, only they tell which bytes the rows
 * are. Two for each part and level are looked at, never all of them.
 */
import type { Field } from "apache-arrow";
import { ShardpactError } from "../model/errors.ts";
import { sliceBatch, type BatchSlice, type BatchTable } from "./slice.ts";

/** Columns of a schema. */
export interface WantedColumns {
  readonly fields: readonly Field[];
  /** Ordinals of those that are read. */
  readonly wanted: ReadonlySet<number>;
}

/** The metadata of a batch, and the offsets in it that were looked at: `buffer:row` → value. */
export interface OffsetTable extends BatchTable {
  /** Where the body begins in the segment. */
  readonly bodyAt: number;
  readonly offsets: Map<string, number>;
}

/** An offset that is not known yet: bytes [from, to) of the segment. */
export interface MissingOffset {
  readonly key: string;
  readonly from: number;
  readonly to: number;
}

/** Each missing offset takes so much of the memory that it is read into. */
export const OFFSET_BYTES = 8;

/** What rows of a batch are made of; pieces are NaN where an offset was not looked at yet. */
export function sliceRows(
  { fields, wanted }: WantedColumns,
  table: OffsetTable,
  firstRow: number,
  rows: number,
): BatchSlice {
  const offsetAt = (buffer: number, row: number): number => table.offsets.get(`${buffer}:${row}`) ?? NaN;
  return sliceBatch(fields, wanted, table, firstRow, firstRow + rows, offsetAt);
}

/** Offsets that must be looked at before the slice is known, in the order of their bytes. @throws `shard_malformed` */
export function missingOffsets(
  { fields, wanted }: WantedColumns,
  table: OffsetTable,
  firstRow: number,
  rows: number,
): readonly MissingOffset[] {
  const missing = new Map<string, MissingOffset>();
  const offsetAt = (buffer: number, row: number, width: 4 | 8): number => {
    const key = `${buffer}:${row}`;
    const known = table.offsets.get(key);
    if (known !== undefined) return known;
    const region = table.layout.buffers[buffer] ?? { offset: 0, length: 0 };
    if (region.length === 0) {
      table.offsets.set(key, 0); // of no rows at all
      return 0;
    }
    if (row < 0 || (row + 1) * width > region.length) throw offsetOutside(row);
    const from = table.bodyAt + region.offset + row * width;
    if (!Number.isNaN(row)) missing.set(key, { key, from, to: from + width });
    return NaN;
  };
  sliceBatch(fields, wanted, table, firstRow, firstRow + rows, offsetAt);
  return [...missing.values()].sort((a, b) => a.from - b.from);
}

/** Keeps what was read: the i-th missing offset from `i · OFFSET_BYTES` on. */
export function keepOffsets(table: OffsetTable, missing: readonly MissingOffset[], read: Uint8Array): void {
  const view = new DataView(read.buffer, read.byteOffset, read.byteLength);
  missing.forEach(({ key, from, to }, i) => {
    const at = i * OFFSET_BYTES;
    table.offsets.set(key, to - from === 4 ? view.getInt32(at, true) : Number(view.getBigInt64(at, true)));
  });
}

/** Where an offset of the level above leads, there is no row. */
function offsetOutside(row: number): ShardpactError {
  return new ShardpactError("shard_malformed", `an offset leads to row ${row} of a list that is not so long`, {
    details: { row },
    hint: "Publish the shard again with shardpact, which refuses such files.",
  });
}
