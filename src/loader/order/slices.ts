/**
 * Owns how a step is cut: its positions sorted by (lane, position), in W equal runs, one a rank.
 *
 * What all ranks consume together is always a prefix of the global order, so any world size can resume at any offset
 * (`docs/order.md` §6).
 */
import { invariant } from "../../model/errors.ts";
import type { EpochOrder } from "./order.ts";

export type LastRule = "partial" | "drop" | "pad";

/** One step of an epoch: global positions [from, to), of which [rows, to) is padding when `to` exceeds the rows. */
export interface Step {
  readonly from: number;
  readonly to: number;
}

/** Rows of one rank in one step. `mask` is 0 where a row is padding; null when none is. */
export interface Slice {
  readonly rows: Float64Array;
  readonly mask: Float32Array | null;
}

/** Steps from `offset` to the end of an epoch: exact, no I/O. */
export function stepsLeft(rows: number, offset: number, stepRows: number, last: LastRule): number {
  const left = Math.max(0, rows - offset);
  return last === "drop" ? Math.floor(left / stepRows) : Math.ceil(left / stepRows);
}

/** The step that starts at `offset`, or null when the epoch is over. `stepRows` = world × batch size. */
export function stepAt(rows: number, offset: number, stepRows: number, last: LastRule): Step | null {
  if (stepsLeft(rows, offset, stepRows, last) === 0) return null;
  const to = offset + stepRows;
  return { from: offset, to: last === "partial" ? Math.min(to, rows) : to };
}

/** The rows of rank `rank` of `world` in `step`, in the order in which the rank gets them. */
export function sliceStep(
  order: EpochOrder,
  step: Step,
  rank: number,
  world: number,
  allocate: (length: number) => Float64Array = (n) => new Float64Array(n),
): Slice {
  const length = (step.to - step.from) / world;
  invariant(Number.isInteger(length), "a step is cut in equal runs");
  const skip = rank * length;
  const rows = allocate(length);
  const mask = step.to > order.rows ? new Float32Array(length) : null;
  let seen = 0; // positions of the step in the lanes before this one
  const { count, residues } = order.lanes;
  for (let lane = 0; lane < count && seen < skip + length; lane++) {
    const residue = residues[lane] as number;
    const first = Math.ceil((step.from - residue) / count);
    const end = Math.ceil((step.to - residue) / count);
    const from = first + Math.max(0, skip - seen);
    const to = Math.min(end, first + skip + length - seen);
    if (from < to) fillRun(order, lane, from, to, rows, mask, Math.max(0, seen - skip));
    seen += end - first;
  }
  return { rows, mask };
}

/** Indexes [from, to) of a lane; those at positions past the last row repeat the epoch from position 0, masked. */
function fillRun(
  order: EpochOrder,
  lane: number,
  from: number,
  to: number,
  rows: Float64Array,
  mask: Float32Array | null,
  at: number,
): void {
  const { count, starts, residues } = order.lanes;
  const laneRows = (starts[lane + 1] as number) - (starts[lane] as number);
  const real = Math.max(0, Math.min(to, laneRows) - from);
  if (real > 0) order.fill(lane, from, real, rows, at);
  mask?.fill(1, at, at + real);
  for (let index = from + real; index < to; index++) {
    const position = index * count + (residues[lane] as number);
    rows[at + index - from] = order.rowAt(position % order.rows);
  }
}
