/**
 * Traps in the table of types, each once fallen into: found by the property tests and by the fuzzer.
 */
import {
  Binary,
  Dictionary,
  Field,
  FixedSizeBinary,
  FixedSizeList,
  Float32,
  Float64,
  Int32,
  Int8,
  LargeUtf8,
  List,
  makeData,
  makeVector,
  RecordBatch,
  Schema,
  Struct,
  Utf8,
  type DataType,
} from "apache-arrow";
import { describe, expect, test } from "vitest";
import type { ColumnOptions } from "../../src/loader/columns/options.ts";
import { createHostLoader } from "../../src/loader/host-loader.ts";
import { dataOf, type Cell } from "./support/arrow-data.ts";
import { batchOf, makeVersion } from "./support/version.ts";

const list = (item: DataType): List => new List(new Field("item", item, true));

async function read(
  type: DataType,
  cells: readonly Cell[],
  options: ColumnOptions = {},
  path = "c",
  metadata?: Map<string, string>,
) {
  const made = batchOf({ c: makeVector(dataOf(type, cells)) });
  const batch = metadata ? new RecordBatch(new Schema([new Field("c", type, true, metadata)]), made.data) : made;
  const asked = options.classes && !(type instanceof Dictionary) ? { classes: [path] } : {};
  await using data = await makeVersion({ splits: { "": [batch] }, ...asked });
  await using loader = createHostLoader(data.version, { xs: { [path]: options }, batchSize: 100 });
  const xs = (await loader.iterate().next())?.columns.xs ?? {};
  return { values: [...(xs[path]?.texts ?? xs[path]?.data ?? [])], mask: [...(xs[`${path}_mask`]?.data ?? [])] };
}

describe("texts", () => {
  test("keep a byte order mark: with it a text is another one", async () => {
    for (const type of [new Utf8(), new LargeUtf8(), new Dictionary(new Utf8(), new Int8())]) {
      expect((await read(type, ["a", "\uFEFFa"], { dtype: "string" })).values).toEqual(["a", "\uFEFFa"]);
      expect((await read(type, ["a", "\uFEFFa"], { classes: "agreed" })).values).toEqual([0, 1]);
    }
  });

  test("that are no UTF-8 are refused, not mended", async () => {
    const bytes = Uint8Array.of(97, 0xc3, 0x28);
    await expect(read(new Utf8(), ["a", bytes], { dtype: "string" })).rejects.toMatchObject({
      code: "shard_malformed",
      details: { column: "c", row: 1 },
    });
    await expect(read(new Utf8(), ["a", bytes], { classes: "agreed" })).rejects.toMatchObject({
      code: "shard_malformed",
    });
  });

  test("that are null have a mask, too", async () => {
    expect(await read(new Utf8(), ["a", null], { dtype: "string", nulls: "mask" })).toEqual({
      values: ["a", ""],
      mask: [1, 0],
    });
  });
});

describe("dictionaries", () => {
  test("of numbers are numbers, with the limits of their type", async () => {
    const numbers = new Dictionary(new Int32(), new Int8());
    expect((await read(numbers, [7, -3, null, 7], { nulls: "nan" })).values).toEqual([7, -3, NaN, 7]);
    await expect(read(numbers, [2 ** 24 + 1])).rejects.toMatchObject({ code: "value_out_of_range" });
    expect((await read(new Dictionary(new Float64(), new Int8()), [0.5, 2 ** 30])).values).toEqual([0.5, 2 ** 30]);
    expect((await read(new Dictionary(new Int32(), new Int8()), [0, 1, 1], { oneHot: 2 })).values).toEqual([
      1, 0, 0, 1, 0, 1,
    ]);
  });

  test("may hold a null: rows that point at it are null", async () => {
    for (const [type, cells, options] of [
      [new Utf8(), ["a", null], { dtype: "string" }],
      [new Int32(), [7, null], {}],
    ] as const) {
      const dictionary = makeVector(dataOf(type, cells));
      const data = makeData({
        type: new Dictionary(type, new Int8()),
        data: Int8Array.of(0, 1, 0),
        dictionary,
      } as never);
      await using made = await makeVersion({ splits: { "": [batchOf({ c: makeVector(data) })] } });
      await using strict = createHostLoader(made.version, { xs: { c: options }, batchSize: 9 });
      await expect(strict.iterate().next()).rejects.toMatchObject({ code: "null_found", details: { row: 1 } });
      await using masked = createHostLoader(made.version, { xs: { c: { ...options, nulls: "mask" } }, batchSize: 9 });
      expect([...((await masked.iterate().next())?.columns.xs["c_mask"]?.data ?? [])]).toEqual([1, 0, 1]);
    }
  });

  test("of large texts are texts", async () => {
    const texts = new Dictionary(new LargeUtf8(), new Int32());
    expect((await read(texts, ["b", "a"], { classes: "agreed" })).values).toEqual([1, 0]);
    expect((await read(texts, ["b", "a"], { dtype: "string" })).values).toEqual(["b", "a"]);
  });

  test("of anything else are refused", async () => {
    await expect(
      read(new Dictionary(new Binary(), new Int8()), [Uint8Array.of(1)], { image: {}, shape: [1, 1, 3] }),
    ).rejects.toMatchObject({ code: "type_unsupported" });
  });
});

