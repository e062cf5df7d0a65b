/**
 * Owns the form of a schema as plain data: what the canonical schema's JSON holds, and its validation.
 *
 * `schema-spec.ts` has the rules that a form does not say; it and what reads files know these types alone, so that a thread that
 * scans need not load a validator.
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
