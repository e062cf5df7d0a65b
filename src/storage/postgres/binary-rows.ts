/**
 * Owns the bytes of an array of rows as Postgres receives it:
 *
 *   array: i32 dimensions = 1 · i32 has nulls = 0 · u32 type of a row · i32 rows · i32 first index = 1 · rows
 *   row:   i32 size · i32 columns · columns
 *   column: u32 type · i32 size (−1: null) · value
 * Integers are big-endian. A type is known by its number, which is fixed for the types that come with Postgres.
 */
import { invariant } from "../../model/errors.ts";

/** How a value of ours becomes a column's: by the column's type. */
const KINDS = { bool: 16, bytea: 17, int8: 20, int4: 23, text: 25, json: 114 } as const;
export type ColumnKind = keyof typeof KINDS;

export interface RowType {
  /** Number of the row type in one database. */
  readonly oid: number;
  /** In the order of the table; a field that a row does not have is null. */
  readonly columns: readonly { readonly field: string; readonly kind: ColumnKind }[];
}

const BY_TYPE = new Map(Object.entries(KINDS).map(([kind, type]) => [type as number, kind as ColumnKind]));

export function columnKind(type: number): ColumnKind {
  const kind = BY_TYPE.get(type);
  invariant(kind, `columns of type ${type} are not written in the binary format`);
  return kind;
}

const SIZE_FIRST = 64 * 1024;
/** A larger buffer, made for large payloads, is not kept. */
const SIZE_KEPT = 4 * 1024 * 1024;
const U32 = 2 ** 32;
/** UTF-8 takes at most three bytes for each unit of UTF-16. */
const UTF8_BYTES_MAX = 3;

let buffer = Buffer.allocUnsafeSlow(SIZE_FIRST);
let at = 0;

/** The array as bytes of its own. */
export function encodeRows({ oid, columns }: RowType, rows: readonly object[]): Buffer {
  at = 0;
  for (const head of [1, 0, oid, rows.length, 1]) u32(head);
  for (const row of rows) {
    const start = skipSize();
    u32(columns.length);
    for (const { field, kind } of columns) {
      u32(KINDS[kind]);
      column(kind, (row as Readonly<Record<string, unknown>>)[field]);
    }
    putSize(start);
  }
  const out = Buffer.from(buffer.subarray(0, at));
  if (buffer.byteLength > SIZE_KEPT) buffer = Buffer.allocUnsafeSlow(SIZE_FIRST);
  return out;
}

function column(kind: ColumnKind, value: unknown): void {
  if (value === null || value === undefined) return u32(U32 - 1);
  const start = skipSize();
  switch (kind) {
    case "text":
      text(value as string);
      break;
    case "int8":
      u32(Math.floor((value as number) / U32));
      u32(value as number);
      break;
    case "bytea":
      bytes(value);
      break;
    case "json":
      text(JSON.stringify(value));
      break;
    case "int4":
      u32(value as number);
      break;
    case "bool":
      room(1);
      buffer[at++] = value === true ? 1 : 0;
  }
  putSize(start);
}

/** Bytes, or what stands for them in a row: a digest, digests, a hash in hex. */
function bytes(value: unknown): void {
  if (typeof value === "string") return hex(value);
  if (Array.isArray(value)) {
    for (const digest of value as readonly string[]) hex(digest);
    return;
  }
  const plain = value as Uint8Array;
  room(plain.byteLength);
  buffer.set(plain, at);
  at += plain.byteLength;
}

function hex(value: string): void {
  const digits = value.startsWith("b3:") ? value.slice(3) : value;
  room(digits.length / 2);
  at += buffer.write(digits, at, "hex");
}

function text(value: string): void {
  room(value.length * UTF8_BYTES_MAX);
  at += buffer.write(value, at, "utf8");
}

/** Any 32 bits: what is negative wraps, as integers of Postgres do. */
function u32(value: number): void {
  room(4);
  const bits = value | 0;
  buffer[at++] = bits >>> 24;
  buffer[at++] = (bits >>> 16) & 0xff;
  buffer[at++] = (bits >>> 8) & 0xff;
  buffer[at++] = bits & 0xff;
}

function skipSize(): number {
  room(4);
  at += 4;
  return at;
}

function putSize(start: number): void {
  buffer.writeInt32BE(at - start, start - 4);
}

function room(size: number): void {
  if (at + size <= buffer.byteLength) return;
  const larger = Buffer.allocUnsafeSlow(Math.max(2 * buffer.byteLength, at + size));
  buffer.copy(larger, 0, 0, at);
  buffer = larger;
}
