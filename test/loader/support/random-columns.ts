/**
 * Columns drawn at random over the whole table of types: a field, its cells, the options to read it with, and what the slow
 * reference must know of it.
 */
import {
  Binary,
  BinaryView,
  Bool,
  type DataType,
  DateDay,
  DateMillisecond,
  Decimal,
  Dictionary,
  Duration,
  Field,
  FixedSizeBinary,
  FixedSizeList,
  Float16,
  Float32,
  Float64,
  Int16,
  Int32,
  Int64,
  Int8,
  LargeBinary,
  LargeList,
  LargeUtf8,
  List,
  Struct,
  TimeMicrosecond,
  TimeSecond,
  TimestampMicrosecond,
  TimestampMillisecond,
  TimestampNanosecond,
  TimestampSecond,
  TimeUnit,
  Uint16,
  Uint32,
  Uint64,
  Uint8,
  Utf8,
  Utf8View,
} from "apache-arrow";
import fc from "fast-check";
import type { ColumnOptions } from "../../../src/loader/columns/options.ts";
import { hashBytes } from "../../../src/merkle/hash.ts";
import { createRng, type Rng } from "../../../src/merkle/rng.ts";
import { utf8 } from "../../../src/model/bytes.ts";
import type { Cell } from "./arrow-data.ts";
import type { SlowColumn } from "./slow-columns.ts";

interface Kind {
  readonly type: () => DataType;
  readonly cell: (rng: Rng) => Cell;
  /** Ways to read it; each also without lists around it only if `scalar`. */
  readonly options: readonly (ColumnOptions & { readonly scalar?: true })[];
}

const between = (low: number, high: number) => (rng: Rng) => low + Math.floor(rng.uniform() * (high - low + 1));
const wide = (low: number, high: number) => (rng: Rng) => BigInt(between(low, high)(rng));
const oneOf =
  <T>(...all: readonly T[]) =>
  (rng: Rng) =>
    all[Math.floor(rng.uniform() * all.length)] as T;
const BIG = 2 ** 24;

const TEXTS = [
  "",
  "a",
  "ant",
  "caterpillar is longer",
  "ß→🦔",
  "\uFEFFmarked",
  "\u0000",
  "null",
  "twelve bytes",
  "thirteen byte",
];
const text = {
  cell: oneOf(...TEXTS),
  options: [
    { dtype: "string", scalar: true },
    { classes: "agreed" },
    { classes: "agreed", oneHot: true, scalar: true },
  ],
} as const;
const time = (units: readonly ColumnOptions[]): readonly ColumnOptions[] => units;
const DAYS = time([{ unit: "d" }, { unit: "d", since: "2020-02-29" }, { unit: "h", since: "2020-01-01" }]);

