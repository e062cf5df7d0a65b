/**
 * Owns the table of types: which Arrow column becomes which array, and which are refused.
 *
 * Numbers and booleans become float32 unless `dtype` says otherwise; strings only by an agreed vocabulary; nothing else
 * converts silently. Decided from the schema alone, before any byte is read.
 */
import { DataType, type Field, type Schema } from "apache-arrow";
import { ShardpactError } from "../../model/errors.ts";
import { nearestNames } from "../../model/nearest.ts";
import type { ColumnOptions, ColumnRequest } from "./options.ts";

/** How the values of a column lie in a decoded batch. */
export type ValueKind = "number" | "wide" | "half" | "bool" | "dictionary" | "string";

/** One requested column, resolved against the schema. */
export interface ColumnPlan {
  readonly name: string;
  /** Child ordinals from the batch down to the column; more than one through structs. */
  readonly path: readonly number[];
  readonly kind: ValueKind;
  /** Elements of each nesting level of fixed-size lists, outermost first. */
  readonly lists: readonly number[];
  /** Elements of one row as stored: the product of `lists`. */
  readonly sourceWidth: number;
  /** The vocabulary, for strings. */
  readonly classes: readonly string[] | null;
  readonly oneHot: number | null;
  readonly nulls: NonNullable<ColumnOptions["nulls"]> | null;
  readonly dtype: "float32" | "int32" | "bool";
  /** Shape of one row of the result. */
  readonly shape: readonly number[];
  /** Elements of one row of the result. */
  readonly width: number;
  /** True when stored values are float32 and pass unchanged. */
  readonly copies: boolean;
}

/** What resolving needs to know of a version. */
export interface ColumnScope {
  readonly schema: Schema;
  readonly classes: Readonly<Record<string, readonly string[]>>;
}

/** @throws ShardpactError `column_unknown`, `type_unsupported`, `shape_differs`, `invalid_argument` */
export function resolveColumn({ schema, classes }: ColumnScope, { name, options }: ColumnRequest): ColumnPlan {
  const { field, path } = findField(schema, name);
  const { type, lists } = unwrapLists(name, field);
  const kind = kindOf(name, type, options);
  const vocabulary = kind === "string" || kind === "dictionary" ? vocabularyOf(name, classes) : null;
  const sourceWidth = lists.reduce((a, b) => a * b, 1);
  const oneHot = oneHotOf(name, options, vocabulary, sourceWidth);
  const stored = oneHot === null ? tensorShape(name, field, lists) : [oneHot];
  const shape = options.shape ?? stored;
  const width = stored.reduce((a, b) => a * b, 1);
  if (!shape.every((d) => Number.isInteger(d) && d > 0) || shape.reduce((a, b) => a * b, 1) !== width) {
    throw new ShardpactError(
      "shape_differs",
      `'${name}' holds ${width} values a row, not shape [${shape.join(", ")}]`,
      {
        details: { column: name, stored, shape },
      },
    );
  }
  const dtype = options.dtype ?? "float32";
  const copies = DataType.isFloat(type) && type.precision === 1 && dtype === "float32" && oneHot === null;
  const nulls = options.nulls ?? null;
  if (nulls === "nan" && dtype !== "float32") {
    throw new ShardpactError("invalid_argument", `nulls: 'nan' of '${name}' needs dtype float32, not ${dtype}`);
  }
  return { name, path, kind, lists, sourceWidth, classes: vocabulary, oneHot, nulls, dtype, shape, width, copies };
}

function findField(schema: Schema, name: string): { field: Field; path: readonly number[] } {
  const whole = schema.fields.findIndex((f) => f.name === name);
  if (whole !== -1) return { field: schema.fields[whole] as Field, path: [whole] };
  let fields: readonly Field[] = schema.fields;
  let field: Field | undefined;
  const path: number[] = [];
  for (const part of name.split(".")) {
    const at = fields.findIndex((f) => f.name === part);
    field = fields[at];
    if (!field) throw unknownColumn(schema, name);
    path.push(at);
    fields = DataType.isStruct(field.type) ? field.type.children : [];
  }
  if (!field) throw unknownColumn(schema, name);
  return { field, path };
}

function unknownColumn(schema: Schema, name: string): ShardpactError {
  const names = pathsOf(schema.fields, "");
  const close = nearestNames(name, names);
  return new ShardpactError("column_unknown", `there is no column '${name}'`, {
    details: { column: name, nearest: close },
    hint: close.length > 0 ? `Did you mean ${close.join(" or ")}?` : `There are ${names.slice(0, 20).join(", ")}.`,
  });
}

