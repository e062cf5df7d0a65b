/**
 * Slices of batches against the whole: any rows of any columns, from only the bytes that the slice names.
 */
import {
  Binary,
  BinaryView,
  Bool,
  type Data,
  DataType,
  Dictionary,
  Field,
  FixedSizeBinary,
  FixedSizeList,
  Float32,
  Float64,
  Int16,
  Int32,
  Int64,
  LargeUtf8,
  List,
  makeData,
  RecordBatch,
  RecordBatchFileWriter,
  Schema,
  Struct,
  Union,
  UnionMode,
  Utf8,
  Utf8View,
  vectorFromArray,
} from "apache-arrow";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { BatchSegment, ShardPlace, Tile } from "../../src/loader/fetch/layout.ts";
import { createInlineReads } from "../../src/loader/fetch/inline-reads.ts";
import { privateSideMemory } from "../../src/loader/fetch/side-memory.ts";
import { createTileReader } from "../../src/loader/fetch/tile-reader.ts";
import { decodeSegmentIndex, type Segment } from "../../src/merkle/segment-index.ts";
import { batchParts } from "../../src/shards/batch-parts.ts";
import { decodeDictionaries } from "../../src/shards/decode.ts";
import { openDirectoryStore } from "../../src/shards/directory-store.ts";
import type { ShardStore } from "../../src/shards/port.ts";
import { prepareVersion, type PreparedVersion } from "../../src/shards/prepare.ts";
import { schemaFromCanonical } from "../../src/shards/schema.ts";
import { addUnionRows, moveUnionRows, startScan } from "../../src/shards/spans.ts";
import { uploadShard } from "../../src/shards/upload.ts";
import { tempDir, type TempDir } from "../support/temp-dir.ts";
import { collect } from "../support/collect.ts";

const ROWS = 3000;
const label = new Dictionary(new Utf8(), new Int32(), 7);
const inner = new Struct([
  new Field("a", new Int16(), true),
  new Field("b", new List(new Field("item", new Utf8(), true)), true),
]);
const either = (mode: UnionMode) =>
  new Union(mode, [5, 2], [new Field("number", new Int32(), true), new Field("text", new Utf8View(), true)]);
const SCATTER = [7, 11, 13].map((by) => Uint8Array.from({ length: 30_000 }, (_, i) => (i * by + (i >> 8)) % 251));
/** Where the value of a row lies in one of three buffers, in no order; null: a null row. Some share bytes, some are far apart. */
const scatterOf = (i: number) =>
  i % 12 === 5
    ? null
    : { buffer: (i * 7) % 3, from: i % 4 === 0 ? 1000 * (i % 8) : (i * 7919) % 29_000, length: 13 + (i % 50) };
const TYPES: Readonly<Record<string, { type: DataType; value: (i: number) => unknown }>> = {
  int: { type: new Int32(), value: (i) => (i % 7 === 0 ? null : i) },
  long: { type: new Int64(), value: (i) => BigInt(i) * 3n },
  double: { type: new Float64(), value: (i) => i / 3 },
  flag: { type: new Bool(), value: (i) => (i % 5 === 0 ? null : i % 3 === 0) },
  text: { type: new Utf8(), value: (i) => (i % 11 === 0 ? null : "x".repeat(i % 40) + String(i)) },
  long_text: { type: new LargeUtf8(), value: (i) => `row ${i}` },
  bytes: { type: new Binary(), value: (i) => new Uint8Array(i % 9).fill(i) },
  id: { type: new FixedSizeBinary(5), value: (i) => new Uint8Array(5).fill(i % 256) },
  image: {
    type: new FixedSizeList(3, new Field("item", new Float32(), true)),
    value: (i) => [i, i % 4 === 0 ? null : i + 1, i + 2],
  },
  label: { type: label, value: (i) => (i % 13 === 0 ? null : ["cat", "dog", "eel"][i % 3]) },
  tags: {
    type: new List(new Field("item", new List(new Field("item", new Int32(), true)), true)),
    value: (i) => (i % 6 === 0 ? null : Array.from({ length: i % 4 }, (_, k) => Array.from({ length: k }, () => i))),
  },
  view: { type: new Utf8View(), value: (i) => (i % 11 === 0 ? null : "y".repeat(i % 40) + String(i)) },
  bytes_view: { type: new BinaryView(), value: (i) => (i % 17 === 0 ? null : new Uint8Array(i % 29).fill(i)) },
  scattered: {
    type: new BinaryView(),
    value: (i) => {
      const at = scatterOf(i);
      return at && SCATTER[at.buffer]?.subarray(at.from, at.from + at.length);
    },
  },
  views: {
    type: new List(new Field("item", new Utf8View(), true)),
    value: (i) =>
      i % 7 === 0 ? null : Array.from({ length: i % 5 }, (_, k) => (k === 2 ? null : `${"z".repeat(9 * k)}${i}`)),
  },
  either: { type: either(UnionMode.Sparse), value: (i) => (i % 3 === 0 ? i : `text ${i}`) },
  one_of: { type: either(UnionMode.Dense), value: (i) => (i % 3 === 0 ? i : i % 19 === 0 ? null : `text ${i}`) },
  deep: { type: inner, value: (i) => (i % 9 === 0 ? null : { a: i % 100, b: i % 2 ? [`s${i}`, null] : [] }) },
};
const NAMES = Object.keys(TYPES);

