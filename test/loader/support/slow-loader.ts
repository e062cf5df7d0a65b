/**
 * What a loader must deliver, told from the files alone: rows read by arrow-js, put in the order of the slow reference, each
 * converted on its own.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { tableFromIPC } from "apache-arrow";
import type { ColumnArray, ColumnArrays, Columns } from "../../../src/loader/batch.ts";
import type { LoaderPlan } from "../../../src/loader/plan.ts";
import { hashAs, hashBytes } from "../../../src/merkle/hash.ts";
import {
  concatBytes,
  formatDigest,
  parseDigest,
  toHex,
  u32le,
  u64le,
  utf8,
  type Digest,
} from "../../../src/model/bytes.ts";
import { canonicalJson } from "../../../src/model/commands.ts";
import { cellsOf, type Cell } from "./arrow-data.ts";
import { Refused, slowRow, type SlowColumn } from "./slow-columns.ts";
import { slowOrder, slowSlice } from "./slow-order.ts";
import { slowSplits } from "./slow-splits.ts";
import type { TestVersion } from "./version.ts";

/** A column of a loader, and its cells in the order of the selection. */
export interface WantedColumn {
  readonly slow: SlowColumn;
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly cells: readonly Cell[];
}

/** The cells of columns in each split, in manifest order: that of whole files, or of rows where splits are positional. */
export async function readSplits(data: TestVersion, paths: readonly string[]): Promise<Record<string, Cell[][]>> {
  const { version } = data;
  const { splits, splitRule: rule } = version;
  const rest = splits.find(({ name }) => rule.kind === "positional" && !Object.hasOwn(rule.ppm, name))?.name ?? "";
  const found = Object.fromEntries(splits.map(({ name }) => [name, paths.map((): Cell[] => [])]));
  const pages = (await version.manifest()).length;
  for (let p = 0; p < pages; p++) {
    for (const { digest, split, rows } of await version.page(p)) {
      const hex = toHex(parseDigest(digest));
      const table = tableFromIPC(await readFile(join(data.store, "b3", hex.slice(0, 2), hex)));
      const splitOf =
        rule.kind === "positional"
          ? slowSplits(rule, rows, digest).map((name) => name ?? rest)
          : Array<string>(rows).fill(splits[split]?.name ?? "");
      paths.forEach((path, c) => {
        const cells = table.batches.flatMap((batch) => [...cellsOf(batch, path)]);
        cells.forEach((cell, row) => found[splitOf[row] as string]?.[c]?.push(cell));
      });
    }
  }
  return found;
}

export interface SlowStep {
  readonly epoch: number;
  readonly from: number;
  readonly to: number;
}

/** The steps from a cursor to the end of its epoch, then those of the next. */
export function slowSteps({ rows, stepRows, last }: LoaderPlan, epoch: number, offset: number): SlowStep[] {
  const of = (e: number, start: number): SlowStep[] => {
    const steps: SlowStep[] = [];
    for (let from = start; from < rows; from += stepRows) {
      const to = last === "partial" ? Math.min(rows, from + stepRows) : from + stepRows;
      if (last !== "drop" || to <= rows) steps.push({ epoch: e, from, to });
    }
    return steps;
  };
  return [...of(epoch, offset), ...of(epoch + 1, 0)];
}

const orders = new Map<string, readonly number[]>();

/** @throws Refused */
export function slowBatch(
  plan: LoaderPlan,
  step: SlowStep,
  xs: readonly WantedColumn[],
  ys: readonly WantedColumn[],
): Columns {
  const { root, selection, rows, order, rank, world, last } = plan;
  const key = canonicalJson({ root, selection, rows, order, epoch: step.epoch });
  const known =
    orders.get(key) ??
    slowOrder({ root: parseDigest(root), selection: parseDigest(selection), rows, order }, step.epoch);
  orders.clear(); // one is enough: a run asks for one after the other
  orders.set(key, known);
  const slice = slowSlice(known, order.K, step, rank, world);
  const isPadded = last === "pad" && step.to > rows;
  const mask: ColumnArray | null = isPadded
    ? { data: Float32Array.from(slice.mask), shape: [slice.mask.length], dtype: "float32" }
    : null;
  return { xs: slowArrays(slice.rows, xs), ys: slowArrays(slice.rows, ys), mask };
}

const ARRAYS = { float32: Float32Array, int32: Int32Array, bool: Uint8Array };