function pathsOf(fields: readonly Field[], prefix: string): string[] {
  return fields.flatMap((f) => [
    prefix + f.name,
    ...(DataType.isStruct(f.type) ? pathsOf(f.type.children, `${prefix}${f.name}.`) : []),
  ]);
}

function unwrapLists(name: string, field: Field): { type: DataType; lists: readonly number[] } {
  const lists: number[] = [];
  let type: DataType = field.type;
  while (DataType.isFixedSizeList(type)) {
    lists.push(type.listSize);
    const child = type.children[0];
    if (!child || type.listSize < 1) throw unsupported(name, field.type, "an empty list has no shape");
    type = child.type;
  }
  return { type, lists };
}

const STRING_HINT = "Pass classes: 'agreed' to get the index in the version's vocabulary.";

function kindOf(name: string, type: DataType, options: ColumnOptions): ValueKind {
  if (DataType.isBool(type)) return "bool";
  if (DataType.isFloat(type)) return type.precision === 0 ? "half" : "number";
  if (DataType.isInt(type)) return type.bitWidth === 64 ? "wide" : "number";
  const isText = DataType.isUtf8(type) || DataType.isLargeUtf8(type);
  if (isText || (DataType.isDictionary(type) && DataType.isUtf8(type.dictionary))) {
    if (options.classes !== "agreed") throw unsupported(name, type, STRING_HINT);
    return isText ? "string" : "dictionary";
  }
  throw unsupported(name, type, "Read it with batches(), or publish it as numbers or fixed-size lists of numbers.");
}

function unsupported(name: string, type: DataType, hint: string): ShardpactError {
  return new ShardpactError(
    "type_unsupported",
    `'${name}' is of type ${String(type)}, which does not become a tensor`,
    {
      details: { column: name, type: String(type) },
      hint,
    },
  );
}

function vocabularyOf(name: string, classes: ColumnScope["classes"]): readonly string[] {
  const found = Object.hasOwn(classes, name) ? classes[name] : undefined;
  if (found) return found;
  throw new ShardpactError("class_unknown", `the version has no vocabulary for '${name}'`, {
    details: { column: name, columns: Object.keys(classes) },
    hint: "Publish the dataset with classes for this column.",
  });
}

function oneHotOf(
  name: string,
  options: ColumnOptions,
  vocabulary: readonly string[] | null,
  sourceWidth: number,
): number | null {
  if (options.oneHot === undefined) return null;
  const size = options.oneHot === true ? vocabulary?.length : options.oneHot;
  if (size === undefined || !Number.isInteger(size) || size < 1 || size < (vocabulary?.length ?? 0)) {
    throw new ShardpactError(
      "invalid_argument",
      `oneHot of '${name}' must hold ${vocabulary?.length ?? "all"} classes`,
      {
        details: { column: name, oneHot: options.oneHot, classes: vocabulary?.length ?? null },
      },
    );
  }
  if (sourceWidth !== 1) throw new ShardpactError("shape_differs", `oneHot of '${name}' needs one value a row`);
  return size;
}

const EXTENSION_NAME = "ARROW:extension:name";
const EXTENSION_METADATA = "ARROW:extension:metadata";

/** The shape of one row: that of `arrow.fixed_shape_tensor` if the field is one, else the list sizes. */
function tensorShape(name: string, field: Field, lists: readonly number[]): readonly number[] {
  if (field.metadata.get(EXTENSION_NAME) !== "arrow.fixed_shape_tensor") return lists;
  const text = field.metadata.get(EXTENSION_METADATA) ?? "";
  let meta: { shape?: unknown; permutation?: unknown };
  try {
    meta = JSON.parse(text) as typeof meta;
  } catch (cause) {
    throw new ShardpactError("shard_malformed", `'${name}' has malformed tensor metadata`, { cause });
  }
  const { shape, permutation } = meta;
  const width = lists.reduce((a, b) => a * b, 1);
  if (
    !Array.isArray(shape) ||
    !shape.every(Number.isInteger) ||
    shape.reduce((a: number, b: number) => a * b, 1) !== width
  ) {
    throw new ShardpactError("shard_malformed", `'${name}' has a tensor shape that is not its ${width} values`);
  }
  if (Array.isArray(permutation) && permutation.some((p, i) => p !== i)) {
    throw unsupported(name, field.type, "A permuted tensor is not read; store it in row-major order.");
  }
  return shape as number[];
}
