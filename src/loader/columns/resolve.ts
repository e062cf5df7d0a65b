/**
 * Owns the table of types: which Arrow column becomes which array, and which are refused.
 *
 * Numbers and booleans become float32 unless `dtype` says otherwise; strings only by an agreed vocabulary; nothing else
 * converts silently. Decided from the schema alone, before any byte is read.
 */
import { DataType, type Field, type Schema } from "apache-arrow";
import { ShardpactError } from "../../model/errors.ts";
import { nearestNames } from "../../model/nearest.ts";
import { rowBytesOf } from "../../shards/slice.ts";
import { isText } from "../../shards/texts.ts";
import type { ColumnPlan, ValueKind } from "./column-plan.ts";
import { imageOf, imageShape } from "./image-plan.ts";
import { requireFitting } from "./options-fit.ts";
import type { ColumnOptions, ColumnRequest } from "./options.ts";
import { tensorShape } from "./tensor-shape.ts";
import { isTemporal, timeOf } from "./time.ts";

/** What resolving needs to know of a version. */
export interface ColumnScope {
  readonly schema: Schema;
  readonly classes: Readonly<Record<string, readonly string[]>>;
}

/** @throws ShardpactError `column_unknown`, `type_unsupported`, `shape_differs`, `invalid_argument` */
export function resolveColumn({ schema, classes }: ColumnScope, { name, options }: ColumnRequest): ColumnPlan {
  const { field, path } = findField(schema, name.normalize("NFC")); // as the names of a schema are
  const pad = padOf(name, options);
  const { type: found, lists } = unwrapLists(name, field, pad !== null);
  if (pad) lists.push(pad.length);
  const kind = kindOf(name, found, options);
  requireFitting(name, field.type as DataType, found, kind, options);
  const type = kind === "dictionary" || kind === "text" ? found : behindDictionary(found);
  if (pad) requirePaddable(name, field.type as DataType, type, kind, options);
  if (DataType.isFixedSizeBinary(type)) lists.push(type.byteWidth);
  const vocabulary = kind === "string" || kind === "dictionary" ? vocabularyOf(name, classes) : null;
  const image = kind === "image" ? imageOf(name, options) : null;
  const sourceWidth = lists.reduce((a, b) => a * b, 1);
  const oneHot = oneHotOf(name, options, vocabulary, sourceWidth);
  const tensor = tensorShape(name, field, lists);
  const stored = image ? imageShape(name, image, options) : oneHot === null ? tensor.shape : [oneHot];
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
  const dtype: ColumnPlan["dtype"] = kind === "text" ? "string" : dtypeOf(options);
  const isPlainFloat = DataType.isFloat(type) && type.precision === 1 && dtype === "float32" && oneHot === null;
  const copies = isPlainFloat && pad === null && tensor.permutation === null;
  const nulls = options.nulls ?? null;
  if (nulls === "nan" && dtype !== "float32") {
    throw new ShardpactError("invalid_argument", `nulls: 'nan' of '${name}' needs dtype float32, not ${dtype}`);
  }
  if (typeof nulls === "number") requireFits(name, "nulls", nulls, dtype);
  if (pad) requireFits(name, "pad.value", pad.value, dtype);
  const counts = DataType.isInt(type) || kind === "time" || kind === "hash";
  const of = {
    name,
    path,
    kind,
    lists,
    sourceWidth,
    counts,
    classes: vocabulary,
    oneHot,
    nulls,
    dtype,
    shape,
    width,
    copies,
  };
  const time = kind === "time" ? timeOf(name, type, options) : null;
  const parameter = kind === "hash" ? (options.hash as number) : DataType.isDecimal(type) ? type.scale : 0;
  return { ...of, pad, time, permutation: tensor.permutation, image, parameter };
}

function dtypeOf({ dtype }: ColumnOptions): "float32" | "int32" | "bool" {
  return dtype === "int32" || dtype === "bool" ? dtype : "float32";
}

function findField(schema: Schema, name: string): { field: Field; path: readonly number[] } {
  const whole = schema.fields.findIndex((f) => f.name === name);
  if (whole !== -1) return { field: schema.fields[whole] as Field, path: [whole] };
  const found = findPath(schema.fields, name);
  if (found === null) throw unknownColumn(schema, name);
  return found;
}