describe("lists that are filled up", () => {
  test("a null row has no items, whatever lies under it", async () => {
    const null_ = { pad: { length: 2 }, nulls: 9 } as const;
    expect(await read(list(new Int32()), [[1], null], null_)).toEqual({ values: [1, 0, 9, 9], mask: [1, 0, 0, 0] });
  });

  test("a null struct around the list is a null row", async () => {
    const struct = new Struct([new Field("in", list(new Int32()), false)]);
    const cells = [{ in: [1] }, null];
    await expect(read(struct, cells, { pad: { length: 2 } }, "c.in")).rejects.toMatchObject({ code: "null_found" });
    expect(await read(struct, cells, { pad: { length: 2 }, nulls: 5 }, "c.in")).toEqual({
      values: [1, 0, 5, 5],
      mask: [1, 0, 0, 0],
    });
  });

  test("classes are filled with any number, and an unknown one is named", async () => {
    const classes = { classes: "agreed", pad: { length: 2, value: -1 } } as const;
    expect((await read(list(new Utf8()), [["b"], ["a", "b"]], classes)).values).toEqual([1, -1, 0, 1]);
  });

  test("integers beyond 2^24 are refused as they are elsewhere", async () => {
    await expect(read(list(new Int32()), [[2 ** 24 + 1]], { pad: { length: 1 } })).rejects.toMatchObject({
      code: "value_out_of_range",
    });
    expect((await read(list(new Float64()), [[2 ** 24 + 2]], { pad: { length: 1 } })).values).toEqual([2 ** 24 + 2]);
  });

  test("hold numbers only", async () => {
    const refused = { code: "type_unsupported" };
    await expect(read(list(new Utf8()), [["a"]], { dtype: "string", pad: { length: 1 } })).rejects.toMatchObject(
      refused,
    );
    await expect(
      read(list(new Binary()), [[new Uint8Array(1)]], { image: { resize: [1, 1] }, pad: { length: 1 } }),
    ).rejects.toMatchObject(refused);
    await expect(
      read(list(new FixedSizeBinary(2)), [[Uint8Array.of(1, 2)]], { dtype: "uint8", pad: { length: 1 } }),
    ).rejects.toMatchObject(refused);
    await expect(read(list(new Int8()), [[1]], { oneHot: 2, pad: { length: 1 } })).rejects.toMatchObject(refused);
  });
});