function dataOf(type: DataType, values: readonly unknown[]): Data {
  const [data] = vectorFromArray(values, type).data;
  if (!data) throw new Error("no data");
  return data;
}

/** Views that a writer would not make; those of nulls point nowhere. */
function scatteredData(): Data {
  const words = new Int32Array(4 * ROWS);
  const nullBitmap = new Uint8Array(Math.ceil(ROWS / 8));
  let nullCount = 0;
  for (let i = 0; i < ROWS; i++) {
    const at = scatterOf(i);
    if (!at) {
      nullCount++;
      words.set([1 << 30, -1, 77, 1 << 30], 4 * i);
      continue;
    }
    nullBitmap[i >> 3] = (nullBitmap[i >> 3] as number) | (1 << (i & 7));
    words.set([at.length, 0, at.buffer, at.from], 4 * i);
  }
  const views = new Uint8Array(words.buffer);
  return makeData({ type: new BinaryView(), length: ROWS, nullCount, nullBitmap, views, variadicBuffers: SCATTER });
}

/** Numbers in its first child, all else in its second. A sparse one has something in the other child, too. */
function unionOf(type: Union, values: readonly unknown[]): Data {
  const [numbers, texts] = type.children.map((child) => child.type as DataType) as [DataType, DataType];
  const isNumber = values.map((value) => typeof value === "number");
  const typeIds = Int8Array.from(isNumber, (is) => type.typeIds[is ? 0 : 1] as number);
  if (type.mode === UnionMode.Sparse) {
    const children = [
      dataOf(
        numbers,
        values.map((value, i) => (isNumber[i] ? value : -i)),
      ),
      dataOf(
        texts,
        values.map((value, i) => (isNumber[i] ? `nobody's ${i}` : value)),
      ),
    ];
    return makeData({ type: type as never, length: values.length, typeIds, children } as never);
  }
  const counts = [0, 0] as [number, number];
  const valueOffsets = Int32Array.from(isNumber, (is) => counts[is ? 0 : 1]++);
  const children = [
    dataOf(
      numbers,
      values.filter((_, i) => isNumber[i]),
    ),
    dataOf(
      texts,
      values.filter((_, i) => !isNumber[i]),
    ),
  ];
  return makeData({ type: type as never, length: values.length, typeIds, valueOffsets, children } as never);
}

let folder: TempDir;
let store: ShardStore;
let prepared: PreparedVersion;
let shard: ShardPlace;
let whole: RecordBatch;

beforeAll(async () => {
  folder = await tempDir("slice");
  const fields = NAMES.map((name) => new Field(name, TYPES[name]?.type as DataType, true));
  const children = NAMES.map((name) => {
    const { type, value } = TYPES[name] as (typeof TYPES)[string];
    const values = Array.from({ length: ROWS }, (_, i) => value(i));
    if (name === "scattered") return scatteredData();
    return DataType.isUnion(type) ? unionOf(type, values) : dataOf(type, values);
  });
  whole = new RecordBatch(new Schema(fields), makeData({ type: new Struct(fields), length: ROWS, children }));
  const source = join(folder.path, "all.arrow");
  await writeFile(source, RecordBatchFileWriter.writeAll([whole]).toUint8Array(true));
  prepared = await prepareVersion({ sources: [source] });
  store = await openDirectoryStore(join(folder.path, "store"));
  const [only] = await collect(prepared.shards);
  if (!only) throw new Error("no shard");
  await uploadShard(store, only);
  shard = { entry: only.entry, firstRow: 0, rows: ROWS, fileRow: null, batches: null };
});
afterAll(async () => {
  await store.close();
  await prepared.close();
  await folder.remove();
});

/** Of a column's rows, all of them. */
const valuesOf = new Map<string, readonly unknown[]>();
const wholeOf = (names: readonly string[]) =>
  names.map((name) => {
    const known = valuesOf.get(name) ?? (rowsOf(whole, [name])[0] as unknown[]);
    valuesOf.set(name, known);
    return known;
  });

const plain = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (_, v: unknown) => (typeof v === "bigint" ? `${v}n` : v)));
const rowsOf = (batch: RecordBatch, names: readonly string[]): unknown[] =>
  names.map((name) => {
    const column = batch.getChild(name);
    return column ? plain([...column]) : null;
  });

async function readerOf(names: readonly string[], tileBytes: number, blockRows = 0) {
  const reads = createInlineReads({ where: { dataset: "d", version: 1 }, stores: [store], hashing: "blake3" });
  const schema = schemaFromCanonical(prepared.schema);
  const wanted = new Set(names.map((name) => schema.fields.findIndex((f) => f.name === name)));
  const reader = createTileReader({
    reads,
    schema,
    wanted,
    tileBytes,
    blockRows,
    memory: privateSideMemory,
    keptBytesMax: 1 << 20,
  });
  const [segment] = await reader.open({ ...shard, batches: null });
  return { reads, reader, segment: segment as BatchSegment };
}

