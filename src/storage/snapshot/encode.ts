/**
 * Owns rows → Arrow IPC stream of one snapshot table: a schema message, batches, an end mark.
 *
 * Where a batch ends follows from the rows alone, so every store writes the same bytes for the same rows.
 */
import { type Data, makeData, RecordBatch, RecordBatchStreamWriter, Struct } from "apache-arrow";
import { fromHex } from "../../model/bytes.ts";
import { invariant } from "../../model/errors.ts";
import { canonicalJson } from "../../model/json.ts";
import type { Column, ColumnType, SnapshotTable } from "./tables.ts";

/** A batch is full with so many rows, or once its values take so many bytes. */
export const BATCH_ROWS_MAX = 8_192;
export const BATCH_BYTES_MAX = 4 * 1024 * 1024;

const END_BYTES = 8;

export interface TableEncoder {
  /** The schema message: what the stream starts with. */
  readonly head: Uint8Array;
  /** Takes a row; the bytes of a batch once one is full. */
  add(row: object): Uint8Array | null;
  /** The last batch, if any, and the end mark. */
  finish(): Uint8Array;
}

export function createTableEncoder({ name, columns, schema }: SnapshotTable): TableEncoder {
  const type = new Struct(schema.fields);
  const empty = streamOf(null);
  const head = empty.subarray(0, empty.byteLength - END_BYTES);
  const end = empty.subarray(empty.byteLength - END_BYTES);
  let builders = columns.map(createBuilder);
  let rows = 0;
  let bytes = 0;

  function streamOf(batch: RecordBatch | null): Uint8Array {
    const writer = new RecordBatchStreamWriter();
    writer.reset(undefined, schema);
    if (batch) writer.write(batch);
    writer.finish();
    return writer.toUint8Array(true);
  }

  function flush(): Uint8Array {
    const children = builders.map((builder, i) => builder.finish(schema.fields[i]?.type));
    const data = makeData({ type, length: rows, nullCount: 0, children });
    const stream = streamOf(new RecordBatch(schema, data));
    builders = columns.map(createBuilder);
    rows = 0;
    bytes = 0;
    return stream.subarray(head.byteLength, stream.byteLength - END_BYTES);
  }

  return {
    head,
    add(row) {
      for (let i = 0; i < columns.length; i += 1) {
        const { field, nullable } = columns[i] as Column;
        const value = (row as Readonly<Record<string, unknown>>)[field];
        invariant(value !== undefined && (nullable || value !== null), `a row of ${name} has its ${field}`);
        bytes += (builders[i] as Builder).add(value);
      }
      rows += 1;
      return rows >= BATCH_ROWS_MAX || bytes >= BATCH_BYTES_MAX ? flush() : null;
    },
    finish: () => (rows === 0 ? end : Buffer.concat([flush(), end])),
  };
}

interface Builder {
  /** Returns how many bytes the value takes. */
  add(value: unknown): number;
  finish(type: unknown): Data;
}

const HASH_BYTES = 32;

function createBuilder({ type }: Column): Builder {
  const nulls = createNulls();
  if (type === "int") return createInts(nulls);
  const fixed = type === "digest" || type === "hash";
  const offsets: number[] = [0];
  let buffer = Buffer.allocUnsafeSlow(16 * 1024);
  let at = 0;
  const room = (size: number): void => {
    if (at + size <= buffer.byteLength) return;
    const larger = Buffer.allocUnsafeSlow(Math.max(2 * buffer.byteLength, at + size));
    buffer.copy(larger, 0, 0, at);
    buffer = larger;
  };
  return {
    add(value) {
      const before = at;
      nulls.add(value === null);
      if (value === null) {
        if (fixed) {
          room(HASH_BYTES);
          buffer.fill(0, at, (at += HASH_BYTES));
        }
      } else if (type === "text" || type === "json") {
        const text = type === "json" ? canonicalJson(value) : String(value);
        room(3 * text.length);
        at += buffer.write(text, at, "utf8");
      } else {
        const bytes = bytesOf(type, value);
        room(bytes.byteLength);
        buffer.set(bytes, at);
        at += bytes.byteLength;
      }
      offsets.push(at);
      return at - before + 4;
    },
    finish(arrowType) {
      const data = buffer.subarray(0, at);
      const bounds = fixed ? {} : { valueOffsets: Int32Array.from(offsets) };
      return makeData({ type: arrowType as never, ...nulls.finish(), ...bounds, data: data as never });
    },
  };
}

function createInts(nulls: ReturnType<typeof createNulls>): Builder {
  const values: number[] = [];
  return {
    add(value) {
      nulls.add(value === null);
      values.push((value as number | null) ?? 0);
      return 8;
    },
    finish(type) {
      const data = new BigInt64Array(values.length);
      for (let i = 0; i < values.length; i += 1) data[i] = BigInt(values[i] as number);
      return makeData({ type: type as never, ...nulls.finish(), data: data as never });
    },
  };
}

function createNulls() {
  const nulls: number[] = [];
  let length = 0;
  return {
    add(isNull: boolean): void {
      if (isNull) nulls.push(length);
      length += 1;
    },
    finish() {
      if (nulls.length === 0) return { length, nullCount: 0 };
      const nullBitmap = new Uint8Array((length + 7) >> 3).fill(0xff);
      // Bits past the end are zero: they are bytes of the file too.
      for (let i = length; i < nullBitmap.length * 8; i += 1) clearBit(nullBitmap, i);
      for (const i of nulls) clearBit(nullBitmap, i);
      return { length, nullCount: nulls.length, nullBitmap };
    },
  };
}

function clearBit(bits: Uint8Array, i: number): void {
  bits[i >> 3] = (bits[i >> 3] as number) & ~(1 << (i & 7));
}

function bytesOf(type: Exclude<ColumnType, "int" | "text" | "json">, value: unknown): Uint8Array {
  switch (type) {
    case "bytes":
      return value as Uint8Array;
    case "hash":
      return fromHex(value as string);
    case "digest":
      return fromHex((value as string).slice(3));
    case "digests":
      return fromHex((value as readonly string[]).map((digest) => digest.slice(3)).join(""));
  }
}
