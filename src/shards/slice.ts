/**
 * Owns cutting a batch before its body is read: which bytes of it some columns and rows need, and the header of the smaller
 * batch that those bytes are.
 *
 * A slice is planned from the verified header alone (and the offsets at its two ends, where values vary in length). Its
 * bytes are then put anywhere, one piece after another, and `headerOfSlice` makes them a batch of their own, which is
 * decoded and checked like any other. Source: Arrow columnar format, "Physical memory layout".
 */
import { DataType, type Field } from "apache-arrow";
import { fixedWidth } from "./arrow-columns.ts";
import type { BatchLayout } from "./layout.ts";
import type { BatchHeader, BufferRegion } from "./message.ts";

/** One buffer of a slice: bytes [from, to) of the body. */
export interface Piece {
  readonly from: number;
  readonly to: number;
  /** Bits before the first one wanted, in buffers of bits. */
  readonly shift: number;
  /** Width of offsets, which then count from the first; 0 for anything else. */
  readonly offsetWidth: 0 | 4 | 8;
}

export interface BatchSlice {
  readonly rows: number;
  readonly isWhole: boolean;
  /** One a column or child. `nullCount` null: to be counted in the piece `validity`. */
  readonly nodes: readonly { readonly length: number; readonly nullCount: number | null; readonly validity: number }[];
  /** In the format's order. */
  readonly pieces: readonly Piece[];
  readonly variadicCounts: readonly number[];
}

/** A batch's header and its buffers, cut to what its rows need. */
export interface BatchTable {
  readonly header: BatchHeader;
  readonly layout: BatchLayout;
}

/** The offset (of 4 or 8 bytes) that buffer `buffer` of the batch holds for `row`; NaN when it is not known yet. */
export type OffsetAt = (buffer: number, row: number, width: 4 | 8) => number;

/** Whether rows can be cut out of a column of this type. Others come whole. */
export function canSlice(type: DataType): boolean {
  if (DataType.isUnion(type) || DataType.isUtf8View(type) || DataType.isBinaryView(type)) return false;
  return (type.children ?? []).every((child: Field) => canSlice(child.type as DataType));
}

/** Bytes of a row as stored, validity aside; null where rows vary. */
export function rowBytesOf(type: DataType): number | null {
  if (DataType.isNull(type)) return 0;
  if (DataType.isBool(type)) return 1 / 8;
  if (DataType.isDictionary(type)) return type.indices.bitWidth / 8;
  if (DataType.isFixedSizeList(type)) {
    const child = type.children[0] ? rowBytesOf(type.children[0].type as DataType) : null;
    return child === null ? null : child * type.listSize;
  }
  if (DataType.isStruct(type)) {
    const parts = type.children.map((child) => rowBytesOf(child.type as DataType));
    return parts.reduce<number | null>((sum, part) => (sum === null || part === null ? null : sum + part), 0);
  }
  const varies =
    DataType.isUtf8(type) ||
    DataType.isBinary(type) ||
    DataType.isLargeUtf8(type) ||
    DataType.isLargeBinary(type) ||
    DataType.isList(type) ||
    DataType.isLargeList(type) ||
    DataType.isMap(type) ||
    !canSlice(type);
  return varies ? null : fixedWidth(type);
}

/** Memory that `rows` rows of a column take at most when they are packed; null where rows vary. */
export function sliceBytesMax(type: DataType, rows: number): number | null {
  const bits = padded(Math.ceil(rows / 8) + 1);
  if (DataType.isNull(type)) return 0;
  if (DataType.isBool(type)) return 2 * bits;
  if (DataType.isFixedSizeList(type) || DataType.isStruct(type)) {
    const length = DataType.isStruct(type) ? rows : rows * type.listSize;
    const parts = (type.children as Field[]).map((child) => sliceBytesMax(child.type as DataType, length));
    return parts.reduce<number | null>((sum, part) => (sum === null || part === null ? null : sum + part), bits);
  }
  const width = rowBytesOf(type);
  return width === null ? null : bits + padded(rows * width);
}

