/**
 * Owns reading the FlatBuffer form of an Arrow schema into plain fields, from a file nobody vouches for.
 * Source: format/Schema.fbs.
 */
import { FlatError, type FlatTable } from "./flat.ts";
import type { FieldSpec, PlainKind, TypeSpec } from "./schema-form.ts";
import { DEPTH_MAX, FLOAT_BITS, INTERVAL_UNITS, makeField, meaningfulMetadata, TIME_UNITS } from "./schema-spec.ts";

export interface FlatSchema {
  readonly fields: readonly FieldSpec[];
  readonly metadata: readonly (readonly [string, string])[];
  /** Per dictionary column, depth first: the file's id of its dictionary. */
  readonly dictionaryIds: readonly number[];
}

/** @throws FlatError, RangeError */
export function readFlatSchema(schema: FlatTable): FlatSchema {
  if (schema.i16(0, 0) !== 0) throw new FlatError("it is big-endian; write it on a little-endian machine");
  const dictionaryIds: number[] = [];
  const fields = schema.tables(1).map((field) => readField(field, dictionaryIds, 0));
  return { fields, metadata: readMetadata(schema, 2), dictionaryIds };
}

function readField(field: FlatTable, dictionaryIds: number[], depth: number): FieldSpec {
  if (depth > DEPTH_MAX) throw new FlatError(`its columns are nested more than ${DEPTH_MAX} deep`);
  const name = field.text(0) ?? "";
  const encoding = field.table(4);
  if (encoding) dictionaryIds.push(encoding.count(0));
  const metadata = meaningfulMetadata(readMetadata(field, 6));
  return makeField({
    name,
    type: readType(field.u8(2, 0), field.table(3), name),
    nullable: field.bool(1),
    children: field.tables(5).map((child) => readField(child, dictionaryIds, depth + 1)),
    ...(encoding ? { dictionary: readEncoding(encoding, name) } : {}),
    ...(metadata ? { metadata } : {}),
  });
}

function readEncoding(encoding: FlatTable, name: string): NonNullable<FieldSpec["dictionary"]> {
  const index = encoding.table(1);
  const bits = index ? intBits(index, name) : 32; // absent: signed 32 bits
  return { bits, signed: index ? index.bool(1) : true, ordered: encoding.bool(2) };
}

function readMetadata(table: FlatTable, slot: number): (readonly [string, string])[] {
  return table.tables(slot).map((entry) => [entry.text(0) ?? "", entry.text(1) ?? ""] as const);
}

const PLAIN: Readonly<Record<number, PlainKind>> = {
  1: "null",
  4: "binary",
  5: "utf8",
  6: "bool",
  12: "list",
  13: "struct",
  19: "large_binary",
  20: "large_utf8",
  21: "large_list",
  23: "binary_view",
  24: "utf8_view",
};

const UNKNOWN: Readonly<Record<number, string>> = { 22: "run-end encoded", 25: "list view", 26: "large list view" };

function readType(id: number, type: FlatTable | null, name: string): TypeSpec {
  const plain = PLAIN[id];
  if (plain) return { kind: plain };
  if (!type) throw new FlatError(`column ${name}: its type is missing`);
  switch (id) {
    case 2:
      return { kind: "int", bits: intBits(type, name), signed: type.bool(1) };
    case 3:
      return { kind: "float", bits: pick(FLOAT_BITS, type.i16(0, 0), name) };
    case 7: {
      const bits = pick([32, 64, 128, 256] as const, [32, 64, 128, 256].indexOf(type.i32(2, 128)), name);
      return { kind: "decimal", precision: type.i32(0, 0), scale: type.i32(1, 0), bits };
    }
    case 8:
      return { kind: "date", unit: pick(["day", "ms"] as const, type.i16(0, 1), name) };
    case 9:
      return {
        kind: "time",
        unit: pick(TIME_UNITS, type.i16(0, 1), name),
        bits: type.i32(1, 32) === 64 ? 64 : 32,
      };
    case 10:
      return { kind: "timestamp", unit: pick(TIME_UNITS, type.i16(0, 0), name), timezone: type.text(1) || null };
    case 11:
      return { kind: "interval", unit: pick(INTERVAL_UNITS, type.i16(0, 0), name) };
    case 18:
      return { kind: "duration", unit: pick(TIME_UNITS, type.i16(0, 1), name) };
    default:
      return readSizedType(id, type, name);
  }
}

function readSizedType(id: number, type: FlatTable, name: string): TypeSpec {
  switch (id) {
    case 14:
      return { kind: "union", mode: type.i16(0, 0) === 1 ? "dense" : "sparse", typeIds: readTypeIds(type, name) };
    case 15:
      return { kind: "fixed_size_binary", bytes: size(type, name) };
    case 16:
      return { kind: "fixed_size_list", size: size(type, name) };
    case 17:
      return { kind: "map", keysSorted: type.bool(0) };
    default:
      throw new FlatError(`column ${name}: type ${UNKNOWN[id] ?? `number ${id}`} is not supported`);
  }
}

function readTypeIds(type: FlatTable, name: string): number[] {
  const ids = type.i32s(1);
  if (ids.length > 128 || ids.some((id) => id < 0 || id > 127))
    throw new FlatError(`column ${name}: bad union type ids`);
  return ids;
}

function intBits(type: FlatTable, name: string): 8 | 16 | 32 | 64 {
  return pick([8, 16, 32, 64] as const, [8, 16, 32, 64].indexOf(type.i32(0, 0)), name);
}

function size(type: FlatTable, name: string): number {
  const value = type.i32(0, 0);
  if (value < 0) throw new FlatError(`column ${name}: a negative size`);
  return value;
}

function pick<T>(values: readonly T[], at: number, name: string): T {
  const value = values[at];
  if (value === undefined) throw new FlatError(`column ${name}: its type has an unknown unit or width`);
  return value;
}
