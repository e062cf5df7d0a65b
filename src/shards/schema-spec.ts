/**
 * Owns a schema as plain data: what the canonical schema's JSON holds, and its validation.
 *
 * Everything that two writers may do differently without meaning something else is not in it: dictionary ids, names of
 * list items and map entries, pandas and polars notes. `schema.ts` makes bytes and arrow-js schemas of it.
 */
import { z } from "zod";

const timeUnit = z.enum(["s", "ms", "us", "ns"]);
const bits = z.union([z.literal(8), z.literal(16), z.literal(32), z.literal(64)]);
const plain = [
  "null",
  "bool",
  "utf8",
  "large_utf8",
  "utf8_view",
  "binary",
  "large_binary",
  "binary_view",
  "list",
  "large_list",
  "struct",
] as const;

const typeSpec = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.enum(plain) }),
  z.strictObject({ kind: z.literal("int"), bits, signed: z.boolean() }),
  z.strictObject({ kind: z.literal("float"), bits: z.union([z.literal(16), z.literal(32), z.literal(64)]) }),
  z.strictObject({
    kind: z.literal("decimal"),
    precision: z.int().min(1).max(76),
    scale: z.int().min(-128).max(128),
    bits: z.union([z.literal(32), z.literal(64), z.literal(128), z.literal(256)]),
  }),
  z.strictObject({ kind: z.literal("date"), unit: z.enum(["day", "ms"]) }),
  z.strictObject({ kind: z.literal("time"), unit: timeUnit, bits: z.union([z.literal(32), z.literal(64)]) }),
  z.strictObject({ kind: z.literal("timestamp"), unit: timeUnit, timezone: z.string().nullable() }),
  z.strictObject({ kind: z.literal("interval"), unit: z.enum(["year_month", "day_time", "month_day_nano"]) }),
  z.strictObject({ kind: z.literal("duration"), unit: timeUnit }),
  z.strictObject({
    kind: z.literal("fixed_size_binary"),
    bytes: z
      .int()
      .min(0)
      .max(2 ** 31 - 1),
  }),
  z.strictObject({
    kind: z.literal("fixed_size_list"),
    size: z
      .int()
      .min(0)
      .max(2 ** 31 - 1),
  }),
  z.strictObject({ kind: z.literal("map"), keysSorted: z.boolean() }),
  z.strictObject({
    kind: z.literal("union"),
    mode: z.enum(["sparse", "dense"]),
    typeIds: z.array(z.int().min(0).max(127)).max(128),
  }),
]);
/** Types without parameters. */
export type PlainKind = (typeof plain)[number];
export type TypeSpec = z.infer<typeof typeSpec>;

const metadata = z.record(z.string(), z.string());

export interface FieldSpec {
  readonly name: string;
  /** Of a dictionary column: the type of its values. */
  readonly type: TypeSpec;
  readonly nullable: boolean;
  readonly children?: readonly FieldSpec[] | undefined;
  readonly dictionary?:
    | { readonly bits: 8 | 16 | 32 | 64; readonly signed: boolean; readonly ordered: boolean }
    | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

const fieldSpec: z.ZodType<FieldSpec> = z.lazy(() =>
  z.strictObject({
    name: z.string(),
    type: typeSpec,
    nullable: z.boolean(),
    children: z.array(fieldSpec).optional(),
    dictionary: z.strictObject({ bits, signed: z.boolean(), ordered: z.boolean() }).optional(),
    metadata: metadata.optional(),
  }),
);

export const schemaSpec = z.strictObject({
  format: z.literal("shardpact-schema/1"),
  fields: z.array(fieldSpec),
  metadata: metadata.optional(),
});
export interface SchemaSpec {
  readonly format: "shardpact-schema/1";
  readonly fields: readonly FieldSpec[];
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

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
