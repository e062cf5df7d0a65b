/**
 * Owns looking at a batch before rows are cut out of it: where values vary in length, only offsets tell which bytes the rows
 * are, and where rows point anywhere (views, dense unions), only the rows themselves.
 *
 * Two offsets for each part and level are looked at, never all of them; of rows that point anywhere only those of the part, some
 * at a time, and what stays of them is spans.
 */
import type { Field } from "apache-arrow";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { type BatchSlice, type BatchTable, type Pointers, sliceBatch } from "./slice.ts";
import { addUnionRows, addViews, type SpanScan, startScan, VIEW_BYTES } from "./spans.ts";

/** Columns of a schema. */
export interface WantedColumns {
  readonly fields: readonly Field[];
  /** Ordinals of those that are read. */
  readonly wanted: ReadonlySet<number>;
}

/** The metadata of a batch, and what was looked at in it: offsets by `buffer:row`, spans by `buffer:from:to`. */
export interface OffsetTable extends BatchTable {
  /** Where the body begins in the segment. */
  readonly bodyAt: number;
  readonly offsets: Map<string, number>;
  readonly scans: Map<string, SpanScan>;
}

/** Bytes [from, to) of the segment, and where they are read to. */
export interface MissingPart {
  readonly from: number;
  readonly to: number;
  readonly at: number;
}

/** What must be looked at next: parts in the order of their bytes. */
export interface Missing {
  readonly parts: readonly MissingPart[];
  /** Memory that they are read into. */
  readonly bytes: number;
  /** Keeps what they say. */
  keep(read: Uint8Array): void;
}

/** Of rows that point anywhere, about as many are looked at at a time as a leaf holds. */
const LOOK_BYTES_MAX = LIMITS.leafBytes - 4096;
const PART_ALIGN = 8;

/** Bytes of the segment that are to be looked at, and what is done with them. */
interface Look {
  readonly ranges: readonly { readonly from: number; readonly to: number }[];
  keep(read: readonly Uint8Array[]): void;
}

/** What rows of a batch are made of; pieces are NaN where something was not looked at yet. */
export function sliceRows(
  { fields, wanted }: WantedColumns,
  table: OffsetTable,
  firstRow: number,
  rows: number,
): BatchSlice {
  return sliceBatch(fields, wanted, table, firstRow, firstRow + rows, {
    offsetAt: (buffer, row) => table.offsets.get(`${buffer}:${row}`) ?? NaN,
    spansOf: (pointers, from, to) => {
      const scan = table.scans.get(scanKey(pointers, from, to));
      return scan && scan.next === scan.end ? scan.spans : null;
    },
  });
}

/** What must be looked at before the slice is known; null when it is. @throws `shard_malformed` */
export function missingOffsets(
  { fields, wanted }: WantedColumns,
  table: OffsetTable,
  firstRow: number,
  rows: number,
): Missing | null {
  const looks = new Map<string, Look>();
  let room = LOOK_BYTES_MAX;
  sliceBatch(fields, wanted, table, firstRow, firstRow + rows, {
    offsetAt(buffer, row, width) {
      const key = `${buffer}:${row}`;
      const known = table.offsets.get(key);
      if (known !== undefined) return known;
      const region = table.layout.buffers[buffer] ?? { offset: 0, length: 0 };
      if (region.length === 0) {
        table.offsets.set(key, 0); // of no rows at all
        return 0;
      }
      if (row < 0 || (row + 1) * width > region.length) throw offsetOutside(row);
      if (!Number.isNaN(row)) looks.set(key, lookAtOffset(table, key, buffer, row, width));
      return NaN;
    },
    spansOf(pointers, from, to) {
      if (Number.isNaN(from) || Number.isNaN(to)) return null;
      const key = scanKey(pointers, from, to);
      const scan = table.scans.get(key) ?? startScan(from, to);
      table.scans.set(key, scan);
      if (scan.next >= scan.end) return scan.spans;
      const bytesEach = pointers.kind === "views" ? VIEW_BYTES + 1 : 5;
      const count = Math.min(scan.end - scan.next, Math.floor(room / bytesEach));
      if (count === 0) return null; // in the next round
      room -= count * bytesEach;
      looks.set(key, lookAtRows(table, pointers, scan, count));
      return null;
    },
  });
  return looks.size === 0 ? null : missingOf([...looks.values()]);
}

const scanKey = (pointers: Pointers, from: number, to: number): string =>
  `${pointers.kind === "views" ? pointers.views : pointers.ids}:${from}:${to}`;

function lookAtOffset(table: OffsetTable, key: string, buffer: number, row: number, width: 4 | 8): Look {
  const range = rangeOf(table, buffer, row * width, (row + 1) * width);
  return {
    ranges: [range],
    keep([read]) {
      const { buffer: memory, byteOffset } = read as Uint8Array;
      const view = new DataView(memory, byteOffset, width);
      table.offsets.set(key, width === 4 ? view.getInt32(0, true) : Number(view.getBigInt64(0, true)));
    },
  };
}

/** The next `count` rows of a scan. */
function lookAtRows(table: OffsetTable, pointers: Pointers, scan: SpanScan, count: number): Look {
  const [from, to] = [scan.next, scan.next + count];
  if (pointers.kind === "union") {
    const { ids, offsets, typeIds } = pointers;
    return {
      ranges: [rangeOf(table, ids, from, to), rangeOf(table, offsets, from * 4, to * 4)],
      keep([idsRead, read]) {
        if (scan.next === from) addUnionRows(scan, idsRead as Uint8Array, read as Uint8Array, typeIds);
      },
    };
  }
  const { validity } = pointers;
  const views = rangeOf(table, pointers.views, from * VIEW_BYTES, to * VIEW_BYTES);
  const bits = validity === null ? [] : [rangeOf(table, validity, Math.floor(from / 8), Math.ceil(to / 8))];
  return {
    ranges: [views, ...bits],
    keep([read, validBits]) {
      const isNull = (i: number): boolean => {
        const at = i + (from % 8);
        return validBits !== undefined && ((validBits[at >>> 3] ?? 0) & (1 << (at & 7))) === 0;
      };
      if (scan.next === from) addViews(scan, read as Uint8Array, isNull); // nobody else has meanwhile
    },
  };
}

/** Bytes of a buffer as bytes of the segment. @throws `shard_malformed` where the level above leads to rows that are not there */
function rangeOf({ layout, bodyAt }: OffsetTable, buffer: number, from: number, to: number) {
  const { offset, length } = layout.buffers[buffer] ?? { offset: 0, length: 0 };
  if (from < 0 || to > length) throw offsetOutside(to);
  return { from: bodyAt + offset + from, to: bodyAt + offset + to };
}

function missingOf(looks: readonly Look[]): Missing {
  let bytes = 0;
  const placed = looks.map(({ ranges }) =>
    ranges.map(({ from, to }): MissingPart => {
      const at = bytes;
      bytes += Math.ceil((to - from) / PART_ALIGN) * PART_ALIGN;
      return { from, to, at };
    }),
  );
  return {
    parts: placed.flat().sort((a, b) => a.from - b.from),
    bytes,
    keep: (read) =>
      looks.forEach(({ keep }, i) =>
        keep((placed[i] ?? []).map(({ from, to, at }) => read.subarray(at, at + to - from))),
      ),
  };
}

/** Where an offset of the level above leads, there is no row. */
function offsetOutside(row: number): ShardpactError {
  return new ShardpactError("shard_malformed", `an offset leads to row ${row} of a list that is not so long`, {
    details: { row },
    hint: "Publish the shard again with shardpact, which refuses such files.",
  });
}
