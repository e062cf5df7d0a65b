/**
 * Owns schemas as plain data: making fields that are equal where they mean the same, the rules that types alone don't say, and
 * the canonical bytes.
 *
 * Everything that two writers may do differently without meaning something else is not in it: dictionary ids, names of
 * list items and map entries, pandas and polars notes. `schema.ts` makes arrow-js schemas of it.
 */
import { utf8 } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { canonicalJson } from "../model/json.ts";
import { LIMITS } from "../model/limits.ts";
import type { FieldSpec, SchemaSpec } from "./schema-form.ts";

export const TIME_UNITS = ["s", "ms", "us", "ns"] as const;
export const INTERVAL_UNITS = ["year_month", "day_time", "month_day_nano"] as const;
export const FLOAT_BITS = [16, 32, 64] as const;

/** What writers note about themselves: it differs between writers of the same table. */
const NOISE = /^(pandas|ARROW:schema|PARQUET:.*|_PL_.*|pl|polars.*)$/;

/** The members that mean something, or undefined when there are none. */
export function meaningfulMetadata(entries: Iterable<readonly [string, string]>): Record<string, string> | undefined {
  const kept = [...entries].filter(([key]) => !NOISE.test(key));
  return kept.length === 0 ? undefined : Object.fromEntries(kept.map(([key, value]) => [key.normalize("NFC"), value]));
}

/**
 * A field with names that mean nothing made equal: readers find list items and map entries by position.
 * @throws RangeError when the children do not fit the type
 */
export function makeField(field: FieldSpec): FieldSpec {
  const names = childNames(field);
  const children = (field.children ?? []).map((child, i) => ({ ...child, name: names?.[i] ?? child.name }));
  return {
    name: field.name.normalize("NFC"),
    type: field.type,
    nullable: field.nullable,
    ...(children.length > 0 ? { children } : {}),
    ...(field.dictionary ? { dictionary: field.dictionary } : {}),
    ...(field.metadata ? { metadata: field.metadata } : {}),
  };
}

function childNames({ name, type, children = [] }: FieldSpec): readonly string[] | null {
  const expect = (count: number, names: readonly string[] | null) => {
    if (children.length === count) return names;
    throw new RangeError(`column ${name}: a ${type.kind} with ${children.length} children`);
  };
  switch (type.kind) {
    case "list":
    case "large_list":
    case "fixed_size_list":
      return expect(1, ["item"]);
    case "map":
      if (children[0]?.type.kind !== "struct" || children[0].children?.length !== 2) {
        throw new RangeError(`column ${name}: a map whose entries are no pairs`);
      }
      return expect(1, ["entries"]);
    case "union":
      return expect(type.typeIds.length, null);
    case "struct":
      return null;
    default:
      return expect(0, null);
  }
}

/**
 * Checks what the types alone don't say: no column twice, no dictionary within a dictionary, children that fit, a bound
 * on depth. Returns the rule that is broken, or null.
 */
export function schemaProblem(fields: readonly FieldSpec[], inDictionary = false, depth = 0): string | null {
  if (depth > DEPTH_MAX) return `columns nested more than ${DEPTH_MAX} deep`;
  const names = new Set<string>();
  for (const field of fields) {
    if (names.has(field.name)) return `two columns are named '${field.name}'`;
    names.add(field.name);
    if (inDictionary && field.dictionary) return `column ${field.name}: a dictionary within a dictionary's values`;
    const problem = schemaProblem(field.children ?? [], inDictionary || field.dictionary !== undefined, depth + 1);
    if (problem) return problem;
  }
  return null;
}

export const DEPTH_MAX = 32;

/** Canonical bytes of fields as plain data. @throws `invalid_argument`, `limit_exceeded` */
export function encodeSchema(fields: readonly FieldSpec[], metadata: Iterable<readonly [string, string]>): Uint8Array {
  const problem = schemaProblem(fields);
  if (problem) throw new ShardpactError("invalid_argument", `a schema cannot be published: ${problem}`);
  const kept = meaningfulMetadata(metadata);
  const spec: SchemaSpec = { format: "shardpact-schema/1", fields, ...(kept ? { metadata: kept } : {}) };
  const bytes = utf8(canonicalJson(spec));
  if (bytes.byteLength > LIMITS.metaBytesMax) {
    throw new ShardpactError("limit_exceeded", `a schema of ${bytes.byteLength} bytes; ${LIMITS.metaBytesMax} fit`, {
      hint: "Put wide numeric columns into one FixedSizeList column.",
    });
  }
  return bytes;
}

/** Dictionary columns of a schema, depth first. Position k has dictionary id k in `schemaFromCanonical`. */
export function dictionaryFields(fields: readonly FieldSpec[]): readonly FieldSpec[] {
  return fields.flatMap((field) => [...(field.dictionary ? [field] : []), ...dictionaryFields(field.children ?? [])]);
}
