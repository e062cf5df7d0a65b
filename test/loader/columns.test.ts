import {
  Bool,
  Dictionary,
  Field,
  FixedSizeList,
  Float16,
  Float32,
  Float64,
  Int16,
  Int32,
  Int64,
  Int8,
  makeData,
  makeVector,
  Struct,
  TimestampSecond,
  Uint32,
  Uint64,
  Uint8,
  Utf8,
  vectorFromArray,
  type DataType,
  type Vector,
} from "apache-arrow";
import { describe, expect, test } from "vitest";
import type { Cols, ColumnOptions } from "../../src/loader/columns/options.ts";
import { createHostLoader } from "../../src/loader/host-loader.ts";
import { isShardpactError, type ShardpactError } from "../../src/model/errors.ts";
import { batchOf, listsOf, makeVersion } from "./support/version.ts";

const of = (type: DataType, values: readonly unknown[]): Vector => vectorFromArray(values as never, type) as Vector;

/** Reads one column of one batch, in order. */
async function read(vector: Vector, options: ColumnOptions = {}, classes?: readonly string[]) {
  return readFrom({ c: vector }, { c: options } as Cols, classes);
}

async function readFrom(columns: Record<string, Vector>, xs: Cols, classes?: readonly string[]) {
  await using data = await makeVersion({ splits: { "": [batchOf(columns)] }, ...(classes ? { classes } : {}) });
  await using loader = createHostLoader(data.version, { xs, batchSize: 100 });
  const batch = await loader.iterate().next();
  return batch?.columns.xs ?? {};
}

async function failing(promise: Promise<unknown>): Promise<ShardpactError> {
  const error = await promise.then(
    () => null,
    (e: unknown) => e,
  );
  if (!isShardpactError(error)) throw new Error(`expected a ShardpactError, got ${String(error)}`);
  return error;
}

describe("numbers", () => {
  const numbers: [string, DataType, readonly unknown[], readonly number[]][] = [
    ["int8", new Int8(), [-128, 0, 127], [-128, 0, 127]],
    ["uint8", new Uint8(), [0, 255], [0, 255]],
    ["int16", new Int16(), [-32768, 32767], [-32768, 32767]],
    ["int32", new Int32(), [-(2 ** 24), 2 ** 24], [-(2 ** 24), 2 ** 24]],
    ["uint32", new Uint32(), [0, 2 ** 24], [0, 2 ** 24]],
    ["int64", new Int64(), [-5n, 2n ** 24n], [-5, 2 ** 24]],
    ["uint64", new Uint64(), [0n, 7n], [0, 7]],
    ["float32", new Float32(), [1.5, -0, 3], [1.5, -0, 3]],
    ["float64", new Float64(), [0.1, 1e38], [Math.fround(0.1), Math.fround(1e38)]],
    ["bool", new Bool(), [true, false, true], [1, 0, 1]],
  ];
  test.each(numbers)("%s becomes float32", async (_name, type, values, expected) => {
    const { c } = await read(of(type, values));
    expect(c).toMatchObject({ dtype: "float32", shape: [values.length] });
    expect(Array.from(c?.data ?? [])).toEqual(expected);
  });

  test("float16 becomes float32 with all its kinds of values", async () => {
    const bits = Uint16Array.of(0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0001, 0x0400, 0x7c00, 0xfc00, 0x3555);
    const vector = makeVector(makeData({ type: new Float16(), data: bits }));
    const { c } = await read(vector);
    const third = (1024 + 0x155) * 2 ** -12;
    expect(Array.from(c?.data ?? [])).toEqual([0, -0, 1, -2, 65504, 2 ** -24, 2 ** -14, Infinity, -Infinity, third]);
  });

  test("NaN and infinities that are there pass", async () => {
    const { c } = await read(of(new Float64(), [NaN, Infinity, -Infinity]));
    expect(Array.from(c?.data ?? [])).toEqual([NaN, Infinity, -Infinity]);
  });

  const refused: [string, DataType, readonly unknown[], ColumnOptions][] = [
    ["int32 above 2^24 in float32", new Int32(), [0, 2 ** 24 + 1], {}],
    ["int64 above 2^24 in float32", new Int64(), [0n, 2n ** 40n], {}],
    ["int64 below −2^24 in float32", new Int64(), [0n, -(2n ** 40n)], {}],
    ["uint64 above 2^63", new Uint64(), [0n, 2n ** 63n], { dtype: "int32" }],
    ["uint32 above 2^31−1 in int32", new Uint32(), [0, 2 ** 31], { dtype: "int32" }],
    ["a finite double that would become infinite", new Float64(), [0, 1e39], {}],
    ["a fraction in int32", new Float32(), [0, 0.5], { dtype: "int32" }],
    ["a 2 in bool", new Uint8(), [0, 2], { dtype: "bool" }],
    ["a class beyond oneHot", new Int32(), [0, 3], { oneHot: 3 }],
    ["a negative class", new Int8(), [0, -1], { oneHot: 3 }],
  ];
  test.each(refused)("%s is value_out_of_range, with its place", async (_name, type, values, options) => {
    const error = await failing(read(of(type, values), options));
    expect(error.code).toBe("value_out_of_range");
    expect(error.details).toMatchObject({ column: "c", row: 1, shard: "part-00000.arrow" });
  });

  test("int32 keeps what float32 cannot, oneHot marks one place", async () => {
    const big = await read(of(new Int64(), [2n ** 31n - 1n, -(2n ** 31n)]), { dtype: "int32" });
    expect(big["c"]).toMatchObject({ dtype: "int32" });
    expect(Array.from(big["c"]?.data ?? [])).toEqual([2 ** 31 - 1, -(2 ** 31)]);
    const hot = await read(of(new Uint8(), [2, 0]), { oneHot: 3 });
    expect(hot["c"]?.shape).toEqual([2, 3]);
    expect(Array.from(hot["c"]?.data ?? [])).toEqual([0, 0, 1, 1, 0, 0]);
  });
});