/** The field that dotted names lead to; names may have dots of their own. */
function findPath(fields: readonly Field[], name: string): { field: Field; path: readonly number[] } | null {
  for (const [at, field] of fields.entries()) {
    if (field.name === name) return { field, path: [at] };
    if (!name.startsWith(`${field.name}.`) || !DataType.isStruct(field.type)) continue;
    const below = findPath(field.type.children, name.slice(field.name.length + 1));
    if (below) return { field: below.field, path: [at, ...below.path] };
  }
  return null;
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

/** Through fixed-size lists, and, where one is to be filled up, the list of any length inside them. */
function unwrapLists(name: string, field: Field, padded: boolean): { type: DataType; lists: number[] } {
  const lists: number[] = [];
  let type: DataType = field.type;
  if (padded) {
    const child = DataType.isList(type) || String(type).startsWith("LargeList") ? type.children?.[0] : undefined;
    if (!child) throw unsupported(name, field.type, "pad is for lists of any length.");
    const isOfLists = DataType.isFixedSizeList(child.type) || DataType.isList(child.type);
    if (isOfLists) throw unsupported(name, field.type, "pad takes lists of single values.");
    return { type: child.type as DataType, lists };
  }
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
  if (DataType.isInt(type)) return type.bitWidth === 64 ? (hashOf(name, options) ? "hash" : "wide") : "number";
  if (isText(behindDictionary(type))) {
    if (options.dtype === "string") return "text";
    if (options.classes !== "agreed") throw unsupported(name, type, STRING_HINT);
    return isText(type) ? "string" : "dictionary";
  }
  if (
    DataType.isDictionary(type) &&
    rowBytesOf(type.dictionary) !== null &&
    !DataType.isFixedSizeBinary(type.dictionary)
  ) {
    return kindOf(name, type.dictionary, options);
  }
  if (isTemporal(type)) {
    if (options.unit !== undefined) return "time";
    throw unsupported(name, type, "Say in which unit: { unit: 'h', since: '2024-01-01' }.");
  }
  if (DataType.isDecimal(type)) {
    if (options.lossy === true) return "decimal";
    throw unsupported(name, type, "Pass lossy: true to get the nearest float32.");
  }
  if (DataType.isBinary(type) || DataType.isLargeBinary(type) || DataType.isBinaryView(type)) {
    if (options.image !== undefined) return "image";
    throw unsupported(name, type, "Encoded images are decoded with image: { resize: [height, width] }.");
  }
  if (DataType.isFixedSizeBinary(type)) {
    if (options.dtype === "uint8") return "number";
    throw unsupported(name, type, "Pass dtype: 'uint8' to get its bytes.");
  }
  if (DataType.isList(type)) throw unsupported(name, type, "Rows differ in length: pass pad: { length, value }.");
  throw unsupported(name, type, "Read it with batches(), or publish it as numbers or fixed-size lists of numbers.");
}

function behindDictionary(type: DataType): DataType {
  return DataType.isDictionary(type) ? type.dictionary : type;
}

/** Items of a list become numbers, one each. */
function requirePaddable(
  name: string,
  list: DataType,
  item: DataType,
  kind: ValueKind,
  { oneHot }: ColumnOptions,
): void {
  const isNumber = kind !== "text" && kind !== "image" && !DataType.isFixedSizeBinary(item) && oneHot === undefined;
  if (!isNumber) throw unsupported(name, list, "pad takes lists of numbers, booleans or classes, as they are.");
}

/** What stands for a value must be one itself. */
function requireFits(name: string, what: string, value: number, dtype: ColumnPlan["dtype"]): void {
  const fits =
    dtype === "int32"
      ? value === (value | 0)
      : dtype === "bool"
        ? value === 0 || value === 1
        : Number.isFinite(Math.fround(value)) || !Number.isFinite(value);
  if (fits) return;
  throw new ShardpactError("invalid_argument", `${what} of '${name}' is ${value}, which does not fit ${dtype}`);
}

function hashOf(name: string, { hash }: ColumnOptions): boolean {
  if (hash === undefined) return false;
  if (Number.isInteger(hash) && hash >= 1 && hash <= 2 ** 24) return true;
  throw new ShardpactError("invalid_argument", `hash of '${name}' must be a number of buckets up to 2^24, not ${hash}`);
}

function padOf(name: string, { pad }: ColumnOptions): ColumnPlan["pad"] {
  if (pad === undefined) return null;
  if (Number.isInteger(pad.length) && pad.length >= 1 && pad.length <= 2 ** 24)
    return { length: pad.length, value: pad.value ?? 0, truncate: pad.truncate === true };
  throw new ShardpactError("invalid_argument", `pad.length of '${name}' must be a positive integer, not ${pad.length}`);
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
        hint: vocabulary ? "Pass oneHot: true." : "The column has no vocabulary to count: pass their number.",
      },
    );
  }
  if (sourceWidth !== 1) throw new ShardpactError("shape_differs", `oneHot of '${name}' needs one value a row`);
  return size;
}
