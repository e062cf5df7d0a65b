/**
 * Owns the table between types as plain data and arrow-js types, both ways.
 */
import {
  Binary,
  BinaryView,
  Bool,
  DataType,
  Date_,
  DateUnit,
  Decimal,
  Dictionary,
  Duration,
  FixedSizeBinary,
  FixedSizeList,
  Float,
  Int,
  Interval,
  LargeBinary,
  LargeList,
  LargeUtf8,
  List,
  Map_,
  Null,
  Precision,
  Struct,
  Time,
  Timestamp,
  TimeUnit,
  Union,
  UnionMode,
  Utf8,
  Utf8View,
  type Field,
} from "apache-arrow";
import { invariant } from "../model/errors.ts";
import type { FieldSpec, TypeSpec } from "./schema-form.ts";
import { FLOAT_BITS, INTERVAL_UNITS, TIME_UNITS } from "./schema-spec.ts";

/** The arrow-js type of a field; `id` is the dictionary's, of a dictionary column. */
export function arrowType(field: FieldSpec, children: Field[], id: number): DataType {
  const values = valueType(field.type, children);
  const { dictionary } = field;
  if (!dictionary) return values;
  const indices = new Int(dictionary.signed, dictionary.bits) as unknown as ConstructorParameters<typeof Dictionary>[1];
  return new Dictionary(values, indices, id, dictionary.ordered);
}

function valueType(type: TypeSpec, children: Field[]): DataType {
  const [child] = children;
  switch (type.kind) {
    case "null":
      return new Null();
    case "bool":
      return new Bool();
    case "utf8":
      return new Utf8();
    case "large_utf8":
      return new LargeUtf8();
    case "utf8_view":
      return new Utf8View();
    case "binary":
      return new Binary();
    case "large_binary":
      return new LargeBinary();
    case "binary_view":
      return new BinaryView();
    case "int":
      return new Int(type.signed, type.bits);
    case "float":
      return new Float(FLOAT_BITS.indexOf(type.bits) as Precision);
    case "decimal":
      return new Decimal(type.scale, type.precision, type.bits);
    case "date":
      return new Date_(type.unit === "day" ? DateUnit.DAY : DateUnit.MILLISECOND);
    case "time":
      return new Time(TIME_UNITS.indexOf(type.unit) as TimeUnit, type.bits);
    case "timestamp":
      return new Timestamp(TIME_UNITS.indexOf(type.unit) as TimeUnit, type.timezone);
    case "interval":
      return new Interval(INTERVAL_UNITS.indexOf(type.unit));
    case "duration":
      return new Duration(TIME_UNITS.indexOf(type.unit) as TimeUnit);
    case "fixed_size_binary":
      return new FixedSizeBinary(type.bytes);
    case "struct":
      return new Struct(children);
    case "union":
      return new Union(type.mode === "dense" ? UnionMode.Dense : UnionMode.Sparse, type.typeIds, children);
    default:
      invariant(child, `a ${type.kind} has a child`);
      if (type.kind === "fixed_size_list") return new FixedSizeList(type.size, child);
      if (type.kind === "map") return new Map_(child as ConstructorParameters<typeof Map_>[0], type.keysSorted);
      return type.kind === "list" ? new List(child) : new LargeList(child);
  }
}

/** @throws RangeError on a type that has no form here */
export function specOfType(type: DataType): TypeSpec {
  if (DataType.isNull(type)) return { kind: "null" };
  if (DataType.isBool(type)) return { kind: "bool" };
  if (DataType.isUtf8(type)) return { kind: "utf8" };
  if (DataType.isLargeUtf8(type)) return { kind: "large_utf8" };
  if (DataType.isUtf8View(type)) return { kind: "utf8_view" };
  if (DataType.isBinary(type)) return { kind: "binary" };
  if (DataType.isLargeBinary(type)) return { kind: "large_binary" };
  if (DataType.isBinaryView(type)) return { kind: "binary_view" };
  if (DataType.isList(type)) return { kind: "list" };
  if (DataType.isLargeList(type)) return { kind: "large_list" };
  if (DataType.isStruct(type)) return { kind: "struct" };
  if (DataType.isInt(type)) return { kind: "int", bits: type.bitWidth, signed: type.isSigned };
  if (DataType.isFloat(type)) return { kind: "float", bits: FLOAT_BITS[type.precision] };
  if (DataType.isFixedSizeBinary(type)) return { kind: "fixed_size_binary", bytes: type.byteWidth };
  if (DataType.isFixedSizeList(type)) return { kind: "fixed_size_list", size: type.listSize };
  return specOfRareType(type);
}

function specOfRareType(type: DataType): TypeSpec {
  if (DataType.isDecimal(type)) {
    const bits = type.bitWidth as 32 | 64 | 128 | 256;
    return { kind: "decimal", precision: type.precision, scale: type.scale, bits };
  }
  if (DataType.isDate(type)) return { kind: "date", unit: type.unit === DateUnit.DAY ? "day" : "ms" };
  if (DataType.isTime(type)) return { kind: "time", unit: TIME_UNITS[type.unit], bits: type.bitWidth };
  if (DataType.isTimestamp(type)) {
    return { kind: "timestamp", unit: TIME_UNITS[type.unit], timezone: type.timezone || null };
  }
  if (DataType.isDuration(type)) return { kind: "duration", unit: TIME_UNITS[type.unit] };
  if (DataType.isInterval(type)) return { kind: "interval", unit: INTERVAL_UNITS[type.unit] };
  if (DataType.isMap(type)) return { kind: "map", keysSorted: type.keysSorted };
  if (DataType.isUnion(type)) {
    const mode = type.mode === UnionMode.Dense ? "dense" : "sparse";
    return { kind: "union", mode, typeIds: Array.from(type.typeIds) };
  }
  throw new RangeError(`type ${String(type)} is not supported`);
}