const KINDS: Readonly<Record<string, Kind>> = {
  int8: { type: () => new Int8(), cell: between(-128, 127), options: [{}, { dtype: "int32" }] },
  int16: { type: () => new Int16(), cell: between(-32768, 32767), options: [{}, { dtype: "int32" }] },
  int32: { type: () => new Int32(), cell: between(-BIG, BIG), options: [{}, { dtype: "int32" }] },
  int32Large: { type: () => new Int32(), cell: between(-(2 ** 31), 2 ** 31 - 1), options: [{ dtype: "int32" }, {}] },
  uint8: {
    type: () => new Uint8(),
    cell: between(0, 3),
    options: [{}, { oneHot: 4, scalar: true }, { dtype: "int32" }],
  },
  uint16: { type: () => new Uint16(), cell: between(0, 65535), options: [{}] },
  uint32: { type: () => new Uint32(), cell: between(0, BIG), options: [{}, { dtype: "int32" }] },
  int64: { type: () => new Int64(), cell: wide(-BIG, BIG), options: [{}, { dtype: "int32" }, { hash: 1000 }] },
  int64Large: { type: () => new Int64(), cell: wide(-(2 ** 62), 2 ** 62), options: [{ hash: 17 }, { hash: 2 ** 24 }] },
  uint64: { type: () => new Uint64(), cell: wide(0, BIG), options: [{}, { hash: 3 }] },
  flag: { type: () => new Int8(), cell: oneOf(0, 1), options: [{ dtype: "bool" }, { oneHot: 2, scalar: true }] },
  float16: { type: () => new Float16(), cell: between(0, 0x7bff), options: [{}] },
  float32: { type: () => new Float32(), cell: oneOf(0, -0, 1.5, -3e38, 1e-45, NaN, Infinity, 0.1), options: [{}] },
  float64: {
    type: () => new Float64(),
    cell: oneOf(0, -0, 0.1, 1e38, -1e-300, NaN, -Infinity, 16777217),
    options: [{}],
  },
  integers: { type: () => new Float64(), cell: between(-(2 ** 31), 2 ** 31 - 1), options: [{ dtype: "int32" }] },
  bool: { type: () => new Bool(), cell: oneOf(true, false), options: [{}, { dtype: "bool" }, { dtype: "int32" }] },
  utf8: { type: () => new Utf8(), ...text },
  largeUtf8: { type: () => new LargeUtf8(), ...text },
  utf8View: { type: () => new Utf8View(), ...text },
  dictionary8: { type: () => new Dictionary(new Utf8(), new Int8()), ...text },
  dictionary32: { type: () => new Dictionary(new Utf8(), new Uint32()), ...text },
  dictionaryInt: {
    type: () => new Dictionary(new Int32(), new Int16()),
    cell: between(-9, 9),
    options: [{}, { dtype: "int32" }],
  },
  dictionaryFloat: { type: () => new Dictionary(new Float64(), new Uint8()), cell: oneOf(0.5, 1e9, -7), options: [{}] },
  date: { type: () => new DateDay(), cell: wide(0, 30_000), options: DAYS },
  dateMs: { type: () => new DateMillisecond(), cell: (rng) => wide(0, 30_000)(rng) * 86_400_000n, options: DAYS },
  second: {
    type: () => new TimestampSecond("UTC"),
    cell: wide(-BIG, BIG),
    options: time([{ unit: "s" }, { unit: "d" }]),
  },
  milli: {
    type: () => new TimestampMillisecond(),
    cell: wide(-(2 ** 40), 2 ** 40),
    options: time([{ unit: "min" }, { unit: "h", since: "2001-01-01" }]),
  },
  micro: {
    type: () => new TimestampMicrosecond("Europe/Paris"),
    cell: wide(0, 2 ** 50),
    options: time([{ unit: "h" }]),
  },
  nano: {
    type: () => new TimestampNanosecond(),
    cell: wide(0, 2 ** 62),
    options: time([{ unit: "h" }, { unit: "d" }]),
  },
  time32: {
    type: () => new TimeSecond(),
    cell: wide(0, 86_399),
    options: time([{ unit: "min" }, { unit: "s", dtype: "int32" }]),
  },
  time64: {
    type: () => new TimeMicrosecond(),
    cell: wide(0, 86_399_999_999),
    options: time([{ unit: "s" }, { unit: "h" }]),
  },
  duration: {
    type: () => new Duration(TimeUnit.MICROSECOND),
    cell: wide(-(2 ** 40), 2 ** 40),
    options: time([{ unit: "s" }]),
  },
  decimal: { type: () => new Decimal(3, 20, 128), cell: wide(-(2 ** 60), 2 ** 60), options: [{ lossy: true }] },
  decimal256: {
    type: () => new Decimal(-2, 50, 256),
    cell: (rng) => wide(-(2 ** 50), 2 ** 50)(rng) << 60n,
    options: [{ lossy: true }],
  },
  bytes: {
    type: () => new FixedSizeBinary(3),
    cell: (rng) => Uint8Array.from({ length: 3 }, () => between(0, 255)(rng)),
    options: [{ dtype: "uint8" }],
  },
  image: { type: () => new Binary(), cell: () => null, options: [{ image: {}, scalar: true }] },
  largeImage: {
    type: () => new LargeBinary(),
    cell: () => null,
    options: [{ image: { scale: 1 / 255 }, scalar: true }],
  },
  imageView: { type: () => new BinaryView(), cell: () => null, options: [{ image: { channels: 1 }, scalar: true }] },
};

