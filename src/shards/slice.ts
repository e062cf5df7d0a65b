/**
 * Owns cutting a batch before its body is read: which bytes of it some columns and rows need, and the header of the smaller
 * batch that those bytes are.
 *
 * A slice is planned from the verified header alone (and the offsets at its two ends, where values vary in length). Its
 * bytes are then put anywhere, one piece after another, and `headerOfSlice` makes them a batch of their own, which is
 * decoded and checked like any other. Source: Arrow columnar format, "Physical memory layout".
 */
import { DataType, type Field, type Union, UnionMode } from "apache-arrow";
import { fixedWidth } from "./arrow-columns.ts";
import type { BatchLayout } from "./layout.ts";
import type { BatchHeader, BufferRegion } from "./message.ts";
import { VIEW_BYTES, type Span } from "./spans.ts";

/** One buffer of a slice: bytes [from, to) of the body. */
export interface Piece {
  readonly from: number;
  readonly to: number;
  /** Bits before the first one wanted, in buffers of bits. */
  readonly shift: number;
  /** Width of offsets, which then count from the first; 0 for anything else. */
  readonly offsetWidth: 0 | 4 | 8;
  /** Where rows point to that point anywhere: to the pieces of these spans. */
  readonly moved: Moved | null;
}

export type Moved =
  | { readonly kind: "views"; readonly spans: readonly Span[] }
  /** `ids`: the piece of the rows' type ids. */
  | {
      readonly kind: "union";
      readonly ids: number;
      readonly spans: readonly Span[];
      readonly typeIds: readonly number[];
    };

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

/** What the bytes of a batch say of where its rows lie. */
export interface SliceLooks {
  /** The offset (of 4 or 8 bytes) that buffer `buffer` of the batch holds for `row`; NaN when it is not known yet. */
  offsetAt(buffer: number, row: number, width: 4 | 8): number;
  /** What rows [from, to) of views or of a dense union point at; null when it is not known yet. */
  spansOf(pointers: Pointers, from: number, to: number): readonly Span[] | null;
}

/** Buffers (ordinals) of rows that may point anywhere. */
export type Pointers =
  /** `validity` null: there are no nulls. */
  | { readonly kind: "views"; readonly views: number; readonly validity: number | null }
  | { readonly kind: "union"; readonly ids: number; readonly offsets: number; readonly typeIds: readonly number[] };

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
    DataType.isUtf8View(type) ||
    DataType.isBinaryView(type) ||
    DataType.isUnion(type);
  return varies ? null : fixedWidth(type);
}

/** Rows [from, to) of the columns `wanted` (ordinals among `fields`). Unknown offsets give pieces of NaN. */
export function sliceBatch(
  fields: readonly Field[],
  wanted: ReadonlySet<number>,
  table: BatchTable,
  from: number,
  to: number,
  looks: SliceLooks,
): BatchSlice {
  const isWhole = from === 0 && to === table.header.rows;
  const cutter = new Cutter(table, looks);
  fields.forEach((field, i) => {
    cutter.isWanted = wanted.has(i);
    cutter.visit(field.type as DataType, isWhole ? null : { from, to });
  });
  const { nodes, pieces, variadicCounts } = cutter;
  return { rows: to - from, isWhole, nodes, pieces, variadicCounts };
}

/** Rows of a node; null for all of them. */
type Range = { readonly from: number; readonly to: number } | null;
const NOTHING = { from: 0, to: 0 };
const UNKNOWN = { from: NaN, to: NaN };

/** Walks in the order of `layoutBatch`, which has checked that nodes and buffers are there. */
class Cutter {
  readonly nodes: { length: number; nullCount: number | null; validity: number }[] = [];
  readonly pieces: Piece[] = [];
  readonly variadicCounts: number[] = [];
  isWanted = false;
  readonly #table: BatchTable;
  readonly #looks: SliceLooks;
  #node = 0;
  #buffer = 0;
  #variadic = 0;

  constructor(table: BatchTable, looks: SliceLooks) {
    this.#table = table;
    this.#looks = looks;
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
    const validity = nullCount === 0 ? null : this.#buffer;
    if (hasValidity) this.#bits(range, nullCount === 0);
    if (DataType.isUtf8View(type) || DataType.isBinaryView(type)) return this.#views(range, validity);
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
    if (DataType.isUnion(type)) return this.#union(type, range);
    this.#fixed(range, fixedWidth(type));
  }

  /** Views, and of the buffers that they point into what the rows need. */
  #views(range: Range, validity: number | null): void {
    const count = this.#table.header.variadicCounts[this.#variadic++] ?? 0;
    const views = this.#buffer;
    if (!range || !this.isWanted) {
      if (this.isWanted) this.variadicCounts.push(count);
      for (let i = 0; i < 1 + count; i++) this.#take(null, 0);
      return;
    }
    const spans = this.#looks.spansOf({ kind: "views", views, validity }, range.from, range.to);
    const rows = { from: range.from * VIEW_BYTES, to: range.to * VIEW_BYTES };
    this.#take(rows, 0, 0, { kind: "views", spans: spans ?? [] });
    this.#buffer += count;
    const there = (spans ?? []).filter(({ at }) => at < count); // what lies elsewhere, decoding refuses
    for (const { at, from, to } of there) this.#push(views + 1 + at, { from, to }, 0);
    if (!spans) this.#push(views, UNKNOWN, 0);
    this.variadicCounts.push(there.length);
  }

  #union(type: Union, range: Range): void {
    const isDense = type.mode === UnionMode.Dense;
    const [ids, offsets] = [this.#buffer, this.#buffer + 1];
    const idsPiece = this.pieces.length;
    this.#take(range, 0);
    if (!isDense) return this.#children(type, range);
    if (!range || !this.isWanted) {
      this.#take(null, 0);
      return this.#children(type, null);
    }
    const typeIds = [...type.typeIds];
    const spans = this.#looks.spansOf({ kind: "union", ids, offsets, typeIds }, range.from, range.to);
    const moved: Moved = { kind: "union", ids: idsPiece, spans: spans ?? [], typeIds };
    this.#take({ from: range.from * 4, to: range.to * 4 }, 0, 0, moved);
    for (const [at, child] of (type.children as Field[]).entries()) {
      const span = spans ? (spans.find((found) => found.at === at) ?? NOTHING) : UNKNOWN;
      this.visit(child.type as DataType, span);
    }
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
    return { from: this.#looks.offsetAt(buffer, range.from, width), to: this.#looks.offsetAt(buffer, range.to, width) };
  }

  /** The next buffer, or bytes of it. */
  #take(bytes: Range, offsetWidth: 0 | 4 | 8, shift = 0, moved: Moved | null = null): void {
    const buffer = this.#buffer++;
    if (this.isWanted) this.#push(buffer, bytes, bytes === null ? 0 : offsetWidth, shift, moved);
  }

  #push(buffer: number, bytes: Range, offsetWidth: 0 | 4 | 8, shift = 0, moved: Moved | null = null): void {
    const region: BufferRegion = this.#table.layout.buffers[buffer] ?? { offset: 0, length: 0 };
    // What offsets point at may lie outside a hostile buffer: then the slice ends with it, and decoding refuses it.
    const from = bytes ? Math.min(Math.max(0, bytes.from), region.length) : 0;
    const to = bytes ? Math.min(Math.max(from, bytes.to), region.length) : region.length;
    // NaN where an offset is not known yet
    this.pieces.push({ from: region.offset + from, to: region.offset + to, shift, offsetWidth, moved });
  }
}
