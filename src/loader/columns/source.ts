/**
 * Owns the view of one column in one decoded segment: plain typed arrays that rows are gathered from.
 *
 * Nothing here is copied unless the stored form has no typed array (half floats, bits, 64-bit integers, strings); those are
 * converted once a segment, since each of its rows is delivered once an epoch.
 */
import type { Data, RecordBatch, Vector } from "apache-arrow";
import { ShardpactError } from "../../model/errors.ts";
import { vocabularyTable } from "../../shards/decode.ts";
import type { ColumnPlan } from "./resolve.ts";

export type NumberArray =
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | Float32Array
  | Float64Array;

/** A validity bitmap over `per` elements a row. */
export interface Validity {
  readonly bits: Uint8Array;
  readonly offset: number;
  readonly per: number;
}

export interface ColumnSource {
  /** `sourceWidth` elements a row; class indices for strings, −1 where the vocabulary lacks the string. */
  readonly values: NumberArray;
  /** Empty when there are no nulls. */
  readonly validity: readonly Validity[];
  /** The string of a row, for messages about classes. */
  readonly textOf: ((row: number) => string) | null;
}

/** @throws ShardpactError `shard_malformed` when the column is shorter than the batch says */
export function bindColumn(plan: ColumnPlan, batch: RecordBatch): ColumnSource {
  const rows = batch.numRows;
  const validity: Validity[] = [];
  let data: Data = batch.data;
  for (const ordinal of plan.path) {
    data = childOf(plan, data, ordinal);
    addValidity(validity, data, 1);
  }
  let per = 1;
  for (const size of plan.lists) {
    per *= size;
    data = childOf(plan, data, 0);
    addValidity(validity, data, per);
  }
  const count = rows * plan.sourceWidth;
  if (data.length < count) throw malformed(plan, data.length, count);
  const textOf = plan.kind === "string" || plan.kind === "dictionary" ? textReader(data, plan) : null;
  const values = valuesOf(plan, data, count, textOf);
  if (values.length < count) throw malformed(plan, values.length, count);
  return { values, validity, textOf };
}

function childOf(plan: ColumnPlan, data: Data, ordinal: number): Data {
  const child = data.children[ordinal];
  if (!child) throw malformed(plan, data.children.length, ordinal + 1);
  return child;
}

function malformed(plan: ColumnPlan, found: number, expected: number): ShardpactError {
  return new ShardpactError("shard_malformed", `'${plan.name}' holds ${found} values where ${expected} are declared`, {
    details: { column: plan.name, found, expected },
  });
}

function addValidity(out: Validity[], data: Data, per: number): void {
  if (data.nullCount > 0 && data.nullBitmap.byteLength > 0) {
    out.push({ bits: data.nullBitmap, offset: data.offset, per });
  }
}

function valuesOf(plan: ColumnPlan, data: Data, count: number, textOf: ((row: number) => string) | null): NumberArray {
  switch (plan.kind) {
    case "number":
      return data.values as NumberArray;
    case "wide":
      return fromWide(data.values as BigInt64Array | BigUint64Array, count);
    case "half":
      return fromHalf(data.values as Uint16Array, count);
    case "bool":
      return fromBits(data.values as Uint8Array, data.offset, count);
    case "dictionary":
      return fromDictionary(plan, data, count);
    case "string":
      return fromStrings(plan, count, textOf as (row: number) => string);
  }
}

/** 64-bit integers as doubles: exact up to 2⁵³, and what lies beyond is refused later anyway. */
function fromWide(values: BigInt64Array | BigUint64Array, count: number): Float64Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length * 2);
  const high = values instanceof BigInt64Array ? new Int32Array(words.buffer, words.byteOffset, words.length) : words;
  const length = Math.min(count, values.length);
  const out = new Float64Array(length);
  for (let i = 0; i < length; i++) out[i] = (high[2 * i + 1] as number) * 2 ** 32 + (words[2 * i] as number);
  return out;
}

let halfTable: Float32Array | null = null;

function fromHalf(values: Uint16Array, count: number): Float32Array {
  halfTable ??= buildHalfTable();
  const out = new Float32Array(Math.min(count, values.length));
  for (let i = 0; i < out.length; i++) out[i] = halfTable[values[i] as number] as number;
  return out;
}

function buildHalfTable(): Float32Array {
  const table = new Float32Array(65_536);
  for (let bits = 0; bits < 65_536; bits++) {
    const exponent = (bits >>> 10) & 31;
    const fraction = bits & 1023;
    const size =
      exponent === 31
        ? fraction === 0
          ? Infinity
          : NaN
        : exponent === 0
          ? fraction * 2 ** -24
          : (1024 + fraction) * 2 ** (exponent - 25);
    table[bits] = bits >>> 15 === 1 ? -size : size;
  }
  return table;
}

function fromBits(bits: Uint8Array, offset: number, count: number): Uint8Array {
  const out = new Uint8Array(Math.min(count, bits.byteLength * 8 - offset));
  for (let i = 0; i < out.length; i++) out[i] = bitAt(bits, offset + i);
  return out;
}

export function bitAt(bits: Uint8Array, index: number): 0 | 1 {
  return (((bits[index >>> 3] as number) >>> (index & 7)) & 1) as 0 | 1;
}

type Reader = (row: number) => string;

function textReader(data: Data, plan: ColumnPlan): Reader {
  if (plan.kind === "dictionary") {
    const dictionary = data.dictionary;
    const indices = data.values as NumberArray;
    return (row) => String(dictionary?.get(Number(indices[row])) ?? "");
  }
  const bytes = data.values as Uint8Array;
  const offsets = data.valueOffsets as Int32Array | BigInt64Array;
  const decoder = new TextDecoder();
  return (row) => decoder.decode(bytes.subarray(Number(offsets[row]), Number(offsets[row + 1])));
}

/** Indices into the file's dictionary become indices into the agreed vocabulary. */
function fromDictionary(plan: ColumnPlan, data: Data, count: number): Int32Array {
  const table = data.dictionary ? tableOf(data.dictionary, plan.classes ?? []) : new Int32Array(0);
  const indices = data.values as NumberArray;
  const out = new Int32Array(Math.min(count, indices.length));
  for (let i = 0; i < out.length; i++) out[i] = table[Number(indices[i])] ?? -1;
  return out;
}

const tables = new WeakMap<Vector, { readonly classes: readonly string[]; readonly table: Int32Array }>();

/** The vocabulary table of a shard's dictionary, made once a shard. */
function tableOf(dictionary: Vector, classes: readonly string[]): Int32Array {
  const known = tables.get(dictionary);
  if (known?.classes === classes) return known.table;
  const table = vocabularyTable(dictionary, classes);
  tables.set(dictionary, { classes, table });
  return table;
}

function fromStrings(plan: ColumnPlan, count: number, textOf: Reader): Int32Array {
  const places = placesOf(plan);
  const out = new Int32Array(count);
  for (let row = 0; row < count; row++) out[row] = places.get(textOf(row)) ?? -1;
  return out;
}

const placesCache = new WeakMap<readonly string[], ReadonlyMap<string, number>>();

function placesOf(plan: ColumnPlan): ReadonlyMap<string, number> {
  const classes = plan.classes ?? [];
  let places = placesCache.get(classes);
  if (!places) placesCache.set(classes, (places = new Map(classes.map((text, i) => [text, i]))));
  return places;
}