/** Encoded images by channels, and their pixels. */
export interface ImagePool {
  readonly height: number;
  readonly width: number;
  readonly encoded: Readonly<Record<1 | 3, readonly Uint8Array[]>>;
  readonly pixelsOf: ReadonlyMap<string, readonly number[]>;
}

export interface ColumnDraw {
  readonly kind: string;
  readonly wrap:
    | "plain"
    | "fixed"
    | "nested"
    | "tensor"
    | "list"
    | "largeList"
    | "struct"
    | "fixedInStruct"
    | "listInStruct";
  readonly nulls: "none" | "mask" | "nan" | "number" | "refused";
  readonly option: number;
  readonly reshape: boolean;
  readonly seed: number;
}

export const columnDraw: fc.Arbitrary<ColumnDraw> = fc.record({
  kind: fc.constantFrom(...Object.keys(KINDS)),
  wrap: fc.constantFrom(
    "plain",
    "plain",
    "fixed",
    "nested",
    "tensor",
    "list",
    "largeList",
    "struct",
    "fixedInStruct",
    "listInStruct",
  ),
  nulls: fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom("none", "none", "mask", "nan", "number") },
    { weight: 1, arbitrary: fc.constant("refused") },
  ),
  option: fc.nat(5),
  reshape: fc.boolean(),
  seed: fc.nat(2 ** 30),
}) as fc.Arbitrary<ColumnDraw>;

export interface RandomColumn {
  readonly field: Field;
  readonly cells: readonly Cell[];
  readonly slow: SlowColumn;
  /** Plain texts that need a vocabulary. */
  readonly classes: boolean;
  readonly shape: readonly number[];
  readonly dtype: string;
}

export function makeColumn(top: string, draw: ColumnDraw, rows: number, images: ImagePool): RandomColumn {
  const kind = KINDS[draw.kind] as Kind;
  const rng = createRng(hashBytes(utf8(`column ${draw.seed}`)));
  const { scalar, ...chosen } = kind.options[draw.option % kind.options.length] as Kind["options"][number];
  const isBytes = draw.kind === "bytes";
  const isStruct = draw.wrap.toLowerCase().includes("struct");
  const isLoose = draw.wrap === "tensor" || draw.wrap.toLowerCase().includes("list");
  const wrap = scalar || (isBytes && isLoose) ? (isStruct ? "struct" : "plain") : draw.wrap;
  const one = cellOf(draw, chosen, kind, images);
  const type = kind.type();
  const { field, cell, lists, permutation } = wrapped(wrap, type, one, draw.nulls !== "none");
  const isInt = chosen.dtype === "int32" || chosen.dtype === "bool";
  const nulls = nullsOf(draw.nulls, isInt || chosen.dtype === "string");
  const isList = wrap === "list" || wrap === "largeList" || wrap === "listInStruct";
  const pad = isList
    ? { length: 3, value: isInt ? 1 : -1, ...(draw.reshape ? { truncate: true as const } : {}) }
    : undefined;
  const path = wrap.toLowerCase().includes("struct") ? `${top}.in` : top;
  const inner: ColumnOptions = { ...chosen, ...(nulls === undefined ? {} : { nulls }), ...(pad ? { pad } : {}) };
  const stored = storedShape(inner, isList ? [3] : isBytes ? [...lists, 3] : lists, images);
  const shape = draw.reshape && stored.length > 0 && !chosen.oneHot ? [stored.reduce((a, b) => a * b, 1)] : stored;
  const options = chosen.image ? { ...inner, shape: stored } : shape === stored ? inner : { ...inner, shape };
  return {
    field: nest(top, wrap, field, draw.nulls !== "none"),
    cells: Array.from({ length: rows }, () => nestCell(wrap, cell(rng), draw.nulls !== "none" && rng.uniform() < 0.1)),
    slow: {
      name: path,
      field,
      options,
      classes: [],
      pixelsOf: images.pixelsOf,
      ...(permutation ? { permutation } : {}),
    },
    classes: chosen.classes !== undefined,
    shape: chosen.image ? stored : shape,
    dtype: chosen.dtype === "uint8" ? "float32" : (chosen.dtype ?? "float32"),
  };
}