describe("shapes", () => {
  test("fixed-size lists are their shape, nested too; shape reshapes", async () => {
    const flat = listsOf(
      Float32Array.from({ length: 12 }, (_, i) => i),
      6,
    );
    expect((await read(flat))["c"]?.shape).toEqual([2, 6]);
    expect((await read(flat, { shape: [2, 3, 1] }))["c"]?.shape).toEqual([2, 2, 3, 1]);
    const inner = new Field("item", new Float32(), false);
    const pair = new FixedSizeList(2, inner);
    const values = makeData({ type: new Float32(), data: Float32Array.from({ length: 12 }, (_, i) => i) });
    const pairs = makeData({ type: pair, length: 6, child: values });
    const triples = makeVector(
      makeData({ type: new FixedSizeList(3, new Field("item", pair, false)), length: 2, child: pairs }),
    );
    const { c } = await read(triples);
    expect(c?.shape).toEqual([2, 3, 2]);
    expect(Array.from(c?.data ?? [])).toEqual(Array.from({ length: 12 }, (_, i) => i));
    expect((await failing(read(flat, { shape: [5] }))).code).toBe("shape_differs");
    expect((await failing(read(flat, { oneHot: 3 }))).code).toBe("shape_differs");
  });

  test("a struct's fields are reached by a dotted path; the struct itself is refused", async () => {
    const fields = [new Field("a", new Int32(), false), new Field("b", new Float32(), false)];
    const struct = makeVector(
      makeData({
        type: new Struct(fields),
        length: 2,
        children: [
          makeData({ type: new Int32(), data: Int32Array.of(1, 2) }),
          makeData({ type: new Float32(), data: Float32Array.of(3, 4) }),
        ],
      }),
    );
    const got = await readFrom({ s: struct }, ["s.b", "s.a"]);
    expect([Array.from(got["s.b"]?.data ?? []), Array.from(got["s.a"]?.data ?? [])]).toEqual([
      [3, 4],
      [1, 2],
    ]);
    expect((await failing(readFrom({ s: struct }, "s"))).code).toBe("type_unsupported");
    const unknown = await failing(readFrom({ s: struct }, "s.aa"));
    expect([unknown.code, unknown.details["nearest"]]).toEqual(["column_unknown", ["s.a", "s.b"]]);
  });
});

