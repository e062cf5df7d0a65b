/**
 * Owns the copy of rows from verified segments into the fresh arrays of a batch.
 *
 * Rows never become objects: a batch is a list of runs (source, first row, rows), and each column copies run by run. Up to
 * 8 elements a scalar loop is faster than `TypedArray.set`, above that `set` is (measured; `docs/performance.md`).
 */
import { ShardpactError } from "../../model/errors.ts";
import type { ColumnPlan } from "./resolve.ts";
import { bitAt, type ColumnSource, type NumberArray } from "./source.ts";

/** Runs of rows, in the order of the batch. */
export interface Runs {
  readonly count: number;
  readonly rows: number;
  /** Per run: which source, its first row there, how many rows. */
  readonly source: Uint32Array;
  readonly first: Uint32Array;
  readonly length: Uint32Array;
}

export type BatchArray = Float32Array | Int32Array | Uint8Array;

/** Names a row for messages. */
export type WhereIs = (
  source: number,
  row: number,
) => { readonly shard: string; readonly segment: number; readonly row: number };

const SCALAR_WIDTH_MAX = 8;
/** From here on a finite double rounds to infinity in float32: 2¹²⁸ − 2¹⁰³. */
const FLOAT32_OVERFLOW = 2 ** 128 - 2 ** 103;
/** Integers up to here are exact in float32. */
const FLOAT32_INTEGER_MAX = 2 ** 24;

/**
 * One column of a batch: `plan.width` elements a row, in a fresh array. `mask` (1 where there is a value) is filled when given.
 * @throws ShardpactError `null_found`, `value_out_of_range`, `class_unknown`, naming column, shard, segment and row
 */
export function gatherColumn(
  plan: ColumnPlan,
  sources: readonly ColumnSource[],
  runs: Runs,
  where: WhereIs,
  mask: Float32Array | null,
): BatchArray {
  const out = allocate(plan, runs.rows * plan.width);
  const convert = plan.copies ? copyRun : plan.oneHot === null ? convertRun : markRun;
  let at = 0;
  for (let r = 0; r < runs.count; r++) {
    const source = sources[runs.source[r] as number] as ColumnSource;
    const first = runs.first[r] as number;
    const length = runs.length[r] as number;
    const locate =
      source.validity.length === 0 && plan.copies ? null : (row: number) => where(runs.source[r] as number, row);
    if (locate === null) copyRun(plan, source, first, length, out, at);
    else if (source.validity.length === 0) convert(plan, source, first, length, out, at, locate);
    else {
      for (let row = first; row < first + length; row++) {
        const to = at + row - first;
        if (isNull(plan, source, row, locate)) putNull(plan, out, to, locate(row), mask);
        else convert(plan, source, row, 1, out, to, locate);
      }
    }
    at += length;
  }
  return out;
}

function allocate(plan: ColumnPlan, length: number): BatchArray {
  if (plan.dtype === "float32") return new Float32Array(length);
  return plan.dtype === "int32" ? new Int32Array(length) : new Uint8Array(length);
}

type Locate = (row: number) => ReturnType<WhereIs>;

function copyRun(
  plan: ColumnPlan,
  source: ColumnSource,
  first: number,
  length: number,
  out: BatchArray,
  at: number,
): void {
  const { width } = plan;
  const values = source.values;
  if (width > SCALAR_WIDTH_MAX || length > SCALAR_WIDTH_MAX) {
    out.set(values.subarray(first * width, (first + length) * width), at * width);
    return;
  }
  const from = first * width;
  const to = at * width;
  for (let i = 0; i < length * width; i++) out[to + i] = values[from + i] as number;
}

function convertRun(
  plan: ColumnPlan,
  source: ColumnSource,
  first: number,
  length: number,
  out: BatchArray,
  at: number,
  locate: Locate,
): void {
  const { width } = plan;
  const { values } = source;
  if (plan.classes !== null) checkClasses(plan, source, first, length, locate);
  const bad = isExact(values, plan.dtype) ? -1 : firstOutOfRange(plan, values, first * width, (first + length) * width);
  if (bad !== -1) {
    const value = values[bad] as number;
    throw outOfRange(plan, value, `does not fit ${plan.dtype}`, locate(Math.floor(bad / width)));
  }
  const from = first * width;
  const to = at * width;
  for (let i = 0; i < length * width; i++) out[to + i] = values[from + i] as number;
}