function nullsOf(nulls: ColumnDraw["nulls"], isWhole: boolean): ColumnOptions["nulls"] {
  if (nulls === "none" || nulls === "refused") return undefined;
  if (nulls === "nan" && !isWhole) return "nan";
  return nulls === "number" ? (isWhole ? 1 : -1.5) : "mask";
}

function storedShape(
  options: ColumnOptions,
  lists: readonly number[],
  { height, width }: ImagePool,
): readonly number[] {
  if (options.image) return [height, width, options.image.channels ?? 3];
  if (options.oneHot === true) return [-1]; // as many as the vocabulary has
  return options.oneHot === undefined ? lists : [options.oneHot];
}

function cellOf(draw: ColumnDraw, { image }: ColumnOptions, kind: Kind, { encoded }: ImagePool): (rng: Rng) => Cell {
  const value = image ? (rng: Rng): Cell => oneOf(...encoded[image.channels === 1 ? 1 : 3])(rng) : kind.cell;
  if (draw.nulls === "none") return value;
  const share = draw.nulls === "refused" ? 0.01 : 0.3;
  return (rng) => (rng.uniform() < share ? null : value(rng));
}

interface Wrapped {
  readonly field: Field;
  readonly cell: (rng: Rng) => Cell;
  readonly lists: readonly number[];
  readonly permutation?: readonly number[];
}

function wrapped(wrap: ColumnDraw["wrap"], type: DataType, one: (rng: Rng) => Cell, nullable: boolean): Wrapped {
  const item = new Field("item", type, true);
  const present = (rng: Rng): Cell => {
    for (;;) {
      const cell = one(rng);
      if (cell !== null) return cell; // nulls are of whole rows
    }
  };
  const list =
    (of: (rng: Rng) => Cell, size: (rng: Rng) => number) =>
    (rng: Rng): Cell =>
      nullable && rng.uniform() < 0.2 ? null : Array.from({ length: size(rng) }, () => of(rng));
  const full =
    (of: (rng: Rng) => Cell, size: number) =>
    (rng: Rng): Cell =>
      Array.from({ length: size }, () => of(rng));
  switch (wrap) {
    case "fixed":
    case "fixedInStruct":
      return { field: new Field("in", new FixedSizeList(4, item), true), cell: list(present, () => 4), lists: [4] };
    case "nested": {
      const pair = new FixedSizeList(2, item);
      return {
        field: new Field("in", new FixedSizeList(3, new Field("item", pair, true)), true),
        cell: list(full(present, 2), () => 3),
        lists: [3, 2],
      };
    }
    case "tensor": {
      const metadata = new Map([
        ["ARROW:extension:name", "arrow.fixed_shape_tensor"],
        ["ARROW:extension:metadata", '{"shape":[2,3],"permutation":[1,0]}'],
      ]);
      return {
        field: new Field("in", new FixedSizeList(6, item), true, metadata),
        cell: list(present, () => 6),
        lists: [3, 2],
        permutation: [0, 3, 1, 4, 2, 5],
      };
    }
    case "list":
    case "listInStruct":
      return { field: new Field("in", new List(item), true), cell: list(present, between(0, 4)), lists: [3] };
    case "largeList":
      return { field: new Field("in", new LargeList(item), true), cell: list(present, between(0, 3)), lists: [3] };
    default:
      return { field: new Field("in", type, true), cell: one, lists: [] };
  }
}

function nest(top: string, wrap: ColumnDraw["wrap"], field: Field, nullable: boolean): Field {
  if (wrap === "struct" || wrap === "fixedInStruct" || wrap === "listInStruct") {
    return new Field(top, new Struct([new Field("other", new Int8(), false), field]), nullable);
  }
  return new Field(top, field.type, true, field.metadata);
}

function nestCell(wrap: ColumnDraw["wrap"], cell: Cell, isNull: boolean): Cell {
  const isStruct = wrap === "struct" || wrap === "fixedInStruct" || wrap === "listInStruct";
  return isStruct ? (isNull ? null : { other: 1, in: cell }) : cell;
}
