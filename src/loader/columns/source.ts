/**
 * Owns the view of one column in one decoded segment: plain typed arrays that rows are gathered from, or readers of texts and bytes.
 */
import { type Data, DataType, type RecordBatch } from "apache-arrow";
import type { ColumnPlan } from "./column-plan.ts";
import { bytesReader, textReader } from "../../shards/texts.ts";
import { classUnknown, itemIsNull, malformed, tooLong } from "./refusals.ts";
import { bitAt, type NumberArray, valuesOf } from "./stored-values.ts";

/** A validity bitmap over `per` elements a row. */
export interface Validity {
  readonly bits: Uint8Array;
  readonly offset: number;
  readonly per: number;
  /** Of the items of lists of a fixed size: a null there is no null row. */
  readonly isOfItems: boolean;
}

export interface ColumnSource {
  /** `sourceWidth` elements a row; class indices for strings, −1 where the vocabulary lacks the string. */
  readonly values: NumberArray;
  /** Empty when there are no nulls. */
  readonly validity: readonly Validity[];
  /** The string of a row: of a text column, or for messages about classes. */
  readonly textOf: ((row: number) => string) | null;
  /** Encoded bytes of a row, a view. */
  readonly bytesOf: ((row: number) => Uint8Array) | null;
  /** Of a list that was filled up: 1 where there is an item. */
  readonly present: Uint8Array | null;
}

/** @throws ShardpactError `shard_malformed` when the column is shorter than the batch says, `shape_differs` (a list is too long) */
export function bindColumn(plan: ColumnPlan, batch: RecordBatch): ColumnSource {
  const rows = batch.numRows;
  const validity: Validity[] = [];
  let data: Data = batch.data;
  for (const ordinal of plan.path) {
    data = childOf(plan, data, ordinal);
    addValidity(validity, data, 1, false);
  }
  if (plan.pad) return bindPadded(plan, plan.pad, data, rows, validity);
  let per = 1;
  while (DataType.isFixedSizeList(data.type)) {
    per *= data.type.listSize;
    data = childOf(plan, data, 0);
    addValidity(validity, data, per, true);
  }
  addDictionaryValidity(validity, data, rows * per, per);
  const none = { values: new Uint8Array(0), validity, textOf: null, bytesOf: null, present: null };
  if (plan.kind === "text" || plan.kind === "image") {
    if (data.length < rows) throw malformed(plan, data.length, rows);
    return plan.kind === "text"
      ? { ...none, textOf: textReader(plan.name, data) }
      : { ...none, bytesOf: bytesReader(data) };
  }
  const count = rows * plan.sourceWidth;
  const length = data.length * (DataType.isFixedSizeBinary(data.type) ? data.type.byteWidth : 1);
  if (length < count) throw malformed(plan, length, count);
  const textOf = plan.kind === "string" || plan.kind === "dictionary" ? textReader(plan.name, data) : null;
  const values = permuted(plan, valuesOf(plan, data, count, textOf), rows);
  if (values.length < count) throw malformed(plan, values.length, count);
  return { ...none, values, textOf };
}

/**
 * Rows of lists of any length, each filled up. @throws ShardpactError `shape_differs` (one is longer), `null_found` (an item)
 */
function bindPadded(
  plan: ColumnPlan,
  { length, value, truncate }: NonNullable<ColumnPlan["pad"]>,
  data: Data,
  rows: number,
  validity: readonly Validity[],
): ColumnSource {
  const child = childOf(plan, data, 0);
  const offsets = data.valueOffsets as ArrayLike<number | bigint>;
  const count = Number(offsets[rows] ?? 0);
  if (data.length < rows || child.length < count) throw malformed(plan, child.length, count);
  const isClass = plan.kind === "string" || plan.kind === "dictionary";
  const textOf = isClass ? textReader(plan.name, child) : null;
  const items = valuesOf(plan, child, count, textOf);
  const itemNulls: Validity[] = [];
  addValidity(itemNulls, child, 1, true);
  addDictionaryValidity(itemNulls, child, count, 1);
  const values = items instanceof Float32Array ? new Float32Array(rows * length) : new Float64Array(rows * length);
  values.fill(value);
  const present = new Uint8Array(rows * length);
  for (let row = 0; row < rows; row++) {
    if (!isValid(validity, row)) continue; // whatever lies there is nobody's value
    const from = Number(offsets[row]);
    const found = Number(offsets[row + 1]) - from;
    if (found > length && !truncate) throw tooLong(plan, row, found, length);
    for (let i = 0; i < Math.min(found, length); i++) {
      if (!isValid(itemNulls, from + i)) throw itemIsNull(plan, row, i);
      const item = items[from + i] as number;
      if (textOf && item < 0) throw classUnknown(plan, textOf(from + i), { row });
      values[row * length + i] = item;
      present[row * length + i] = 1;
    }
  }
  return { values, validity, textOf: null, bytesOf: null, present };
}

function isValid(validity: readonly Validity[], at: number): boolean {
  return validity.every(({ bits, offset }) => bitAt(bits, offset + at) === 1);
}

/** The stored elements of each row in row-major order. */
function permuted({ permutation }: ColumnPlan, values: NumberArray, rows: number): NumberArray {
  if (permutation === null) return values;
  const width = permutation.length;
  const out = new (values.constructor as new (length: number) => NumberArray)(rows * width);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < width; i++) out[row * width + i] = values[row * width + (permutation[i] as number)] as number;
  }
  return out;
}

function childOf(plan: ColumnPlan, data: Data, ordinal: number): Data {
  const child = data.children[ordinal];
  if (!child) throw malformed(plan, data.children.length, ordinal + 1);
  return child;
}

function addValidity(out: Validity[], data: Data, per: number, isOfItems: boolean): void {
  if (data.nullCount > 0 && data.nullBitmap.byteLength > 0) {
    out.push({ bits: data.nullBitmap, offset: data.offset, per, isOfItems });
  }
}

/** A dictionary may hold a null: then rows that point at it are null. */
function addDictionaryValidity(out: Validity[], data: Data, count: number, per: number): void {
  const dictionary = DataType.isDictionary(data.type) ? data.dictionary?.data[0] : undefined;
  if (!dictionary || dictionary.nullCount === 0) return;
  const indices = data.values as ArrayLike<number | bigint>;
  const bits = new Uint8Array(Math.ceil(count / 8));
  for (let i = 0; i < count; i++) {
    const at = Number(indices[i]);
    if (at >= dictionary.length || dictionary.getValid(at)) bits[i >> 3] = (bits[i >> 3] as number) | (1 << (i & 7));
  }
  out.push({ bits, offset: 0, per, isOfItems: per > 1 });
}