/** Rows [from, to) of the columns `wanted` (ordinals among `fields`). Unknown offsets give pieces of NaN. */
export function sliceBatch(
  fields: readonly Field[],
  wanted: ReadonlySet<number>,
  table: BatchTable,
  from: number,
  to: number,
  offsetAt: OffsetAt,
): BatchSlice {
  const isWhole = from === 0 && to === table.header.rows;
  const cutter = new Cutter(table, offsetAt);
  fields.forEach((field, i) => {
    cutter.isWanted = wanted.has(i);
    cutter.visit(field.type as DataType, isWhole ? null : { from, to });
  });
  const { nodes, pieces, variadicCounts } = cutter;
  return { rows: to - from, isWhole, nodes, pieces, variadicCounts };
}

/** Rows of a node; null for all of them. */
type Range = { readonly from: number; readonly to: number } | null;

/** Walks in the order of `layoutBatch`, which has checked that nodes and buffers are there. */
class Cutter {
  readonly nodes: { length: number; nullCount: number | null; validity: number }[] = [];
  readonly pieces: Piece[] = [];
  readonly variadicCounts: number[] = [];
  isWanted = false;
  readonly #table: BatchTable;
  readonly #offsetAt: OffsetAt;
  #node = 0;
  #buffer = 0;
  #variadic = 0;

  constructor(table: BatchTable, offsetAt: OffsetAt) {
    this.#table = table;
    this.#offsetAt = offsetAt;
  }

  visit(type: DataType, range: Range): void {
    const { length, nullCount } = this.#table.layout.nodes[this.#node++] ?? { length: 0, nullCount: 0 };
    const rows = range ? range.to - range.from : length;
    const hasValidity = !DataType.isNull(type) && !DataType.isUnion(type);
    if (this.isWanted) {
      const isKnown = range === null || nullCount === 0;
      const validity = hasValidity ? this.pieces.length : -1;
      const nulls = DataType.isNull(type) ? rows : nullCount;
      this.nodes.push({ length: rows, nullCount: isKnown || !hasValidity ? nulls : null, validity });
    }
    if (hasValidity) this.#bits(range, nullCount === 0);
    this.#content(type, range);
  }

  #content(type: DataType, range: Range): void {
    if (DataType.isNull(type)) return;
    if (DataType.isDictionary(type)) return this.#fixed(range, type.indices.bitWidth / 8);
    if (DataType.isUtf8(type) || DataType.isBinary(type)) return this.#variable(range, 4);
    if (DataType.isLargeUtf8(type) || DataType.isLargeBinary(type)) return this.#variable(range, 8);
    if (DataType.isList(type) || DataType.isMap(type)) return this.#list(type, range, 4);
    if (DataType.isLargeList(type)) return this.#list(type, range, 8);
    if (DataType.isFixedSizeList(type)) {
      const size = type.listSize;
      return this.#children(type, range && { from: range.from * size, to: range.to * size });
    }
    if (DataType.isStruct(type)) return this.#children(type, range);
    if (DataType.isBool(type)) return this.#bits(range, false);
    if (DataType.isUtf8View(type) || DataType.isBinaryView(type)) {
      const count = this.#table.header.variadicCounts[this.#variadic++] ?? 0;
      if (this.isWanted) this.variadicCounts.push(count);
      for (let i = 0; i < 1 + count; i++) this.#take(null, 0);
      return;
    }
    if (DataType.isUnion(type)) {
      this.#take(null, 0);
      if (type.mode === 1) this.#take(null, 0); // dense: offsets into the children
      return this.#children(type, null);
    }
    this.#fixed(range, fixedWidth(type));
  }

  #children(type: DataType, range: Range): void {
    for (const child of (type.children ?? []) as Field[]) this.visit(child.type as DataType, range);
  }

  #fixed(range: Range, width: number): void {
    this.#take(range && { from: range.from * width, to: range.to * width }, 0);
  }

  /** @param mayGo a slice leaves out validity of a column without nulls */
  #bits(range: Range, mayGo: boolean): void {
    if (range && mayGo) this.#take({ from: 0, to: 0 }, 0);
    else if (range) this.#take({ from: Math.floor(range.from / 8), to: Math.ceil(range.to / 8) }, 0, range.from % 8);
    else this.#take(null, 0);
  }

  #variable(range: Range, width: 4 | 8): void {
    const values = this.#offsets(range, width);
    this.#take(values, 0);
  }

  #list(type: DataType, range: Range, width: 4 | 8): void {
    this.#children(type, this.#offsets(range, width));
  }

  /** Takes offsets, and gives the range of values that they point at. */
  #offsets(range: Range, width: 4 | 8): Range {
    const buffer = this.#buffer;
    this.#take(range && { from: range.from * width, to: (range.to + 1) * width }, width);
    if (!range || !this.isWanted) return null;
    return { from: this.#offsetAt(buffer, range.from, width), to: this.#offsetAt(buffer, range.to, width) };
  }

  /** The next buffer, or bytes of it. */
  #take(bytes: Range, offsetWidth: 0 | 4 | 8, shift = 0): void {
    const region: BufferRegion = this.#table.layout.buffers[this.#buffer++] ?? { offset: 0, length: 0 };
    if (!this.isWanted) return;
    // What offsets point at may lie outside a hostile buffer: then the slice ends with it, and decoding refuses it.
    const from = bytes ? Math.min(Math.max(0, bytes.from), region.length) : 0;
    const to = bytes ? Math.min(Math.max(from, bytes.to), region.length) : region.length;
    this.pieces.push({
      from: region.offset + from, // NaN where an offset is not known yet
      to: region.offset + to,
      shift,
      offsetWidth: bytes === null ? 0 : offsetWidth,
    });
  }
}

