/**
 * Owns a batch on the host: columns as typed arrays, before tensors are made of them.
 */
import { u32le, utf8 } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import type { Maybe } from "../model/maybe.ts";
import { gatherColumn, gatherPresent, gatherRows, type BatchArray, type GatherTools } from "./columns/gather.ts";
import type { EncodedImage } from "./columns/image-job.ts";
import type { ImageDecoder } from "./columns/image-threads.ts";
import type { Runs } from "./columns/runs.ts";
import type { WhereIs } from "./columns/refusals.ts";
import type { ColumnPlan } from "./columns/column-plan.ts";
import type { ColumnSource } from "./columns/source.ts";
import type { Block } from "./fetch/block-cache.ts";
import type { Located } from "./fetch/locate.ts";

/** One column of a batch: row-major, `shape[0]` rows. */
export interface ColumnArray {
  /** Empty when the dtype is `string`. */
  readonly data: BatchArray;
  readonly shape: readonly number[];
  readonly dtype: "float32" | "int32" | "bool" | "string";
  /** Of dtype `string` only. */
  readonly texts?: readonly string[];
}

export type ColumnArrays = Readonly<Record<string, ColumnArray>>;

const NO_NUMBERS = new Uint8Array(0);

/** What `map` gets and gives back. `mask` [rows] is 0 where the row is padding, null where there is none. */
export interface Columns {
  readonly xs: ColumnArrays;
  readonly ys: ColumnArrays;
  readonly mask: ColumnArray | null;
}

/** The columns of a batch: the first `xsCount` of `plans` are inputs, the others targets. */
export interface BatchShape {
  readonly plans: readonly ColumnPlan[];
  readonly xsCount: number;
}

/** What batches are gathered with, and who decodes their images. */
export interface BatchPorts {
  readonly tools: GatherTools;
  readonly images: ImageDecoder;
  readonly signal: AbortSignal;
  /** Whether arrays may lie in memory that threads share: they come back then, and nobody else sees them. */
  readonly mayShare: boolean;
}

/**
 * Copies the rows of a batch out of pinned blocks, and has images decoded: a promise only of a batch that has some. The blocks
 * may be unpinned once it is there.
 * @throws as `gatherColumn` and `ImageDecoder.decode`
 */
export function assembleBatch(
  { plans, xsCount }: BatchShape,
  { runs }: Located,
  blocks: readonly Block[],
  mask: Float32Array | null,
  { tools, images, signal, mayShare }: BatchPorts,
): Maybe<Columns> {
  const where: WhereIs = (source, row) => {
    const tile = blocks[source]?.tile;
    const { shard, segment } = tile?.segment ?? {};
    return { shard: shard?.entry.name ?? "", segment: segment ?? -1, row: (tile?.firstRow ?? 0) + row };
  };
  const xs: Record<string, ColumnArray> = {};
  const ys: Record<string, ColumnArray> = {};
  const put = (c: number, column: ColumnArray, there: Float32Array | null): void => {
    const { name, pad } = plans[c] as ColumnPlan;
    const into = c < xsCount ? xs : ys;
    into[name] = column;
    if (there) into[`${name}_mask`] = { data: there, shape: pad ? column.shape : [runs.rows], dtype: "float32" };
  };
  const columnsFrom = (first: number): Maybe<Columns> => {
    for (let c = first; c < plans.length; c++) {
      const plan = plans[c] as ColumnPlan;
      const sources = sourcesOf(blocks, c);
      const shape = [runs.rows, ...plan.shape];
      const present = plan.nulls === "mask" ? new Float32Array(runs.rows).fill(1) : null;
      if (plan.image !== null) {
        const encoded = gatherImages(plan, sources, runs, where, present);
        return images.decode(plan, plan.image, encoded, signal, mayShare).then((data) => {
          put(c, { data, shape, dtype: plan.dtype }, present);
          return columnsFrom(c + 1);
        });
      }
      if (plan.kind === "text") {
        const texts = gatherTexts(plan, sources, runs, where, present);
        put(c, { data: NO_NUMBERS, texts, shape, dtype: "string" }, present);
        continue;
      }
      const data = gatherColumn(plan, sources, runs, where, present, tools);
      put(c, { data, shape, dtype: plan.dtype }, plan.pad ? gatherPresent(plan, sources, runs) : present);
    }
    return { xs, ys, mask: mask && { data: mask, shape: [runs.rows], dtype: "float32" } };
  };
  return columnsFrom(0);
}

