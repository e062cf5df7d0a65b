/**
 * The kinds of single values that columns are made of, and the ways to read each.
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
  FixedSizeBinary,
  Float16,
  Float32,
  Float64,
  Int16,
  Int32,
  Int64,
  Int8,
  LargeBinary,
  LargeUtf8,
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
import type { ColumnOptions } from "../../../src/loader/columns/options.ts";
import type { Rng } from "../../../src/merkle/rng.ts";
import type { Cell } from "./arrow-data.ts";

export interface Kind {
  readonly type: () => DataType;
  readonly cell: (rng: Rng) => Cell;
  /** Ways to read it; each also without lists around it only if `scalar`. */
  readonly options: readonly (ColumnOptions & { readonly scalar?: true })[];
}

export const between = (low: number, high: number) => (rng: Rng) => low + Math.floor(rng.uniform() * (high - low + 1));
const wide = (low: number, high: number) => (rng: Rng) => BigInt(between(low, high)(rng));
export const oneOf =
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

export const KINDS: Readonly<Record<string, Kind>> = {
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
