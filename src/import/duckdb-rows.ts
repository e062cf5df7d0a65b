/**
 * Owns which Arrow type a DuckDB column becomes, and reading DuckDB's vectors as rows of it.
 *
 * Numbers keep their width, times their unit; texts stay plain. What Arrow or a tensor has no use for is refused by name.
 */
import type {
  DuckDBArrayType,
  DuckDBDecimalType,
  DuckDBListType,
  DuckDBListVector,
  DuckDBStructType,
  DuckDBType,
  DuckDBVector,
} from "@duckdb/node-api";
import {
  Binary,
  Bool,
  DataType,
  DateDay,
  Decimal,
  Field,
  FixedSizeList,
  Float32,
  Float64,
  Int16,
  Int32,
  Int64,
  Int8,
  List,
  Struct,
  TimeMicrosecond,
  TimeNanosecond,
  Timestamp,
  TimeUnit,
  Uint16,
  Uint32,
  Uint64,
  Uint8,
  Utf8,
} from "apache-arrow";
import { utf8 } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import type { RowSource, Values } from "./row-source.ts";

const DECIMAL_WORDS = 4;

/** By the name of DuckDB's type, where that says all. Texts of other kinds are cast to VARCHAR before they come here. */
const PLAIN: Readonly<Record<string, () => DataType>> = {
  BOOLEAN: () => new Bool(),
  TINYINT: () => new Int8(),
  SMALLINT: () => new Int16(),
  INTEGER: () => new Int32(),
  BIGINT: () => new Int64(),
  UTINYINT: () => new Uint8(),
  USMALLINT: () => new Uint16(),
  UINTEGER: () => new Uint32(),
  UBIGINT: () => new Uint64(),
  FLOAT: () => new Float32(),
  DOUBLE: () => new Float64(),
  DATE: () => new DateDay(),
  TIME: () => new TimeMicrosecond(),
  TIME_NS: () => new TimeNanosecond(),
  TIMESTAMP: () => new Timestamp(TimeUnit.MICROSECOND),
  TIMESTAMP_S: () => new Timestamp(TimeUnit.SECOND),
  TIMESTAMP_MS: () => new Timestamp(TimeUnit.MILLISECOND),
  TIMESTAMP_NS: () => new Timestamp(TimeUnit.NANOSECOND),
  "TIMESTAMP WITH TIME ZONE": () => new Timestamp(TimeUnit.MICROSECOND, "UTC"),
  VARCHAR: () => new Utf8(),
  BLOB: () => new Binary(),
};
/** Texts in all but their type. */
const AS_TEXT = /^(ENUM|UUID|JSON)/;

/** What to select a column as, so that `arrowTypeOf` knows it: texts of other names, in lists and structs too. */
export function castOf(type: DuckDBType): string | null {
  const name = type.toString();
  if (isList(name)) {
    const inner = castOf((type as DuckDBListType).valueType);
    return inner === null ? null : inner + (/\[\d*\]$/.exec(name)?.[0] ?? "[]");
  }
  if (AS_TEXT.test(name)) return "VARCHAR";
  if (!name.startsWith("STRUCT")) return null;
  const { entryNames, entryTypes } = type as DuckDBStructType;
  const inner = entryTypes.map(castOf);
  if (inner.every((cast) => cast === null)) return null;
  const entries = inner.map((cast, i) => {
    return `"${(entryNames[i] ?? "").replaceAll('"', '""')}" ${cast ?? String(entryTypes[i])}`;
  });
  return `STRUCT(${entries.join(", ")})`;
}

/** A list's name is that of its items and brackets; those of a fixed-size list hold its length. */
function isList(name: string): boolean {
  return name.endsWith("]");
}

/** @throws ShardpactError `type_unsupported` naming the column */
export function arrowTypeOf(type: DuckDBType, column: string): DataType {
  const name = type.toString();
  const plain = PLAIN[name];
  if (plain) return plain();
  if (isList(name)) {
    const { valueType } = type as DuckDBListType;
    const item = new Field("item", arrowTypeOf(valueType, column), true);
    return name.endsWith("[]") ? new List(item) : new FixedSizeList((type as DuckDBArrayType).length, item);
  }
  if (name.startsWith("DECIMAL")) {
    const { width, scale } = type as DuckDBDecimalType;
    return new Decimal(scale, width, DECIMAL_WORDS * 32);
  }
  if (name.startsWith("STRUCT")) {
    const { entryNames, entryTypes } = type as DuckDBStructType;
    const fields = entryTypes.map((entry, i) => {
      const entryName = entryNames[i] ?? String(i);
      return new Field(entryName, arrowTypeOf(entry, `${column}.${entryName}`), true);
    });
    return new Struct(fields);
  }
  throw new ShardpactError("type_unsupported", `column '${column}' is of type ${name}, which has no place in a shard`, {
    details: { column, type: name },
    hint: `Name another type for it: --schema '{"${column}": "${name.endsWith("HUGEINT") ? "UBIGINT" : "VARCHAR"}"}'.`,
  });
}

/** A vector of `type`, which `arrowTypeOf` gave, as rows. */
export function duckRows(vector: DuckDBVector, type: DataType): RowSource {
  const { validity } = vector as unknown as { validity: { itemValid(row: number): boolean } };
  const valid = (row: number): boolean => validity.itemValid(row);
  if (DataType.isBool(type)) return { valid, bit: (row) => vector.getItem(row) === true };
  if (DataType.isUtf8(type)) return { valid, bytes: (row) => utf8(String(vector.getItem(row))) };
  if (DataType.isBinary(type)) return { valid, bytes: (row) => (vector.getItem(row) as { bytes: Uint8Array }).bytes };
  if (DataType.isDecimal(type)) return decimalRows(vector, valid);
  if (DataType.isStruct(type)) {
    const { entryVectors } = vector as unknown as { entryVectors: readonly DuckDBVector[] };
    return { valid, children: type.children.map((field, i) => duckRows(entryVectors[i] as DuckDBVector, field.type)) };
  }
  if (DataType.isFixedSizeList(type)) {
    const { childData } = vector as unknown as { childData: DuckDBVector };
    const size = type.listSize;
    return { valid, children: [duckRows(childData, type.valueType)], range: (row) => [row * size, row * size + size] };
  }
  if (DataType.isList(type)) {
    const list = vector as DuckDBListVector;
    const range = (row: number): readonly [number, number] => {
      const from = list.getEntryOffset(row);
      return [from, from + list.getEntryLength(row)];
    };
    return { valid, children: [duckRows(list.childVector, type.valueType)], range };
  }
  return { valid, values: (vector as unknown as { items: Values }).items, stride: 1 };
}

/** DuckDB keeps a decimal in as few bytes as it takes; Arrow in sixteen, little-endian, two's complement. */
function decimalRows(vector: DuckDBVector, valid: (row: number) => boolean): RowSource {
  const scaled = vector as unknown as { getScaledValue(row: number): number | bigint };
  const values = new Uint32Array(vector.itemCount * DECIMAL_WORDS);
  for (let row = 0; row < vector.itemCount; row++) {
    if (!valid(row)) continue;
    let rest = BigInt.asUintN(128, BigInt(scaled.getScaledValue(row)));
    for (let word = 0; word < DECIMAL_WORDS; word++, rest >>= 32n) {
      values[row * DECIMAL_WORDS + word] = Number(rest & 0xffff_ffffn);
    }
  }
  return { valid, values, stride: DECIMAL_WORDS };
}
