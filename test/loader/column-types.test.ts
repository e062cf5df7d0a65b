import {
  Binary,
  DateDay,
  Decimal,
  DurationSecond,
  Field,
  FixedSizeBinary,
  FixedSizeList,
  Float32,
  Int64,
  Int32,
  List,
  makeData,
  makeVector,
  TimeMillisecond,
  TimestampMicrosecond,
  TimestampNanosecond,
  Utf8,
  vectorFromArray,
  type DataType,
  type Vector,
} from "apache-arrow";
import sharp from "sharp";
import { describe, expect, test } from "vitest";
import type { Cols, ColumnOptions } from "../../src/loader/columns/options.ts";
import { createHostLoader } from "../../src/loader/host-loader.ts";
import { batchOf, makeVersion } from "./support/version.ts";

const of = (type: DataType, values: readonly unknown[]): Vector => vectorFromArray(values as never, type) as Vector;

async function read(vector: Vector, options: ColumnOptions, classes?: readonly string[]) {
  await using data = await makeVersion({ splits: { "": [batchOf({ c: vector })] }, ...(classes ? { classes } : {}) });
  await using loader = createHostLoader(data.version, { xs: { c: options } as Cols, batchSize: 100 });
  return (await loader.iterate().next())?.columns.xs ?? {};
}

const numbers = async (vector: Vector, options: ColumnOptions): Promise<number[]> =>
  Array.from((await read(vector, options))["c"]?.data ?? []);

describe("times are counts of a unit", () => {
  const day = Date.UTC(2024, 0, 2);
  test.each<[string, Vector, ColumnOptions, number[]]>([
    ["days", of(new DateDay(), [new Date(day), new Date(0)]), { unit: "d" }, [19724, 0]],
    ["since a day", of(new DateDay(), [new Date(day)]), { unit: "h", since: "2024-01-01" }, [24]],
    ["microseconds", makeTimes(new TimestampMicrosecond(), [1_500_000n]), { unit: "s" }, [1.5]],
    [
      "nanoseconds that no double holds",
      makeTimes(new TimestampNanosecond(), [1_704_153_600_000_000_001n]),
      { unit: "ns", since: "2024-01-02T00:00:00Z" },
      [1],
    ],
    ["before the origin", makeTimes(new TimestampMicrosecond(), [0n]), { unit: "d", since: "1970-01-02" }, [-1]],
    ["a time of day", of(new TimeMillisecond(), [90_000]), { unit: "min" }, [1.5]],
    ["a duration", makeTimes(new DurationSecond(), [7200n]), { unit: "h" }, [2]],
  ])("%s", async (_name, vector, options, expected) => {
    expect(await numbers(vector, options)).toEqual(expected);
  });

  test("more than float32 counts exactly is an error with the row, and so is a unit that makes no sense", async () => {
    const now = makeTimes(new TimestampMicrosecond(), [0n, 1_704_153_600_000_000n]);
    await expect(read(now, { unit: "s" })).rejects.toMatchObject({ code: "value_out_of_range", details: { row: 1 } });
    await expect(read(now, {})).rejects.toMatchObject({ code: "type_unsupported" });
    await expect(read(now, { unit: "fortnight" as "d" })).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(read(now, { unit: "d", since: "soon" })).rejects.toMatchObject({ code: "invalid_argument" });
    const duration = makeTimes(new DurationSecond(), [1n]);
    await expect(read(duration, { unit: "d", since: "2024-01-01" })).rejects.toMatchObject({
      code: "invalid_argument",
    });
  });
});

function makeTimes(type: DataType, values: readonly bigint[]): Vector {
  return makeVector(makeData({ type, data: BigInt64Array.from(values) } as never)) as Vector;
}