describe("strings", () => {
  const animals = ["dog", "ant", "cat", "ant"];
  test.each([
    ["dictionary", () => of(new Dictionary(new Utf8(), new Int32()), animals), undefined],
    ["text", () => of(new Utf8(), animals), ["c"]],
  ] as const)("%s becomes its index in the agreed vocabulary", async (_name, make, classes) => {
    const { c } = await read(make(), { classes: "agreed" }, classes);
    expect(Array.from(c?.data ?? [])).toEqual([2, 0, 1, 0]);
    const hot = await read(make(), { classes: "agreed", oneHot: true }, classes);
    expect(hot["c"]?.shape).toEqual([4, 3]);
    expect(Array.from(hot["c"]?.data.subarray(0, 3) ?? [])).toEqual([0, 0, 1]);
    expect((await failing(read(make(), {}, classes))).code).toBe("type_unsupported");
  });

  test("several shards with other dictionaries agree on one vocabulary", async () => {
    const type = new Dictionary(new Utf8(), new Int32());
    const batches = [
      ["b", "c"],
      ["a", "b"],
      ["c", "d"],
    ].map((v) => batchOf({ c: of(type, v) }));
    await using data = await makeVersion({ splits: { "": batches }, shardBytes: 1 });
    expect(data.version.splits[0]?.shards).toBeGreaterThan(1);
    await using loader = createHostLoader(data.version, { xs: { c: { classes: "agreed" } }, batchSize: 6 });
    const batch = await loader.iterate().next();
    expect(Array.from(batch?.columns.xs["c"]?.data ?? [])).toEqual([1, 2, 0, 1, 2, 3]);
  });

  test("without a vocabulary they are class_unknown", async () => {
    expect((await failing(read(of(new Utf8(), animals), { classes: "agreed" }))).code).toBe("class_unknown");
  });
});

describe("nulls", () => {
  const holes = () => of(new Int32(), [1, null, 3]);
  test("are null_found unless an option says what they become", async () => {
    const error = await failing(read(holes()));
    expect([error.code, error.details["row"]]).toEqual(["null_found", 1]);
    expect(Array.from((await read(holes(), { nulls: -1 }))["c"]?.data ?? [])).toEqual([1, -1, 3]);
    expect(Array.from((await read(holes(), { nulls: "nan" }))["c"]?.data ?? [])).toEqual([1, NaN, 3]);
    const masked = await read(holes(), { nulls: "mask" });
    expect(Array.from(masked["c"]?.data ?? [])).toEqual([1, 0, 3]);
    expect(masked["c_mask"]).toMatchObject({ data: Float32Array.of(1, 0, 1), shape: [3] });
    expect((await failing(read(holes(), { nulls: "nan", dtype: "int32" }))).code).toBe("invalid_argument");
  });

  test("in bools, texts and lists", async () => {
    expect(Array.from((await read(of(new Bool(), [true, null]), { nulls: 9 }))["c"]?.data ?? [])).toEqual([1, 9]);
    const text = await read(of(new Utf8(), ["x", null]), { classes: "agreed", nulls: -1 }, ["c"]);
    expect(Array.from(text["c"]?.data ?? [])).toEqual([0, -1]);
    const list = new FixedSizeList(2, new Field("item", new Float32(), true));
    expect(Array.from((await read(of(list, [[1, 2], null]), { nulls: 0 }))["c"]?.data ?? [])).toEqual([1, 2, 0, 0]);
    expect(
      (
        await failing(
          read(
            of(list, [
              [1, 2],
              [null, 3],
            ]),
            { nulls: 0 },
          ),
        )
      ).code,
    ).toBe("null_found");
  });
});

describe("refusals before any byte is read", () => {
  test("unknown columns name the nearest, unsupported types say what to do", async () => {
    const unknown = await failing(readFrom({ image: of(new Int32(), [1]) }, "imgae"));
    expect([unknown.code, unknown.details["nearest"]]).toEqual(["column_unknown", ["image"]]);
    const time = await failing(read(of(new TimestampSecond(), [1000, 2000])));
    expect([time.code, time.hint.length > 0]).toEqual(["type_unsupported", true]);
    expect((await failing(readFrom({ a: of(new Int32(), [1]) }, []))).code).toBe("invalid_argument");
    expect((await failing(readFrom({ a: of(new Int32(), [1]) }, ["a", "a"]))).code).toBe("invalid_argument");
  });
});
