/**
 * Owns stored values as plain typed arrays: what has none (half floats, bits, 64-bit integers, times, decimals, texts) is converted
 * once a segment, since each of its rows is delivered once an epoch.
 */
import { type Data, DataType, type Vector } from "apache-arrow";
import { vocabularyTable } from "../../shards/decode.ts";
import type { ColumnPlan } from "./column-plan.ts";
import { fromTimes } from "./time.ts";

export type NumberArray =
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | Float32Array
  | Float64Array;

/** Stored values as numbers a typed array holds; class indices for texts with a vocabulary, −1 where it lacks one. */
export function valuesOf(
  plan: ColumnPlan,
  data: Data,
  count: number,
  textOf: ((row: number) => string) | null,
): NumberArray {
  if (DataType.isDictionary(data.type) && plan.kind !== "dictionary" && plan.kind !== "text") {
    return fromValues(plan, data, count);
  }
  switch (plan.kind) {
    case "time":
      return fromTimes(plan, data, count);
    case "decimal":
      return fromDecimals(plan, data, count);
    case "hash":
      return fromHashes(plan, data, count);
    case "text":
    case "image":
      return new Uint8Array(0); // not numbers: gathered by `textOf` and `bytesOf`
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

/** 128-bit integers as four words each: what a decimal is before its scale. The nearest double is near enough for a float32. */
function fromDecimals({ parameter: scale }: ColumnPlan, data: Data, count: number): Float64Array {
  const words = data.values as unknown as Uint32Array;
  const stride = words.length / Math.max(1, data.length);
  const out = new Float64Array(Math.min(count, data.length));
  for (let row = 0; row < out.length; row++) {
    let value = 0n;
    for (let w = stride - 1; w >= 0; w--) value = (value << 32n) | BigInt(words[row * stride + w] as number);
    out[row] = Number(BigInt.asIntN(stride * 32, value)) / 10 ** scale;
  }
  return out;
}

/** MurmurHash3's finalizer over both words, as in the permutation of `sp-order/1`: the same bucket on every machine. */
function fromHashes({ parameter: buckets }: ColumnPlan, data: Data, count: number): Float64Array {
  const { buffer, byteOffset, length } = data.values as BigInt64Array;
  const words = new Uint32Array(buffer, byteOffset, length * 2);
  const out = new Float64Array(Math.min(count, length));
  for (let i = 0; i < out.length; i++) {
    const mixed = fmix32((words[2 * i] as number) ^ fmix32(words[2 * i + 1] as number));
    out[i] = Math.floor((mixed * buckets) / 2 ** 32);
  }
  return out;
}

function fmix32(word: number): number {
  let h = word >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85eb_ca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2_ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

type Reader = (row: number) => string;

/** Numbers behind a dictionary: each is converted once. */
function fromValues(plan: ColumnPlan, data: Data, count: number): NumberArray {
  const dictionary = data.dictionary?.data[0];
  const values = dictionary ? valuesOf(plan, dictionary, dictionary.length, null) : new Float64Array(0);
  const indices = data.values as NumberArray;
  const length = Math.min(count, indices.length);
  const out = new (values.constructor as new (length: number) => NumberArray)(length);
  for (let i = 0; i < length; i++) out[i] = values[Number(indices[i])] ?? 0; // a null slot may point nowhere
  return out;
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
