/**
 * Tables as the Python fixtures hold them, written by arrow-js, and shards in stores.
 */
import { readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  Bool,
  Dictionary,
  Field,
  FixedSizeList,
  Float32,
  Float64,
  Int16,
  Int32,
  List,
  makeData,
  RecordBatch,
  RecordBatchFileWriter,
  Schema,
  Struct,
  TimestampMillisecond,
  Utf8,
  vectorFromArray,
  type DataType,
  type Vector,
} from "apache-arrow";
import type { ShardStore } from "../../src/shards/port.ts";
import { prepareVersion } from "../../src/shards/prepare.ts";
import type { PreparedShard } from "../../src/shards/shard-list.ts";
import { uploadShard } from "../../src/shards/upload.ts";
import { collect } from "../support/collect.ts";

export const FIXTURES = join(dirname(fileURLToPath(import.meta.url)), "fixtures");

export function fixture(name: string): string {
  return join(FIXTURES, name);
}

const label = new Dictionary(new Utf8(), new Int32(), 0);
const FIELDS = [
  new Field("id", new Int32(), true),
  new Field("x", new Float64(), true),
  new Field("image", new FixedSizeList(4, new Field("element", new Float32(), true)), true),
  new Field("maybe", new Int16(), true),
  new Field("flag", new Bool(), true),
  new Field("name", new Utf8(), true),
  new Field("tags", new List(new Field("of the list", new Int32(), true)), true),
  new Field("when", new TimestampMillisecond("UTC"), true),
  new Field("label", label, true),
];
const SCHEMA = new Schema(FIELDS);
const LABELS = ["cat", "dog", "eel"];

/** Rows [from, to) of the table that `fixtures/make.py` writes. */
export function batchOf(from: number, to: number): RecordBatch {
  const ids = Array.from({ length: to - from }, (_, i) => from + i);
  const columns: readonly (readonly unknown[])[] = [
    ids,
    ids.map((i) => i / 2),
    ids.map((i) => [0, 1, 2, 3].map((k) => i * 4 + k)),
    ids.map((i) => (i % 3 === 0 ? null : i)),
    ids.map((i) => i % 2 === 0),
    ids.map((i) => (i === 4 ? null : `name ${i}`)),
    ids.map((i) => Array.from({ length: i % 3 }, (_, k) => k)),
    ids.map((i) => i * 1000),
    ids.map((i) => (i === 7 ? null : LABELS[i % 3])),
  ];
  const children = FIELDS.map((field, k) => dataOf(field.type, columns[k] ?? []));
  return new RecordBatch(SCHEMA, makeData({ type: new Struct(FIELDS), length: to - from, nullCount: 0, children }));
}

const labelValues = vectorFromArray(LABELS, new Utf8());

function dataOf(type: DataType, values: readonly unknown[]) {
  if (type !== label) {
    const data = vectorFromArray(values, type).data[0];
    if (!data) throw new Error("no data");
    return data;
  }
  const data = Int32Array.from(values, (value) => Math.max(0, LABELS.indexOf(String(value))));
  const nullCount = values.filter((value) => value === null).length;
  const nullBitmap = new Uint8Array(Math.ceil(values.length / 8));
  values.forEach((value, i) => (nullBitmap[i >> 3] = (nullBitmap[i >> 3] ?? 0) | (value === null ? 0 : 1 << (i & 7))));
  return makeData({ type: label, length: values.length, nullCount, nullBitmap, data, dictionary: labelValues });
}

/** The file as arrow-js itself writes it: without a schema message in front. */
export async function writeArrowJs(path: string, batches: readonly RecordBatch[]): Promise<string> {
  await writeFile(path, RecordBatchFileWriter.writeAll(batches).toUint8Array(true));
  return path;
}

/** Batches of wide rows: `leaves` leaves each, more or less. */
export function wideBatches(count: number, leaves: number): RecordBatch[] {
  const width = 64;
  const rows = Math.floor((leaves * 131_072) / (width * 4));
  const type = new FixedSizeList(width, new Field("item", new Float32(), true));
  const schema = new Schema([new Field("x", type, true), new Field("label", label, true)]);
  return Array.from({ length: count }, (_, b) => {
    const data = Float32Array.from({ length: rows * width }, (_, i) => b + i / 1000);
    const child = makeData({ type: new Float32(), data });
    const x = makeData({ type, length: rows, nullCount: 0, child });
    const codes = makeData({
      type: label,
      data: Int32Array.from({ length: rows }, (_, i) => i % 3),
      dictionary: labelValues,
    });
    return new RecordBatch(
      schema,
      makeData({ type: new Struct(schema.fields), length: rows, nullCount: 0, children: [x, codes] }),
    );
  });
}

/** Scans one file and puts it into stores. */
export async function publishFile(
  path: string,
  stores: readonly ShardStore[],
): Promise<PreparedShard & { readonly index: Uint8Array }> {
  await using prepared = await prepareVersion({ sources: [path] });
  const [shard] = await collect(prepared.shards);
  if (!shard) throw new Error("no shard");
  for (const store of stores) await uploadShard(store, shard);
  return { ...shard, index: await shard.readIndex() };
}

export async function bytesOf(path: string): Promise<Uint8Array> {
  return new Uint8Array(await readFile(path));
}

export function valuesOf(vector: Vector | null): unknown[] {
  return vector ? [...vector].map((value: unknown) => (isVector(value) ? [...value] : value)) : [];
}

function isVector(value: unknown): value is Iterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.iterator in value;
}