describe("decimals, ids and bytes", () => {
  test("a decimal is its nearest float32 when that is asked for", async () => {
    const words = Uint32Array.from([1234, 0, 0, 0, 0xffff_fb2e, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff]);
    const vector = makeVector(makeData({ type: new Decimal(2, 10, 128), data: words }));
    expect(await numbers(vector, { lossy: true })).toEqual([Math.fround(12.34), Math.fround(-12.34)]);
    await expect(read(vector, {})).rejects.toMatchObject({ code: "type_unsupported" });
  });

  test("ids fall into buckets, the same ones everywhere, evenly", async () => {
    const ids = BigInt64Array.from({ length: 4096 }, (_, i) => BigInt(i) * 1_000_003n - 7n);
    const vector = makeVector(makeData({ type: new Int64(), data: ids }));
    const got = await read(vector, { hash: 16 });
    const buckets = Array.from(got["c"]?.data ?? []);
    expect(buckets.slice(0, 8)).toEqual(FIRST_BUCKETS);
    const counts = Array.from({ length: 16 }, (_, b) => buckets.filter((v) => v === b).length);
    expect(Math.min(...counts)).toBeGreaterThan(0);
    expect(buckets.every((b) => b >= 0 && b < 16)).toBe(true);
    await expect(read(vector, { hash: 0 })).rejects.toMatchObject({ code: "invalid_argument" });
  });

  test("fixed bytes are numbers when that is asked for", async () => {
    const type = new FixedSizeBinary(3);
    const vector = makeVector(makeData({ type, length: 2, data: Uint8Array.of(1, 2, 255, 0, 4, 5) }));
    const { c } = await read(vector, { dtype: "uint8" });
    expect(c).toMatchObject({ shape: [2, 3], dtype: "float32" });
    expect(Array.from(c?.data ?? [])).toEqual([1, 2, 255, 0, 4, 5]);
    await expect(read(vector, {})).rejects.toMatchObject({ code: "type_unsupported" });
  });

  test("texts stay texts when that is asked for", async () => {
    const { c } = await read(of(new Utf8(), ["a", "ß", ""]), { dtype: "string" });
    expect(c).toMatchObject({ texts: ["a", "ß", ""], shape: [3], dtype: "string" });
    await expect(read(of(new Utf8(), ["a", null]), { dtype: "string" })).rejects.toMatchObject({ code: "null_found" });
    const vector = of(new Int32(), [1]);
    await expect(read(vector, { dtype: "string" })).rejects.toMatchObject({ code: "invalid_argument" });
  });
});

describe("lists of any length", () => {
  const list = new List(new Field("item", new Float32(), true));
  const ragged = () => of(list, [[1, 2], [], [3, 4, 5]]);

  test("are filled up, with a mask", async () => {
    const got = await read(ragged(), { pad: { length: 4, value: -1 } });
    expect(got["c"]?.shape).toEqual([3, 4]);
    expect(Array.from(got["c"]?.data ?? [])).toEqual([1, 2, -1, -1, -1, -1, -1, -1, 3, 4, 5, -1]);
    expect(Array.from(got["c_mask"]?.data ?? [])).toEqual([1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0]);
    expect(got["c_mask"]?.shape).toEqual([3, 4]);
  });

  test("longer ones are an error unless they may be cut; nulls inside always are", async () => {
    await expect(read(ragged(), { pad: { length: 2 } })).rejects.toMatchObject({
      code: "shape_differs",
      details: { row: 2, found: 3, length: 2 },
    });
    const cut = await read(ragged(), { pad: { length: 2, truncate: true } });
    expect(Array.from(cut["c"]?.data ?? [])).toEqual([1, 2, 0, 0, 3, 4]);
    await expect(read(of(list, [[1, null]]), { pad: { length: 2 } })).rejects.toMatchObject({ code: "null_found" });
    await expect(read(ragged(), {})).rejects.toMatchObject({ code: "type_unsupported" });
    await expect(read(of(new Int32(), [1]), { pad: { length: 2 } })).rejects.toMatchObject({
      code: "type_unsupported",
    });
    const nulls = await read(of(list, [[1], null]), { pad: { length: 2 }, nulls: 9 });
    expect(Array.from(nulls["c"]?.data ?? [])).toEqual([1, 0, 9, 9]);
  });
});

