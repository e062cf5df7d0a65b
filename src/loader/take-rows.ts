/**
 * Owns picking rows of an Arrow record batch, for selections whose rows do not lie next to each other. arrow-js has no such
 * function. The result lies in memory of its own.
 */
import { Data, DataType, makeData, RecordBatch, Struct } from "apache-arrow";
import { concatBytes } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { bitAt } from "./columns/stored-values.ts";

/** The rows of `batch` at these positions, in this order. @throws ShardpactError `type_unsupported` for unions and views */
export function takeRows(batch: RecordBatch, rows: readonly number[]): RecordBatch {
  const children = batch.data.children.map((child) => take(child, rows));
  return new RecordBatch(
    batch.schema,
    makeData({ type: new Struct(batch.schema.fields), length: rows.length, children }),
  );
}

function take(data: Data, rows: readonly number[]): Data {
  const { type } = data;
  const nullBitmap = data.nullCount > 0 ? takeBits(data.nullBitmap, data.offset, rows) : undefined;
  const nullCount = nullBitmap ? rows.reduce((sum, _, i) => sum + 1 - bitAt(nullBitmap, i), 0) : 0;
  const made = (values?: unknown, offsets?: Offsets, children: Data[] = []): Data => {
    const buffers = [offsets, values, nullBitmap] as never;
    return new Data(type, 0, rows.length, nullCount, buffers, children, data.dictionary);
  };
  if (DataType.isNull(type)) return new Data(type, 0, rows.length, rows.length);
  if (DataType.isBool(type)) return made(takeBits(data.values as Uint8Array, data.offset, rows));
  if (DataType.isFixedSizeList(type)) {
    const size = type.listSize;
    return made(undefined, undefined, [
      take(
        childOf(data),
        rows.flatMap((row) => range(row * size, row * size + size)),
      ),
    ]);
  }
  if (DataType.isStruct(type))
    return made(
      undefined,
      undefined,
      data.children.map((child) => take(child, rows)),
    );
  if (DataType.isList(type) || DataType.isMap(type)) {
    const { offsets, spans } = takeOffsets(data, rows);
    return made(undefined, offsets, [
      take(
        childOf(data),
        spans.flatMap(([from, to]) => range(from, to)),
      ),
    ]);
  }
  const hasText = DataType.isUtf8(type) || DataType.isBinary(type);
  if (hasText || DataType.isLargeUtf8(type) || DataType.isLargeBinary(type)) {
    const { offsets, spans } = takeOffsets(data, rows);
    return made(concatBytes(spans.map(([from, to]) => (data.values as Uint8Array).subarray(from, to))), offsets);
  }
  if (!ArrayBuffer.isView(data.values) || data.children.length > 0 || data.variadicBuffers?.length) {
    throw new ShardpactError("type_unsupported", `rows of a column of type ${String(type)} cannot be picked`, {
      hint: "Choose other columns, or read the whole dataset.",
    });
  }
  return made(takeFixed(data.values as unknown as Values, data.stride, rows));
}

type Values = Int32Array; // or any other typed array: only same-typed copies are made of it
type Offsets = Int32Array | BigInt64Array;

function childOf(data: Data): Data {
  const child = data.children[0];
  if (!child) throw new ShardpactError("shard_malformed", `a column of type ${String(data.type)} has no values`);
  return child;
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}

function takeFixed(values: Values, stride: number, rows: readonly number[]): Values {
  const out = new (values.constructor as Int32ArrayConstructor)(rows.length * stride);
  rows.forEach((row, i) => out.set(values.subarray(row * stride, (row + 1) * stride), i * stride));
  return out;
}

function takeBits(bits: Uint8Array, offset: number, rows: readonly number[]): Uint8Array {
  const out = new Uint8Array(Math.ceil(rows.length / 64) * 8);
  rows.forEach((row, i) => {
    if (bitAt(bits, offset + row) === 1) out[i >>> 3] = (out[i >>> 3] as number) | (1 << (i & 7));
  });
  return out;
}

/** Offsets of the picked rows from 0 on, and where their values lie. */
function takeOffsets(data: Data, rows: readonly number[]): { offsets: Offsets; spans: (readonly [number, number])[] } {
  const given = data.valueOffsets as unknown as Offsets;
  const spans = rows.map((row) => [Number(given[row]), Number(given[row + 1])] as const);
  const ends = [0];
  for (const [from, to] of spans) ends.push((ends.at(-1) as number) + to - from);
  const offsets = given instanceof BigInt64Array ? BigInt64Array.from(ends, BigInt) : Int32Array.from(ends);
  return { offsets, spans };
}
