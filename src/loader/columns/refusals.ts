/**
 * Owns the ways in which a stored value is refused, and how its place is told.
 */
import { ShardpactError } from "../../model/errors.ts";
import type { ColumnPlan } from "./column-plan.ts";

/** Where a row lies, for messages. */
export interface RowPlace {
  readonly shard: string;
  readonly segment: number;
  readonly row: number;
}
export type WhereIs = (source: number, row: number) => RowPlace;

export function classUnknown({ name }: ColumnPlan, text: string, place: Partial<RowPlace>): ShardpactError {
  return new ShardpactError("class_unknown", `'${text.slice(0, 80)}' is not in the vocabulary of '${name}'`, {
    details: { column: name, value: text.slice(0, 200), ...place },
    hint: "The shard holds a class that its version did not agree on; publish it again.",
  });
}

export function outOfRange(plan: ColumnPlan, value: number, why: string, place: RowPlace): ShardpactError {
  return new ShardpactError(
    "value_out_of_range",
    `${value} in '${plan.name}' ${why} (shard ${place.shard}, segment ${place.segment}, row ${place.row})`,
    { details: { column: plan.name, value: String(value), ...place }, hint: "Choose another dtype, or mend the data." },
  );
}

export function nullFound(plan: ColumnPlan, place: RowPlace): ShardpactError {
  return nullThere(plan, place, "a null", "Pass nulls: a number, 'nan' or 'mask'.");
}

export function nullInside(plan: ColumnPlan, place: RowPlace): ShardpactError {
  return nullThere(plan, place, "a null inside the list", NO_NULLS_INSIDE);
}

const NO_NULLS_INSIDE = "Publish lists without nulls; `nulls` is for rows that have no list.";

function nullThere({ name }: ColumnPlan, place: RowPlace, what: string, hint: string): ShardpactError {
  const { shard, segment, row } = place;
  return new ShardpactError("null_found", `${what} in '${name}' (shard ${shard}, segment ${segment}, row ${row})`, {
    details: { column: name, ...place },
    hint,
  });
}

export function tooLong({ name }: ColumnPlan, row: number, found: number, length: number): ShardpactError {
  return new ShardpactError("shape_differs", `row ${row} of '${name}' has ${found} items; pad holds ${length}`, {
    details: { column: name, row, found, length },
    hint: "Pad to more, or pass truncate: true.",
  });
}

export function itemIsNull({ name }: ColumnPlan, row: number, item: number): ShardpactError {
  return new ShardpactError("null_found", `item ${item} of row ${row} of '${name}' is null`, {
    details: { column: name, row, item },
    hint: NO_NULLS_INSIDE,
  });
}

export function malformed(plan: ColumnPlan, found: number, expected: number): ShardpactError {
  return new ShardpactError("shard_malformed", `'${plan.name}' holds ${found} values where ${expected} are declared`, {
    details: { column: plan.name, found, expected },
  });
}