describe("arrow.fixed_shape_tensor", () => {
  test("a permutation is honoured", async () => {
    const type = new FixedSizeList(6, new Field("item", new Float32(), false));
    const child = makeData({ type: new Float32(), data: Float32Array.from({ length: 12 }, (_, i) => i) });
    const metadata = new Map([
      ["ARROW:extension:name", "arrow.fixed_shape_tensor"],
      ["ARROW:extension:metadata", '{"shape":[2,3],"permutation":[1,0]}'],
    ]);
    const batch = batchOf({ c: makeVector(makeData({ type, length: 2, child })) });
    const field = new Field("c", type, false, metadata);
    const { RecordBatch, Schema } = await import("apache-arrow");
    const named = new RecordBatch(new Schema([field]), batch.data);
    await using data = await makeVersion({ splits: { "": [named] } });
    await using loader = createHostLoader(data.version, { xs: "c", batchSize: 2 });
    const c = (await loader.iterate().next())?.columns.xs["c"];
    expect(c?.shape).toEqual([2, 3, 2]);
    expect(Array.from(c?.data.subarray(0, 6) ?? [])).toEqual([0, 3, 1, 4, 2, 5]); // stored [[0,1,2],[3,4,5]], transposed
  });
});

describe("images", () => {
  const png = (width: number, height: number, rgb: readonly [number, number, number]): Promise<Buffer> =>
    sharp({ create: { width, height, channels: 3, background: { r: rgb[0], g: rgb[1], b: rgb[2] } } })
      .png()
      .toBuffer();
  const column = (...images: (Uint8Array | null)[]): Vector => of(new Binary(), images);

  test("are decoded to their pixels, resized and scaled when asked", async () => {
    const vector = column(await png(3, 2, [10, 20, 30]), await png(3, 2, [255, 0, 1]));
    const { c } = await read(vector, { image: {}, shape: [2, 3, 3] });
    expect(c?.shape).toEqual([2, 2, 3, 3]);
    expect(Array.from(c?.data.subarray(0, 6) ?? [])).toEqual([10, 20, 30, 10, 20, 30]);
    expect(Array.from(c?.data.subarray(18, 21) ?? [])).toEqual([255, 0, 1]);
    const small = await read(vector, { image: { resize: [1, 1], scale: 1 / 255 } });
    expect(small["c"]?.shape).toEqual([2, 1, 1, 3]);
    expect(small["c"]?.data[3]).toBeCloseTo(1, 5);
    const grey = await read(vector, { image: { channels: 1, resize: [2, 2] } });
    expect(grey["c"]?.shape).toEqual([2, 2, 2, 1]);
    const masked = await read(column(await png(1, 1, [9, 9, 9]), null), { image: { resize: [1, 1] }, nulls: "mask" });
    expect(Array.from(masked["c"]?.data ?? [])).toEqual([9, 9, 9, 0, 0, 0]);
    expect(Array.from(masked["c_mask"]?.data ?? [])).toEqual([1, 0]);
  });

  test("of another size, or that do not decode, are named by their place", async () => {
    const good = await png(2, 2, [1, 2, 3]);
    const other = column(good, await png(3, 2, [1, 2, 3]));
    await expect(read(other, { image: {}, shape: [2, 2, 3] })).rejects.toMatchObject({
      code: "shape_differs",
      details: { row: 1, shape: [2, 3, 3], expected: [2, 2, 3] },
    });
    const bad = column(good, good.subarray(0, good.length - 20));
    await expect(read(bad, { image: {}, shape: [2, 2, 3] })).rejects.toMatchObject({
      code: "image_malformed",
      details: { column: "c", row: 1, shard: "part-00000.arrow" },
    });
    await expect(read(column(good), { image: {} })).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(read(column(good), {})).rejects.toMatchObject({ code: "type_unsupported" });
  });
});

/** Frozen: a bucket is a feature that a trained model knows. */
const FIRST_BUCKETS: readonly number[] = [7, 11, 3, 4, 7, 8, 14, 10];
