/**
 * Owns the copy of rows from verified segments into the arrays of a batch.
 *
 * Rows never become objects: a batch is a list of runs (source, first row, rows), and each column copies run by run. A
 * scalar loop is faster than `TypedArray.set` up to about 64 elements (measured: 8 elements 20 against 80 ns, 32 elements
 * 170 against 235, 64 elements equal, but without a view to collect for each row), `set` above.
 */
import type { BatchMemory } from "../batch-memory.ts";
import type { RowCopier } from "./copy-rows.ts";
import type { ColumnPlan } from "./column-plan.ts";
import { classUnknown, nullFound, nullInside, outOfRange, type WhereIs } from "./refusals.ts";
import type { ColumnSource } from "./source.ts";
import type { Runs } from "./runs.ts";
import { bitAt, type NumberArray } from "./stored-values.ts";

export type BatchArray = Float32Array | Int32Array | Uint8Array;

const SCALAR_ELEMENTS_MAX = 64;
/** Rows of fewer are copied as fast by a loop here. */
const COPIED_ELEMENTS_MIN = 16;
/** Of a cache line of 64 bytes. */
const LINE_FLOATS = 16;
/** From here on a finite double rounds to infinity in float32: 2¹²⁸ − 2¹⁰³. */
const FLOAT32_OVERFLOW = 2 ** 128 - 2 ** 103;
/** Integers up to here are exact in float32. */
const FLOAT32_INTEGER_MAX = 2 ** 24;

/** What columns are gathered with. */
export interface GatherTools {
  readonly memory: BatchMemory;
  readonly copier: RowCopier | null;
}

/** One column of one batch while it is gathered. */
interface Gathering {
  readonly plan: ColumnPlan;
  readonly sources: readonly ColumnSource[];
  readonly where: WhereIs;
  readonly out: BatchArray;
}

/**
 * One column of a batch: `plan.width` elements a row, in an array of its own memory. `mask` (1 where there is a
 * value) is filled when given.
 * @throws ShardpactError `null_found`, `value_out_of_range`, `class_unknown`, naming column, shard, segment and row
 */
export function gatherColumn(
  plan: ColumnPlan,
  sources: readonly ColumnSource[],
  runs: Runs,
  where: WhereIs,
  mask: Float32Array | null,
  { memory, copier }: GatherTools,
): BatchArray {
  const out = allocate(plan, runs.rows * plan.width, memory);
  if (plan.copies && plan.width >= COPIED_ELEMENTS_MIN && copier?.reaches(sources)) {
    copier.copy(sources, runs, plan.width, out as Float32Array);
    return out;
  }
  const gathering: Gathering = { plan, sources, where, out };
  if (plan.copies && runs.count > 1) fetchAhead(plan, sources, runs);
  const put = plan.copies ? putCopy : plan.oneHot === null ? putConverted : putOneHot;
  let at = 0;
  for (let r = 0; r < runs.count; r++) {
    const source = runs.source[r] as number;
    const first = runs.first[r] as number;
    const length = runs.length[r] as number;
    if ((sources[source] as ColumnSource).validity.length === 0) put(gathering, source, first, length, at);
    else {
      for (let row = first; row < first + length; row++) {
        const to = at + row - first;
        if (isNull(gathering, source, row)) putNull(gathering, source, row, to, mask);
        else put(gathering, source, row, 1, to);
      }
    }
    at += length;
  }
  return out;
}

/** What was read ahead: kept, so that the reading is not taken for useless. */
let _readAhead = 0;

/**
 * Reads one value of every cache line that the runs will be copied from. Rows lie far apart in hundreds of megabytes: a copy
 * waits for each of them, one after the other, while single reads wait for many at once.
 */
function fetchAhead(
  { width }: ColumnPlan,
  sources: readonly ColumnSource[],
  { count, source, first, length }: Runs,
): void {
  let sum = 0;
  for (let r = 0; r < count; r++) {
    const { values } = sources[source[r] as number] as ColumnSource;
    const from = (first[r] as number) * width;
    const end = from + (length[r] as number) * width;
    for (let i = from; i < end; i += LINE_FLOATS) sum += values[i] as number;
  }
  _readAhead = sum;
}

/** Which items of filled-up lists are there: 1, else 0. */
export function gatherPresent(plan: ColumnPlan, sources: readonly ColumnSource[], runs: Runs): Float32Array {
  const out = new Float32Array(runs.rows * plan.width);
  let at = 0;
  for (let r = 0; r < runs.count; r++) {
    const from = (runs.first[r] as number) * plan.width;
    const count = (runs.length[r] as number) * plan.width;
    out.set(sources[runs.source[r] as number]?.present?.subarray(from, from + count) ?? [], at);
    at += count;
  }
  return out;
}

