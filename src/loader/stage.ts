/**
 * Owns what a loader stands on: one version, planned with the caller's options. A run that follows its dataset goes from
 * one to the next between epochs; all others stay on their first.
 */
import type { ConfirmedVersion } from "../client/types.ts";
import { ShardpactError } from "../model/errors.ts";
import { schemaFromCanonical } from "../shards/schema.ts";
import type { BatchShape } from "./batch.ts";
import type { ColumnRequest } from "./columns/options.ts";
import { resolveColumn } from "./columns/resolve.ts";
import { planLoader, type LoaderPlan, type PlanOptions } from "./plan.ts";

export interface Stage {
  readonly version: ConfirmedVersion;
  readonly plan: LoaderPlan;
  readonly shape: BatchShape;
}

export interface StageOptions extends PlanOptions {
  readonly columns: { readonly xs: readonly ColumnRequest[]; readonly ys: readonly ColumnRequest[] };
}

/** Pure. @throws ShardpactError as `planLoader`, and `column_unknown`, `type_unsupported`, `shape_differs`, `class_unknown` */
export function planStage(version: ConfirmedVersion, o: StageOptions): Stage {
  const plan = planLoader(version, o);
  const scope = { schema: schemaFromCanonical(version.schema), classes: version.classes };
  const { xs, ys } = o.columns;
  const plans = [...xs, ...ys].map((request) => resolveColumn(scope, request));
  return { version, plan, shape: { plans, xsCount: xs.length } };
}

/**
 * Refuses a version whose batches a model that was fed from `before` could not take, or that has no batch at all.
 * @throws ShardpactError `shape_differs` naming the column, `invalid_argument`
 */
export function requireSameBatches(before: Stage, next: Stage): void {
  for (const [i, column] of next.shape.plans.entries()) {
    const was = before.shape.plans[i];
    const [then, now] = [describe(was), describe(column)];
    if (then === now) continue;
    throw new ShardpactError("shape_differs", `'${column.name}' would be ${now} a row; it is ${then}`, {
      details: { column: column.name, expected: then, got: now },
    });
  }
  if (next.plan.steps > 0) return;
  const { split, rows, stepRows } = next.plan;
  throw new ShardpactError("invalid_argument", `its ${rows} rows of '${split}' are no step of ${stepRows}`);
}

function describe(column: BatchShape["plans"][number] | undefined): string {
  return column === undefined ? "nothing" : `${column.dtype}[${column.shape.join(", ")}]`;
}