async function readTile(reader: Awaited<ReturnType<typeof readerOf>>["reader"], tile: Tile): Promise<RecordBatch> {
  if (tile.bytes < 0) await reader.size(tile);
  const buffer = new Uint8Array(tile.bytes + 64).fill(0xee);
  const batch = await reader.read(tile, buffer);
  expect(batch.numRows).toBe(tile.rows);
  expect([...buffer.subarray(tile.bytes)]).toEqual(Array(64).fill(0xee)); // it takes what it said
  return batch;
}

describe("a slice of a batch", () => {
  it("is what arrow-js slices, for any rows and any columns", async () => {
    const columns = fc.subarray(NAMES, { minLength: 1 });
    const rows = fc.tuple(fc.nat(ROWS - 1), fc.integer({ min: 1, max: 200 }));
    await fc.assert(
      fc.asyncProperty(columns, rows, async (names, [from, count]) => {
        const { reads, reader, segment } = await readerOf(names, Infinity);
        const length = Math.min(count, ROWS - from);
        const tile: Tile = { segment, firstRow: from, rows: length, isWhole: false, bytes: -1, slot: 0, round: 0 };
        const batch = await readTile(reader, tile);
        expect(batch.numRows).toBe(length);
        expect(batch.schema.fields.map((f) => f.name)).toEqual(names);
        expect(rowsOf(batch, names)).toEqual(wholeOf(names).map((all) => all.slice(from, from + length)));
        await reads.close();
      }),
      { numRuns: 60 },
    );
  });

  it.each(NAMES)("cut in tiles, column %s comes whole and in order", async (name) => {
    for (const [tileBytes, blockRows] of [
      [1000, 0],
      [1e6, 701],
    ] as const) {
      const { reads, reader, segment } = await readerOf([name], tileBytes, blockRows);
      const { tiles } = reader.tilesOf(segment) ?? (await reader.loadTiles(segment));
      expect(tiles.reduce((sum, tile) => sum + tile.rows, 0)).toBe(ROWS);
      if (blockRows > 0) expect(tiles.map((tile) => tile.firstRow)).toEqual([0, 701, 1402, 2103, 2804]);
      const parts: unknown[] = [];
      for (const tile of tiles) parts.push(...(rowsOf(await readTile(reader, tile), [name])[0] as unknown[]));
      expect(parts).toEqual(wholeOf([name])[0]);
      await reads.close();
    }
  });
});

it("a row of a union that points before its child is not made to point into it", () => {
  const bytesOf = (offsets: readonly number[]): Uint8Array => new Uint8Array(Int32Array.from(offsets).buffer);
  const ids = Uint8Array.of(5, 5, 5, 2);
  const offsets = bytesOf([3, -2, 4, 0]);
  const scan = startScan(0, 4);
  addUnionRows(scan, ids, offsets, [5, 2]);
  expect(scan.spans).toEqual([
    { at: 0, from: 3, to: 5 },
    { at: 1, from: 0, to: 1 },
  ]);
  moveUnionRows(offsets, ids, scan.spans, [5, 2]);
  expect(offsets).toEqual(bytesOf([0, -5, 1, 0]));
});

describe("a batch of a local file, read in parts", () => {
  it("is the same rows, for any columns and any size of the parts, and no read is larger than a part", async () => {
    const schema = schemaFromCanonical(prepared.schema);
    const [only] = await collect(prepared.shards);
    if (!only) throw new Error("no shard");
    const file = await readFile(only.path);
    const index = decodeSegmentIndex(await only.readIndex());
    const dictionarySegments = index.segments.filter(({ kind }) => kind === "dictionary");
    const bytesOf = ({ offset, bytes }: Segment) => new Uint8Array(file.subarray(offset, offset + bytes));
    const dictionaries = decodeDictionaries(schema, index, dictionarySegments.map(bytesOf));
    const segment = index.segments.find(({ kind }) => kind === "batch") as Segment;
    const columns = fc.subarray(NAMES, { minLength: 1 });
    await fc.assert(
      fc.asyncProperty(columns, fc.integer({ min: 12_000, max: 400_000 }), async (names, partBytes) => {
        const wanted = new Set(names.map((name) => schema.fields.findIndex((f) => f.name === name)));
        let bytesMax = 0;
        const readAt = (position: number, length: number): Uint8Array => {
          bytesMax = Math.max(bytesMax, length);
          return new Uint8Array(file.subarray(position, position + length));
        };
        const got: unknown[][] = names.map(() => []);
        for await (const part of batchParts({ schema, dictionaries, segment, wanted, partBytes, readAt })) {
          rowsOf(part, names).forEach((values, i) => got[i]?.push(...(values as unknown[])));
        }
        expect(got).toEqual(wholeOf(names));
        const metadataBytes = 16 * 1024;
        expect(bytesMax).toBeLessThan(Math.max(metadataBytes, 3 * partBytes)); // texts vary, rows are cut evenly
      }),
      { numRuns: 25 },
    );
  });
});