function slowArrays(rows: readonly number[], columns: readonly WantedColumn[]): ColumnArrays {
  const out: Record<string, ColumnArray> = {};
  for (const { slow, shape, dtype, cells } of columns) {
    const width = shape.reduce((a, b) => a * b, 1);
    const all = rows.map((row) => slowRow(slow, width, cells[row] as Cell));
    const whole = [rows.length, ...shape];
    const values = all.flatMap((row) => row.values);
    const data = dtype === "string" ? new Uint8Array(0) : new ARRAYS[dtype as keyof typeof ARRAYS](values);
    const texts = dtype === "string" ? { texts: all.map(({ text }) => text ?? "") } : {};
    out[slow.name] = { data, ...texts, shape: whole, dtype: dtype as "float32" };
    const present = all.flatMap((row) => row.present ?? []);
    if (present.length > 0) {
      out[`${slow.name}_mask`] = {
        data: Float32Array.from(present),
        shape: slow.options.pad ? whole : [rows.length],
        dtype: "float32",
      };
    }
  }
  return out;
}

/** Codes with which any row of the columns would be refused. */
export function slowRefusals(columns: readonly WantedColumn[]): Set<string> {
  const codes = new Set<string>();
  for (const { slow, shape, cells } of columns) {
    const width = shape.reduce((a, b) => a * b, 1);
    for (const cell of cells) {
      try {
        slowRow(slow, width, cell);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        codes.add(error.code);
      }
    }
  }
  return codes;
}

/** `docs/order.md` §7, over steps that were acknowledged. */
export function slowOrderDigest({ root, selection, order, rows }: LoaderPlan, steps: readonly SlowStep[]): Digest {
  const runs: number[][] = [];
  for (const { epoch, from, to } of steps) {
    const end = Math.min(to, rows);
    const last = runs.at(-1);
    if (last && last[0] === epoch && last[2] === from) last[2] = end;
    else runs.push([epoch, from, end]);
  }
  const parts = runs.flat().map((n) => u64le(n));
  return formatDigest(
    hashAs(
      "orderDigest",
      concatBytes([parseDigest(root), parseDigest(selection), utf8(canonicalJson(order)), ...parts]),
    ),
  );
}

/** The chain over what was delivered. */
export function slowBytesDigest(
  { rows }: LoaderPlan,
  batches: readonly { readonly step: SlowStep; readonly columns: Columns }[],
): Digest {
  let chain: Uint8Array = new Uint8Array(32);
  for (const { step, columns } of batches) {
    const bytes: Uint8Array[] = [];
    for (const { data, texts = [] } of [...Object.values(columns.xs), ...Object.values(columns.ys)]) {
      bytes.push(new Uint8Array(data.buffer));
      for (const text of texts) bytes.push(u32le(Buffer.byteLength(text)), new Uint8Array(Buffer.from(text)));
    }
    chain = hashAs(
      "bytesDigest",
      chain,
      u64le(step.epoch),
      u64le(step.from),
      u64le(Math.min(step.to, rows)),
      hashBytes(concatBytes(bytes)),
    );
  }
  return formatDigest(chain);
}

/** Why two batches differ, or null. */
export function firstDifference(got: Columns, expected: Columns): string | null {
  for (const side of ["xs", "ys"] as const) {
    if (Object.keys(got[side]).join() !== Object.keys(expected[side]).join())
      return `${side}: ${Object.keys(got[side]).join()}`;
    for (const [name, want] of Object.entries(expected[side])) {
      const difference = arrayDifference(got[side][name] as ColumnArray, want);
      if (difference !== null) return `${name}: ${difference}`;
    }
  }
  if ((got.mask === null) !== (expected.mask === null)) return `mask: ${String(got.mask)}`;
  return got.mask && expected.mask ? arrayDifference(got.mask, expected.mask) : null;
}

function arrayDifference(got: ColumnArray, want: ColumnArray): string | null {
  if (got.dtype !== want.dtype || got.shape.join() !== want.shape.join())
    return `${got.dtype} [${got.shape.join()}], not ${want.dtype} [${want.shape.join()}]`;
  const [a, b] = [got.texts ?? got.data, want.texts ?? want.data];
  if (a.length !== b.length) return `${a.length} values, not ${b.length}`;
  for (let i = 0; i < a.length; i++)
    if (!Object.is(a[i], b[i]))
      return `at ${i}: ${JSON.stringify(a[i])}, not ${JSON.stringify(b[i])} (${String(a[i])}, ${String(b[i])})`;
  return null;
}
