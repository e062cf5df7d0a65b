/**
 * Owns which options say something about which columns: one that does not is refused, since the caller means what it would do.
 */
import { DataType } from "apache-arrow";
import { ShardpactError } from "../../model/errors.ts";
import type { ValueKind } from "./column-plan.ts";
import type { ColumnOptions } from "./options.ts";

/** What the option is for, and whether a column is that. */
const FOR: readonly (readonly [keyof ColumnOptions, string, (kind: ValueKind) => boolean])[] = [
  ["classes", "texts that become numbers", (kind) => kind === "string" || kind === "dictionary"],
  ["unit", "dates, times, timestamps and durations", (kind) => kind === "time"],
  ["since", "dates and timestamps", (kind) => kind === "time"],
  ["lossy", "decimals", (kind) => kind === "decimal"],
  ["hash", "64-bit integers", (kind) => kind === "hash"],
  ["image", "encoded images", (kind) => kind === "image"],
  ["oneHot", "classes and numbers", (kind) => kind !== "text" && kind !== "image"],
];
const DTYPES: readonly unknown[] = [undefined, "float32", "int32", "bool", "string", "uint8"];

/**
 * @param type what `kind` was decided from, within lists
 * @throws ShardpactError `invalid_argument`, `type_unsupported` (lists of texts or of images)
 */
export function requireFitting(
  name: string,
  column: DataType,
  type: DataType,
  kind: ValueKind,
  options: ColumnOptions,
): void {
  const refuse = (what: string, hint: string): never => {
    throw new ShardpactError("invalid_argument", what, { details: { column: name, type: String(column) }, hint });
  };
  for (const [option, what, isFor] of FOR) {
    if (options[option] === undefined || isFor(kind)) continue;
    refuse(`${option} is for ${what}; '${name}' is of type ${String(column)}`, `Leave ${option} out.`);
  }
  const { dtype, nulls, classes } = options;
  if (!DTYPES.includes(dtype)) refuse(`'${String(dtype)}' is no dtype of '${name}'`, "Use float32, int32 or bool.");
  if (dtype === "string" && kind !== "text") refuse(`dtype: 'string' of '${name}' needs a text column`, "");
  if (dtype === "uint8" && !DataType.isFixedSizeBinary(type)) {
    refuse(`dtype: 'uint8' is for bytes of a fixed size; '${name}' is of type ${String(column)}`, "Leave dtype out.");
  }
  if (classes !== undefined && classes !== "agreed") refuse(`classes of '${name}' must be 'agreed'`, "");
  if (nulls !== undefined && typeof nulls !== "number" && nulls !== "nan" && nulls !== "mask") {
    refuse(`'${String(nulls)}' is nothing that stands for a null of '${name}'`, "Use a number, 'nan' or 'mask'.");
  }
  if ((kind !== "text" && kind !== "image") || !DataType.isFixedSizeList(column)) return;
  throw new ShardpactError("type_unsupported", `'${name}' is of type ${String(column)}: a row holds several`, {
    details: { column: name, type: String(column) },
    hint: "Read it with batches(), or publish a column for each; texts become numbers with classes: 'agreed'.",
  });
}
