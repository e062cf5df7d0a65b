import {
  Binary,
  BinaryView,
  Bool,
  Decimal,
  Dictionary,
  Field,
  FixedSizeBinary,
  FixedSizeList,
  Float32,
  Int32,
  Int64,
  List,
  makeData,
  makeVector,
  Struct,
  TimestampMillisecond,
  Union,
  UnionMode,
  Utf8,
  Utf8View,
  vectorFromArray,
  type DataType,
  type Vector,
} from "apache-arrow";
import { expect, test } from "vitest";
import { takeRows } from "../../src/loader/take-rows.ts";
import { batchOf } from "./support/version.ts";

const item = new Field("item", new Int32(), true);
const cases: [string, DataType, readonly unknown[]][] = [
  ["int32", new Int32(), [1, null, 3, 4]],
  ["int64", new Int64(), [1n, 2n, null, 4n]],
  ["bool", new Bool(), [true, false, null, true]],
  ["utf8", new Utf8(), ["a", "", null, "déjà"]],
  ["binary", new Binary(), [Uint8Array.of(1), Uint8Array.of(), null, Uint8Array.of(2, 3)]],
  ["fixed binary", new FixedSizeBinary(2), [Uint8Array.of(1, 2), null, Uint8Array.of(3, 4), Uint8Array.of(5, 6)]],
  [
    "utf8 view",
    new Utf8View(),
    ["short", "a text that does not fit its view", null, "déjà vu, and not for the last time"],
  ],
  ["binary view", new BinaryView(), [Uint8Array.of(1), new Uint8Array(40).fill(7), null, Uint8Array.of()]],
  ["timestamp", new TimestampMillisecond(), [1, 2, null, 4]],
  [
    "decimal",
    new Decimal(0, 10, 128),
    [Uint32Array.of(1, 0, 0, 0), Uint32Array.of(2, 0, 0, 0), null, Uint32Array.of(4, 0, 0, 0)],
  ],
  ["dictionary", new Dictionary(new Utf8(), new Int32()), ["x", "y", null, "x"]],
  ["fixed list", new FixedSizeList(2, new Field("item", new Float32(), true)), [[1, 2], [3, 4], null, [7, 8]]],
  ["list", new List(item), [[1], [], null, [2, null, 3]]],
  [
    "struct",
    new Struct([new Field("a", new Int32(), true), new Field("b", new Utf8(), true)]),
    [{ a: 1, b: "x" }, { a: 2, b: null }, null, { a: 4, b: "z" }],
  ],
];

test.each(cases)("%s keeps values and nulls", (_name, type, values) => {
  const vector = vectorFromArray(values as never, type) as Vector;
  const rows = [3, 0, 2, 0, 1];
  const taken = takeRows(batchOf({ c: vector }), rows);
  expect(taken.numRows).toBe(rows.length);
  const got = taken.getChildAt(0) as Vector;
  const plain = (v: unknown): unknown => JSON.stringify(v, (_k, x: unknown) => (typeof x === "bigint" ? String(x) : x));
  expect(rows.map((_, i) => plain(got.get(i)))).toEqual(rows.map((row) => plain(vector.get(row))));
  expect(got.nullCount).toBe(rows.filter((row) => !vector.isValid(row)).length);
});

test.each([UnionMode.Sparse, UnionMode.Dense])("a union of mode %s keeps values and nulls", (mode) => {
  const fields = [new Field("a", new Int32(), true), new Field("b", new Utf8View(), true)];
  const isDense = mode === UnionMode.Dense;
  const numbers = isDense ? [1, null] : [1, -1, null, -3];
  const texts = isDense
    ? ["x", "a text that does not fit its view"]
    : ["no", "x", "no", "a text that does not fit its view"];
  const children = [vectorFromArray(numbers, new Int32()), vectorFromArray(texts, new Utf8View())].map(
    (v) => v.data[0],
  );
  const typeIds = Int8Array.of(5, 2, 5, 2);
  const offsets = isDense ? { valueOffsets: Int32Array.of(0, 0, 1, 1) } : {};
  const type = new Union(mode, [5, 2], fields);
  const vector = makeVector(makeData({ type, length: 4, typeIds, children, ...offsets } as never)) as unknown as Vector;
  const got = takeRows(batchOf({ c: vector }), [3, 0, 2, 0, 1]).getChildAt(0);
  expect([...(got ?? [])]).toEqual(["a text that does not fit its view", 1, null, 1, "x"]);
});
