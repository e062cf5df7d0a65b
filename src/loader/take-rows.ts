/**
 * Owns picking rows of an Arrow record batch, for selections whose rows do not lie next to each other. arrow-js has no such
 * function. The result lies in memory of its own, but for what views and dense unions point at, which stays where it is.
 */
import { BinaryView, Data, DataType, makeData, RecordBatch, Struct, type Union, UnionMode } from "apache-arrow";
import { concatBytes } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { bitAt } from "./columns/stored-values.ts";

/** Positions [from, to) of a column's values. */
type Span = readonly [from: number, to: number];

/** Positions to pick, in their order, and how many they are. Spans, since lists of millions of values may be picked. */
interface Picks {
  readonly spans: readonly Span[];
  readonly count: number;
}

/** The rows of `batch` at these positions, in this order. */
export function takeRows(batch: RecordBatch, rows: readonly number[]): RecordBatch {
  const picks = { spans: spansOf(rows), count: rows.length };
  const children = batch.data.children.map((child) => take(child, picks));
  return new RecordBatch(
    batch.schema,
    makeData({ type: new Struct(batch.schema.fields), length: rows.length, children }),
  );
}

function spansOf(rows: readonly number[]): readonly Span[] {
  const spans: [number, number][] = [];
  for (const row of rows) {
    const last = spans.at(-1);
    if (last?.[1] === row) last[1] += 1;
    else spans.push([row, row + 1]);
  }
  return spans;
}

function take(data: Data, picks: Picks): Data {
  const { type } = data;
  if (DataType.isUnion(type)) return takeUnion(data, picks);
  const { spans, count } = picks;
  const nullBitmap = data.nullCount > 0 ? takeBits(data.nullBitmap, data.offset, picks) : undefined;
  const nullCount = nullBitmap ? countZeros(nullBitmap, count) : 0;
  const made = (values?: unknown, offsets?: Offsets, children: Data[] = []): Data => {
    const buffers = [offsets, values, nullBitmap] as never;
    return new Data(type, 0, count, nullCount, buffers, children, data.dictionary);
  };
  if (DataType.isNull(type)) return new Data(type, 0, count, count);
  if (DataType.isBool(type)) return made(takeBits(data.values as Uint8Array, data.offset, picks));
  if (DataType.isFixedSizeList(type)) {
    const size = type.listSize;
    const items = { spans: spans.map(([from, to]): Span => [from * size, to * size]), count: count * size };
    return made(undefined, undefined, [take(childOf(data), items)]);
  }
  if (DataType.isStruct(type))
    return made(
      undefined,
      undefined,
      data.children.map((child) => take(child, picks)),
    );
  if (DataType.isList(type) || DataType.isMap(type)) {
    const { offsets, items } = takeOffsets(data, picks);
    return made(undefined, offsets, [take(childOf(data), items)]);
  }
  const hasText = DataType.isUtf8(type) || DataType.isBinary(type);
  if (hasText || DataType.isLargeUtf8(type) || DataType.isLargeBinary(type)) {
    const { offsets, items } = takeOffsets(data, picks);
    return made(concatBytes(items.spans.map(([from, to]) => (data.values as Uint8Array).subarray(from, to))), offsets);
  }
  if (DataType.isUtf8View(type) || DataType.isBinaryView(type)) {
    const views = takeFixed(data.values as unknown as Values, BinaryView.ELEMENT_WIDTH, picks);
    return new Data(
      type,
      0,
      count,
      nullCount,
      [undefined, views, nullBitmap] as never,
      [],
      undefined,
      data.variadicBuffers,
    );
  }
  if (!ArrayBuffer.isView(data.values) || data.children.length > 0) {
    throw new ShardpactError("type_unsupported", `rows of a column of type ${String(type)} cannot be picked`, {
      hint: "Choose other columns, or read the whole dataset.",
    });
  }
  return made(takeFixed(data.values as unknown as Values, data.stride, picks));
}

/** Rows of a dense one point into children that stay as they are; a sparse one has a row in each child. */
function takeUnion(data: Data, picks: Picks): Data {
  const ids = takeFixed(data.typeIds as unknown as Values, 1, picks);
  const isDense = (data.type as Union).mode === UnionMode.Dense;
  const offsets = isDense ? takeFixed(data.valueOffsets as unknown as Values, 1, picks) : undefined;
  const children = isDense ? data.children : data.children.map((child) => take(child, picks));
  return new Data(data.type, 0, picks.count, 0, [offsets, undefined, undefined, ids] as never, children);
}

type Values = Int32Array; // or any other typed array: only same-typed copies are made of it
type Offsets = Int32Array | BigInt64Array;

function childOf(data: Data): Data {
  const child = data.children[0];
  if (!child) throw new ShardpactError("shard_malformed", `a column of type ${String(data.type)} has no values`);
  return child;
}

function takeFixed(values: Values, stride: number, { spans, count }: Picks): Values {
  const out = new (values.constructor as Int32ArrayConstructor)(count * stride);
  let at = 0;
  for (const [from, to] of spans) {
    out.set(values.subarray(from * stride, to * stride), at);
    at += (to - from) * stride;
  }
  return out;
}

function takeBits(bits: Uint8Array, offset: number, { spans, count }: Picks): Uint8Array {
  const out = new Uint8Array(Math.ceil(count / 64) * 8);
  let i = 0;
  for (const [from, to] of spans) {
    for (let at = from; at < to; at++, i++) {
      if (bitAt(bits, offset + at) === 1) out[i >>> 3] = (out[i >>> 3] as number) | (1 << (i & 7));
    }
  }
  return out;
}

function countZeros(bits: Uint8Array, count: number): number {
  let zeros = 0;
  for (let i = 0; i < count; i++) zeros += 1 - bitAt(bits, i);
  return zeros;
}

/** Offsets of the picked rows from 0 on, and where their values lie. */
function takeOffsets(data: Data, { spans, count }: Picks): { readonly offsets: Offsets; readonly items: Picks } {
  const given = data.valueOffsets as unknown as Offsets;
  const ends = new Float64Array(count + 1);
  let row = 0;
  let end = 0;
  for (const [from, to] of spans) {
    for (let at = from; at < to; at++) ends[++row] = end += Number(given[at + 1]) - Number(given[at]);
  }
  const offsets = given instanceof BigInt64Array ? BigInt64Array.from(ends, BigInt) : Int32Array.from(ends);
  const items = spans.map(([from, to]): Span => [Number(given[from]), Number(given[to])]);
  return { offsets, items: { spans: items, count: end } };
}