/** True when every value of the source's type fits the result. */
function isExact(values: NumberArray, dtype: ColumnPlan["dtype"]): boolean {
  if (dtype === "bool") return false;
  if (dtype === "int32" && values instanceof Int32Array) return true;
  if (dtype === "float32" && values instanceof Float32Array) return true;
  return values.BYTES_PER_ELEMENT <= 2;
}

/** Position of the first value in [from, to) that would change, or −1. */
function firstOutOfRange(plan: ColumnPlan, values: NumberArray, from: number, to: number): number {
  const { dtype } = plan;
  const isFloat = plan.kind !== "wide" && (values instanceof Float32Array || values instanceof Float64Array);
  for (let i = from; i < to; i++) {
    const v = values[i] as number;
    const fits =
      dtype === "int32"
        ? v === (v | 0)
        : dtype === "bool"
          ? v === 0 || v === 1
          : isFloat
            ? Math.abs(v) < FLOAT32_OVERFLOW || !Number.isFinite(v)
            : Math.abs(v) <= FLOAT32_INTEGER_MAX;
    if (!fits) return i;
  }
  return -1;
}

function markRun(
  plan: ColumnPlan,
  source: ColumnSource,
  first: number,
  length: number,
  out: BatchArray,
  at: number,
  locate: Locate,
): void {
  if (plan.classes !== null) checkClasses(plan, source, first, length, locate);
  for (let i = 0; i < length; i++) {
    const value = source.values[first + i] as number;
    if (!Number.isInteger(value) || value < 0 || value >= plan.width) {
      throw outOfRange(plan, value, `is not a class from 0 to ${plan.width - 1}`, locate(first + i));
    }
    out[(at + i) * plan.width + value] = 1;
  }
}

function checkClasses(plan: ColumnPlan, source: ColumnSource, first: number, length: number, locate: Locate): void {
  for (let row = first; row < first + length; row++) {
    if ((source.values[row] as number) >= 0) continue;
    const text = source.textOf?.(row) ?? "";
    throw new ShardpactError("class_unknown", `'${text.slice(0, 80)}' is not in the vocabulary of '${plan.name}'`, {
      details: { column: plan.name, value: text.slice(0, 200), ...locate(row) },
    });
  }
}

function outOfRange(plan: ColumnPlan, value: number, why: string, place: ReturnType<WhereIs>): ShardpactError {
  return new ShardpactError(
    "value_out_of_range",
    `${value} in '${plan.name}' ${why} (shard ${place.shard}, segment ${place.segment}, row ${place.row})`,
    { details: { column: plan.name, value: String(value), ...place }, hint: "Choose another dtype, or mend the data." },
  );
}

/** True when the row is null. @throws `null_found` when only a part of the row is. */
function isNull(plan: ColumnPlan, source: ColumnSource, row: number, locate: Locate): boolean {
  for (const { bits, offset, per } of source.validity) {
    for (let i = row * per; i < (row + 1) * per; i++) {
      if (bitAt(bits, offset + i) === 1) continue;
      if (per === 1) return true;
      throw nullFound(plan, locate(row), "a null inside the list");
    }
  }
  return false;
}

function putNull(
  plan: ColumnPlan,
  out: BatchArray,
  at: number,
  place: ReturnType<WhereIs>,
  mask: Float32Array | null,
): void {
  if (plan.nulls === null || plan.nulls === undefined) throw nullFound(plan, place, "a null");
  if (mask) mask[at] = 0;
  const value = plan.nulls === "nan" ? NaN : plan.nulls === "mask" ? 0 : plan.nulls;
  out.fill(value, at * plan.width, (at + 1) * plan.width);
}

function nullFound(plan: ColumnPlan, place: ReturnType<WhereIs>, what: string): ShardpactError {
  return new ShardpactError(
    "null_found",
    `${what} in '${plan.name}' (shard ${place.shard}, segment ${place.segment}, row ${place.row})`,
    { details: { column: plan.name, ...place }, hint: "Pass nulls: a number, 'nan' or 'mask'." },
  );
}
