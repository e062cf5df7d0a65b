/**
 * Owns a batch on the host: columns as fresh typed arrays, before tensors are made of them.
 */
import { ShardpactError } from "../model/errors.ts";
import { gatherColumn, type BatchArray, type WhereIs } from "./columns/gather.ts";
import type { ColumnPlan } from "./columns/resolve.ts";
import type { Block } from "./fetch/block-cache.ts";
import type { Located } from "./fetch/locate.ts";

/** One column of a batch: row-major, `shape[0]` rows. */
export interface ColumnArray {
  readonly data: BatchArray;
  readonly shape: readonly number[];
  readonly dtype: "float32" | "int32" | "bool";
}

export type ColumnArrays = Readonly<Record<string, ColumnArray>>;

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

/** Copies the rows of a batch out of pinned blocks. @throws as `gatherColumn` */
export function assembleBatch(
  { plans, xsCount }: BatchShape,
  { runs }: Located,
  blocks: readonly Block[],
  mask: Float32Array | null,
): Columns {
  const where: WhereIs = (source, row) => {
    const tile = blocks[source]?.tile;
    const { shard, segment } = tile?.segment ?? {};
    return { shard: shard?.entry.name ?? "", segment: segment ?? -1, row: (tile?.firstRow ?? 0) + row };
  };
  const xs: Record<string, ColumnArray> = {};
  const ys: Record<string, ColumnArray> = {};
  plans.forEach((plan, c) => {
    const sources = blocks.map((block) => block.sources[c] as Block["sources"][number]);
    const present = plan.nulls === "mask" ? new Float32Array(runs.rows).fill(1) : null;
    const data = gatherColumn(plan, sources, runs, where, present);
    const into = c < xsCount ? xs : ys;
    into[plan.name] = { data, shape: [runs.rows, ...plan.shape], dtype: plan.dtype };
    if (present) into[`${plan.name}_mask`] = { data: present, shape: [runs.rows], dtype: "float32" };
  });
  return { xs, ys, mask: mask && { data: mask, shape: [runs.rows], dtype: "float32" } };
}

/** The bytes of all columns, inputs first. */
export function* batchBytes({ xs, ys }: Columns): Iterable<Uint8Array> {
  for (const { data } of [...Object.values(xs), ...Object.values(ys)]) {
    yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
}

/** Refuses what `map` gave back unless all columns are arrays of as many rows as the first shape says. */
export function checkColumns(columns: Columns): Columns {
  const all = [...Object.entries(columns.xs), ...Object.entries(columns.ys)];
  const rows = all[0]?.[1].shape[0];
  for (const [name, { data, shape }] of all) {
    if (shape.reduce((a, b) => a * b, 1) !== data.length || shape[0] !== rows) {
      throw new ShardpactError(
        "shape_differs",
        `map gave '${name}' ${data.length} values for shape [${shape.join(", ")}]`,
        {
          details: { column: name, values: data.length, shape },
          hint: "All columns of a batch have the same number of rows.",
        },
      );
    }
  }
  return columns;
}