/** What one column is gathered from. By index: a batch lies in a hundred blocks. */
function sourcesOf(blocks: readonly Block[], column: number): ColumnSource[] {
  const sources = new Array<ColumnSource>(blocks.length);
  for (let i = 0; i < blocks.length; i++) sources[i] = (blocks[i] as Block).sources[column] as ColumnSource;
  return sources;
}

/** The texts of a batch, "" where there is none; `present` is filled when given: 1 where there is one. */
function gatherTexts(
  plan: ColumnPlan,
  sources: readonly ColumnSource[],
  runs: Runs,
  where: WhereIs,
  present: Float32Array | null,
): string[] {
  const texts = gatherRows(plan, sources, runs, where, ({ textOf }, row) => textOf?.(row) ?? "");
  if (present) for (let row = 0; row < texts.length; row++) present[row] = texts[row] === null ? 0 : 1;
  return texts.map((text) => text ?? "");
}

/** The encoded images of a batch, each with its place for messages; `present` is filled when given: 1 where there is one. */
function gatherImages(
  plan: ColumnPlan,
  sources: readonly ColumnSource[],
  runs: Runs,
  where: WhereIs,
  present: Float32Array | null,
): (EncodedImage | null)[] {
  const images = gatherRows(plan, sources, runs, where, (source, row) => ({
    bytes: source.bytesOf?.(row) ?? new Uint8Array(0),
    place: where(sources.indexOf(source), row),
  }));
  if (present) for (let row = 0; row < images.length; row++) present[row] = images[row] ? 1 : 0;
  return images;
}

/** The bytes of all columns, inputs first; texts as u32 length and UTF-8. */
export function* batchBytes({ xs, ys }: Columns): Iterable<Uint8Array> {
  for (const { data, texts = [] } of [...Object.values(xs), ...Object.values(ys)]) {
    yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    for (const text of texts) {
      const bytes = utf8(text);
      yield u32le(bytes.byteLength);
      yield bytes;
    }
  }
}

/**
 * Refuses what `map` gave back unless all columns are arrays of as many rows as the first one has.
 * @throws ShardpactError `invalid_argument`, `shape_differs`
 */
export function checkColumns(columns: Columns): Columns {
  if (typeof columns?.xs !== "object" || typeof columns.ys !== "object") {
    const got =
      (columns as unknown) instanceof Promise ? "a promise" : columns === undefined ? "nothing" : "no { xs, ys }";
    throw new ShardpactError("invalid_argument", `map gave ${got}`, {
      hint: "It must give { xs, ys } at once, as it got them: { ...columns, xs: … }.",
    });
  }
  const all = [...Object.entries(columns.xs), ...Object.entries(columns.ys)];
  const rows = all[0]?.[1].shape[0];
  for (const [name, { data: numbers, texts, shape }] of all) {
    const data = texts ?? numbers;
    const isArray = texts !== undefined || ARRAYS.some((OfType) => numbers instanceof OfType);
    if (!isArray) {
      throw new ShardpactError("invalid_argument", `map gave '${name}' no data: ${typeName(numbers)}`, {
        details: { column: name },
        hint: "Data are a Float32Array, an Int32Array or a Uint8Array; tensors are made of them afterwards.",
      });
    }
    if (shape.reduce((a, b) => a * b, 1) === data.length && shape[0] === rows) continue;
    const what = shape[0] === rows ? `${data.length} values for shape [${shape.join(", ")}]` : `${shape[0]} rows`;
    const expected = shape[0] === rows ? "" : `, and '${all[0]?.[0]}' ${rows}`;
    throw new ShardpactError("shape_differs", `map gave '${name}' ${what}${expected}`, {
      details: { column: name, values: data.length, shape, rows },
      hint: "All columns of a batch have the same number of rows.",
    });
  }
  return columns;
}

const ARRAYS = [Float32Array, Int32Array, Uint8Array] as const;

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null;
}

function typeName(value: unknown): string {
  return isObject(value) ? ((value as object).constructor?.name ?? "object") : typeof value;
}