const PIECE_ALIGN = 64;
const padded = (bytes: number): number => Math.ceil(bytes / PIECE_ALIGN) * PIECE_ALIGN;

/** Where the pieces go when they are packed: `places[i]` for piece i, and the bytes of all. */
export function packPieces(pieces: readonly Piece[]): { readonly places: readonly number[]; readonly bytes: number } {
  let bytes = 0;
  const places = pieces.map(({ from, to }) => {
    const at = bytes;
    bytes += padded(to - from);
    return at;
  });
  return { places, bytes };
}

/**
 * The header of the slice once its pieces lie at `places` in `body`. Bits are moved to the front of their bytes, offsets are
 * made to count from the first, and nulls are counted, in place.
 */
export function headerOfSlice(slice: BatchSlice, places: readonly number[], body: Uint8Array): BatchHeader {
  const buffers = slice.pieces.map(({ from, to, shift, offsetWidth }, i) => {
    const bytes = body.subarray(places[i] as number, (places[i] as number) + to - from);
    if (shift > 0) moveBits(bytes, shift);
    if (offsetWidth > 0) rebaseOffsets(bytes, offsetWidth as 4 | 8);
    return { offset: places[i] as number, length: to - from };
  });
  const nodes = slice.nodes.map(({ length, nullCount, validity }) => {
    if (nullCount !== null) return { length, nullCount };
    const { offset, length: bytes } = buffers[validity] as BufferRegion;
    return { length, nullCount: length - countOnes(body.subarray(offset, offset + bytes), length) };
  });
  return {
    kind: "batch",
    rows: slice.rows,
    nodes,
    buffers,
    variadicCounts: slice.variadicCounts,
    bodyBytes: body.byteLength,
    dictionaryId: -1,
  };
}

function moveBits(bytes: Uint8Array, shift: number): void {
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = ((bytes[i] as number) >>> shift) | ((bytes[i + 1] ?? 0) << (8 - shift));
  }
}

function rebaseOffsets(bytes: Uint8Array, width: 4 | 8): void {
  if (width === 4) {
    const offsets = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    const first = offsets[0] ?? 0;
    for (let i = 0; i < offsets.length; i++) offsets[i] = (offsets[i] as number) - first;
  } else {
    const offsets = new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8);
    const first = offsets[0] ?? 0n;
    for (let i = 0; i < offsets.length; i++) offsets[i] = (offsets[i] as bigint) - first;
  }
}

function countOnes(bits: Uint8Array, length: number): number {
  let ones = 0;
  for (let i = 0; i < length; i++) ones += ((bits[i >>> 3] ?? 0) >>> (i & 7)) & 1;
  return ones;
}
