/**
 * Owns the canonical schema: the bytes that a version's root covers, and arrow-js schemas to and from them.
 *
 * The bytes are canonical JSON of `SchemaSpec`. Files of the same columns and types have equal bytes whichever of
 * arrow-js, pyarrow and polars wrote them. Dictionary ids are not part of it: the k-th dictionary column, depth first,
 * has id k in the schemas made here, and `SegmentIndex.dictionaryIds` maps a file's own ids.
 */
import { DataType, Field, Schema } from "apache-arrow";
import { bytesEqual } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { canonicalJson } from "../model/json.ts";
import { type FieldSpec, type SchemaSpec, schemaSpec } from "./schema-form.ts";
import { encodeSchema, makeField, meaningfulMetadata, schemaProblem } from "./schema-spec.ts";
import { arrowType, specOfType } from "./schema-types.ts";

/** Canonical bytes of an arrow-js schema. @throws `type_unsupported`, `invalid_argument`, `limit_exceeded` */
export function canonicalSchema(schema: Schema): Uint8Array {
  return encodeSchema(schema.fields.map(specOfField), schema.metadata);
}

/** @throws `damaged` on anything that `canonicalSchema` would not write */
export function decodeSchema(bytes: Uint8Array): SchemaSpec {
  try {
    const json: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
    const spec = schemaSpec.parse(json);
    const fields = spec.fields.map(remade);
    const problem = schemaProblem(fields);
    if (problem) throw new RangeError(problem);
    if (!bytesEqual(encodeSchema(fields, Object.entries(spec.metadata ?? {})), bytes)) {
      throw new RangeError("another form than the canonical one");
    }
    return spec;
  } catch (cause) {
    throw new ShardpactError("damaged", `a canonical schema does not decode: ${String(cause).slice(0, 300)}`, {
      cause,
    });
  }
}

function remade(field: FieldSpec): FieldSpec {
  return makeField({ ...field, ...(field.children ? { children: field.children.map(remade) } : {}) });
}

/** The arrow-js schema of canonical bytes; dictionary columns have ids 0, 1, … depth first. @throws `damaged` */
export function schemaFromCanonical(bytes: Uint8Array): Schema {
  return arrowSchema(decodeSchema(bytes));
}

export function arrowSchema(spec: SchemaSpec): Schema {
  const ids = { next: 0 };
  const fields = spec.fields.map((field) => arrowField(field, ids));
  return new Schema(fields, new Map(Object.entries(spec.metadata ?? {})));
}

export interface SchemaDifference {
  /** Dotted path of the first column that differs; empty for metadata of the whole schema. */
  readonly field: string;
  readonly a: string;
  readonly b: string;
}

/** The first difference between two canonical schemas, in words; null when they are equal. @throws `damaged` */
export function firstSchemaDifference(a: Uint8Array, b: Uint8Array): SchemaDifference | null {
  if (bytesEqual(a, b)) return null;
  const [left, right] = [decodeSchema(a), decodeSchema(b)];
  return (
    fieldsDifference("", left.fields, right.fields) ?? {
      field: "",
      a: `metadata ${canonicalJson(left.metadata ?? {})}`,
      b: `metadata ${canonicalJson(right.metadata ?? {})}`,
    }
  );
}

function fieldsDifference(path: string, a: readonly FieldSpec[], b: readonly FieldSpec[]): SchemaDifference | null {
  for (let i = 0; i < Math.max(a.length, b.length); i += 1) {
    const [left, right] = [a[i], b[i]];
    if (canonicalJson(left ?? null) === canonicalJson(right ?? null)) continue;
    const field = [path, (left ?? right)?.name].filter(Boolean).join(".");
    const own = left && right && describeField(left) === describeField(right);
    const below = own ? fieldsDifference(field, left.children ?? [], right.children ?? []) : null;
    return below ?? { field, a: describeField(left), b: describeField(right) };
  }
  return null;
}

function describeField(field: FieldSpec | undefined): string {
  if (!field) return "absent";
  const { kind, ...params } = field.type;
  const type = Object.keys(params).length > 0 ? `${kind}${canonicalJson(params)}` : kind;
  const dictionary = field.dictionary ? ` dictionary${canonicalJson(field.dictionary)}` : "";
  const metadata = field.metadata ? ` metadata${canonicalJson(field.metadata)}` : "";
  return `${field.name}: ${type}${dictionary}${field.nullable ? "" : " not null"}${metadata}`;
}

function arrowField(field: FieldSpec, ids: { next: number }): Field {
  const id = field.dictionary ? ids.next++ : -1;
  const children = (field.children ?? []).map((child) => arrowField(child, ids));
  const type = arrowType(field, children, id);
  return new Field(field.name, type, field.nullable, new Map(Object.entries(field.metadata ?? {})));
}

function specOfField(field: Field): FieldSpec {
  const type = field.type as DataType;
  const values: DataType = DataType.isDictionary(type) ? type.dictionary : type;
  const children = ((values.children ?? []) as Field[]).map(specOfField);
  const metadata = meaningfulMetadata(field.metadata);
  try {
    return makeField({
      name: field.name,
      type: specOfType(values),
      nullable: field.nullable,
      children,
      ...(DataType.isDictionary(type)
        ? { dictionary: { bits: type.indices.bitWidth, signed: type.indices.isSigned, ordered: type.isOrdered } }
        : {}),
      ...(metadata ? { metadata } : {}),
    });
  } catch (cause) {
    throw new ShardpactError("type_unsupported", `column ${field.name}: ${String(cause).slice(0, 300)}`, { cause });
  }
}