/** What `read` gives for each row; `nulls` of the plan for rows that are null. @throws ShardpactError `null_found` */
export function gatherRows<T>(
  plan: ColumnPlan,
  sources: readonly ColumnSource[],
  runs: Runs,
  where: WhereIs,
  read: (source: ColumnSource, row: number) => T,
): (T | null)[] {
  const out: (T | null)[] = [];
  const gathering: Gathering = { plan, sources, where, out: new Uint8Array(0) };
  for (let r = 0; r < runs.count; r++) {
    const source = runs.source[r] as number;
    const first = runs.first[r] as number;
    for (let row = first; row < first + (runs.length[r] as number); row++) {
      const isPresent = !isNull(gathering, source, row);
      if (!isPresent && plan.nulls === null) throw nullFound(plan, where(source, row));
      out.push(isPresent ? read(sources[source] as ColumnSource, row) : null);
    }
  }
  return out;
}

function allocate({ dtype, oneHot }: ColumnPlan, length: number, memory: BatchMemory): BatchArray {
  const OfType = dtype === "float32" ? Float32Array : dtype === "int32" ? Int32Array : Uint8Array;
  const out = new OfType(memory.take(length * OfType.BYTES_PER_ELEMENT));
  return oneHot === null ? out : out.fill(0); // the others write every element
}

/** Copies `length` rows of a source from its row `first` to row `at` of the batch. */
function putCopy({ plan, sources, out }: Gathering, source: number, first: number, length: number, at: number): void {
  const { values } = sources[source] as ColumnSource;
  const from = first * plan.width;
  const to = at * plan.width;
  const count = length * plan.width;
  if (count > SCALAR_ELEMENTS_MAX) out.set(values.subarray(from, from + count), to);
  else for (let i = 0; i < count; i++) out[to + i] = values[from + i] as number;
}

function putConverted(g: Gathering, source: number, first: number, length: number, at: number): void {
  const { plan, out } = g;
  const { values } = g.sources[source] as ColumnSource;
  if (plan.classes !== null && plan.pad === null) checkClasses(g, source, first, length);
  const from = first * plan.width;
  const to = at * plan.width;
  const count = length * plan.width;
  const bad = isExact(values, plan.dtype) ? -1 : firstOutOfRange(plan, values, from, from + count);
  if (bad !== -1) {
    const value = values[bad] as number;
    throw outOfRange(plan, value, `does not fit ${plan.dtype}`, g.where(source, Math.floor(bad / plan.width)));
  }
  for (let i = 0; i < count; i++) out[to + i] = values[from + i] as number;
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
  const isFloat = !plan.counts;
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

function putOneHot(g: Gathering, source: number, first: number, length: number, at: number): void {
  const { plan, out } = g;
  const { values } = g.sources[source] as ColumnSource;
  if (plan.classes !== null) checkClasses(g, source, first, length);
  const classes = plan.oneHot as number;
  for (let i = 0; i < length; i++) {
    const value = values[first + i] as number;
    if (!Number.isInteger(value) || value < 0 || value >= classes) {
      throw outOfRange(plan, value, `is not a class from 0 to ${classes - 1}`, g.where(source, first + i));
    }
    out[(at + i) * classes + value] = 1;
  }
}

function checkClasses(g: Gathering, source: number, first: number, length: number): void {
  const { values, textOf } = g.sources[source] as ColumnSource;
  const { sourceWidth } = g.plan;
  for (let at = first * sourceWidth; at < (first + length) * sourceWidth; at++) {
    if ((values[at] as number) >= 0) continue;
    throw classUnknown(g.plan, textOf?.(at) ?? "", g.where(source, Math.floor(at / sourceWidth)));
  }
}

/** True when the row is null. @throws `null_found` when only a part of the row is. */
function isNull(g: Gathering, source: number, row: number): boolean {
  for (const { bits, offset, per, isOfItems } of (g.sources[source] as ColumnSource).validity) {
    for (let i = row * per; i < (row + 1) * per; i++) {
      if (bitAt(bits, offset + i) === 1) continue;
      if (!isOfItems) return true;
      throw nullInside(g.plan, g.where(source, row));
    }
  }
  return false;
}

function putNull(g: Gathering, source: number, row: number, at: number, mask: Float32Array | null): void {
  const { plan, out } = g;
  if (plan.nulls === null) throw nullFound(plan, g.where(source, row));
  if (mask) mask[at] = 0;
  const value = plan.nulls === "nan" ? NaN : plan.nulls === "mask" ? 0 : plan.nulls;
  out.fill(value, at * plan.width, (at + 1) * plan.width);
}