describe("lists of a fixed size", () => {
  test("of bytes are their bytes", async () => {
    const pairs = new FixedSizeList(2, new Field("item", new FixedSizeBinary(2), false));
    const cell = [Uint8Array.of(1, 2), Uint8Array.of(3, 4)];
    expect((await read(pairs, [cell, cell], { dtype: "uint8" })).values).toEqual([1, 2, 3, 4, 1, 2, 3, 4]);
  });

  test("a null item is no null row, in lists of one either", async () => {
    const one = new FixedSizeList(1, new Field("item", new Float32(), true));
    expect((await read(one, [[1], null], { nulls: 0 })).values).toEqual([1, 0]);
    await expect(read(one, [[1], [null]], { nulls: 0 })).rejects.toMatchObject({ code: "null_found" });
  });

  test("tensor metadata that is no object, or has sides below one, is malformed", async () => {
    const six = new FixedSizeList(6, new Field("item", new Float32(), false));
    for (const text of [
      "null",
      "7",
      "[]",
      "{",
      '{"shape":[-2,-3]}',
      '{"shape":[2,3],"permutation":[0,0]}',
      '{"shape":[2,4]}',
    ]) {
      const metadata = new Map([
        ["ARROW:extension:name", "arrow.fixed_shape_tensor"],
        ["ARROW:extension:metadata", text],
      ]);
      await expect(read(six, [[1, 2, 3, 4, 5, 6]], {}, "c", metadata), text).rejects.toMatchObject({
        code: "shard_malformed",
      });
    }
  });
});

test("what stands for a null, or fills a list, fits the dtype", async () => {
  const refused = { code: "invalid_argument" };
  await expect(read(new Int32(), [1, null], { dtype: "int32", nulls: 0.5 })).rejects.toMatchObject(refused);
  await expect(read(new Int8(), [1, null], { dtype: "bool", nulls: 9 })).rejects.toMatchObject(refused);
  await expect(read(new Float32(), [1, null], { nulls: 1e39 })).rejects.toMatchObject(refused);
  await expect(
    read(list(new Int32()), [[1]], { dtype: "int32", pad: { length: 2, value: 0.5 } }),
  ).rejects.toMatchObject(refused);
});

describe("what is asked of a column", () => {
  const listOf = (size: number, item: DataType) => new FixedSizeList(size, new Field("item", item, true));

  test("is refused where it says nothing: hashes of 32-bit numbers would be the numbers", async () => {
    const refused: [DataType, ColumnOptions][] = [
      [new Int32(), { hash: 10 }],
      [new Int32(), { unit: "d" }],
      [new Int32(), { lossy: true }],
      [new Int32(), { image: {} }],
      [new Int32(), { dtype: "uint8" }],
      [new Int32(), { dtype: "string" }],
      [new Int32(), { dtype: "float64" as never }],
      [new Int32(), { nulls: "zero" as never }],
      [new Int32(), { onehot: 3 } as never],
      [new Utf8(), { dtype: "string", oneHot: 3 }],
    ];
    for (const [type, options] of refused) {
      const cells = type instanceof Utf8 ? ["a"] : [1];
      await expect(read(type, cells, options), JSON.stringify(options)).rejects.toMatchObject({
        code: "invalid_argument",
      });
    }
  });

  test("texts in lists of a fixed size stay texts nowhere: a row would have one of them", async () => {
    await expect(read(listOf(2, new Utf8()), [["a", "b"]], { dtype: "string" })).rejects.toMatchObject({
      code: "type_unsupported",
    });
  });

  test("fields of structs may have dots in their names", async () => {
    const inner = new Struct([new Field("b.c", new Int32(), true), new Field("b", new Int32(), true)]);
    const cells = [
      { "b.c": 1, b: 2 },
      { "b.c": 3, b: 4 },
    ];
    expect((await read(inner, cells, {}, "c.b.c")).values).toEqual([1, 3]);
    expect((await read(inner, cells, {}, "c.b")).values).toEqual([2, 4]);
  });

  test("a column that has the name of a mask is refused beside it", async () => {
    const of = (values: number[]) => makeVector(makeData({ type: new Int32(), data: Int32Array.from(values) }));
    await using data = await makeVersion({ splits: { "": [batchOf({ c: of([1]), c_mask: of([7]) })] } });
    const make = (xs: object) => () => createHostLoader(data.version, { xs: xs as never, batchSize: 1 });
    expect(make({ c: { nulls: "mask" }, c_mask: {} })).toThrow(expect.objectContaining({ code: "invalid_argument" }));
    await make({ c: {}, c_mask: {} })().close();
  });

  test("a null inside a list is not one that `nulls` is for, and the hint says so", async () => {
    await expect(read(listOf(2, new Float32()), [[1, null]], { nulls: 0 })).rejects.toMatchObject({
      code: "null_found",
      hint: expect.stringContaining("Publish lists without nulls") as string,
    });
  });
});
