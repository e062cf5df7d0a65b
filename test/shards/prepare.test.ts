import { copyFile, mkdir, readdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  Dictionary,
  Field,
  Int32,
  Int8,
  makeData,
  RecordBatch,
  Schema,
  Struct,
  tableFromIPC,
  Utf8,
  vectorFromArray,
  type Data,
} from "apache-arrow";
import { describe, expect, it } from "vitest";
import { decodeClasses } from "../../src/merkle/classes.ts";
import { decodeSegmentIndex } from "../../src/merkle/segment-index.ts";
import { openDirectoryStore } from "../../src/shards/directory-store.ts";
import { prepareVersion, type PrepareProgress } from "../../src/shards/prepare.ts";
import { scanShard } from "../../src/shards/scan.ts";
import { uploadShard } from "../../src/shards/upload.ts";
import { encodeShard } from "../../src/shards/write.ts";
import { schemaFromCanonical, canonicalSchema } from "../../src/shards/schema.ts";
import { tempDir } from "../support/temp-dir.ts";
import { batchOf, fixture, valuesOf, wideBatches, writeArrowJs } from "./support.ts";
import { collect } from "../support/collect.ts";

async function folderOf(files: Readonly<Record<string, RecordBatch[]>>) {
  const folder = await tempDir("prepare");
  for (const [name, batches] of Object.entries(files)) {
    await mkdir(join(folder.path, name, ".."), { recursive: true });
    await writeArrowJs(join(folder.path, name), batches);
  }
  return folder;
}

/** A batch of one text dictionary column with a dictionary of its own. */
function labels(values: readonly string[]): RecordBatch {
  const dictionary = vectorFromArray([...new Set(values)], new Utf8());
  const type = new Dictionary(new Utf8(), new Int8(), 5);
  const places = [...new Set(values)];
  const data = makeData({ type, data: Int8Array.from(values, (v) => places.indexOf(v)), dictionary });
  const schema = new Schema([new Field("label", type, true)]);
  return new RecordBatch(
    schema,
    makeData({ type: new Struct(schema.fields), length: values.length, nullCount: 0, children: [data] }),
  );
}

describe("prepareVersion", () => {
  it("takes a folder in bytewise order, ignores other files, and gathers the vocabulary", async () => {
    await using folder = await folderOf({
      "b.arrow": [batchOf(0, 4)],
      "B.feather": [batchOf(4, 8)],
      "deep/er/c.ipc": [batchOf(8, 10)],
    });
    await writeFile(join(folder.path, "readme.txt"), "no");
    await writeFile(join(folder.path, ".hidden.arrow"), "no");
    const progress: PrepareProgress[] = [];
    await using prepared = await prepareVersion({ sources: folder.path, onProgress: (p) => progress.push(p) });
    const shards = await collect(prepared.shards);
    expect(shards.map((s) => s.entry.name)).toEqual(["B.feather", "b.arrow", "deep/er/c.ipc"]);
    expect(shards.map((s) => s.entry.rows)).toEqual([4, 4, 2]);
    expect(prepared.shards).toMatchObject({ count: 3, rows: 10 });
    expect(decodeClasses(prepared.classes)).toEqual({ label: ["cat", "dog", "eel"] });
    expect(prepared).toMatchObject({ splits: ["train"], splitRule: { kind: "none" } });
    const ignored = progress.flatMap((p) => (p.kind === "ignored" ? [p.path] : []));
    expect(ignored.sort()).toEqual([join(folder.path, ".hidden.arrow"), join(folder.path, "readme.txt")]);
    const scanned = progress.reduce((sum, p) => (p.kind === "bytes" ? sum + p.bytes : sum), 0);
    expect(scanned).toBe(shards.reduce((sum, s) => sum + s.entry.bytes, 0));
    expect(prepared.shards.bytes).toBe(scanned);
    await using again = await prepareVersion({ sources: folder.path });
    expect((await collect(again.shards)).map((s) => s.entry)).toEqual(shards.map((s) => s.entry));
  });

  it("names the first files that it leaves out, and counts the others", async () => {
    await using folder = await folderOf({ "a.arrow": [batchOf(0, 4)] });
    for (let i = 0; i < 25; i++) await writeFile(join(folder.path, `note-${i}.txt`), "no");
    const progress: PrepareProgress[] = [];
    await using prepared = await prepareVersion({ sources: folder.path, onProgress: (p) => progress.push(p) });
    expect(prepared.shards.count).toBe(1);
    expect(progress.filter((p) => p.kind === "ignored").length).toBe(20);
    expect(progress).toContainEqual({ kind: "ignored_more", files: 5 });
  });

  it("makes splits of train, val and test folders, and refuses files outside of them", async () => {
    await using folder = await folderOf({
      "val/a.arrow": [batchOf(0, 2)],
      "train/a.arrow": [batchOf(2, 10)],
      "train/b.arrow": [batchOf(0, 1)],
    });
    await using prepared = await prepareVersion({ sources: folder.path });
    expect(prepared.splits).toEqual(["train", "val"]);
    expect(prepared.splitRule).toEqual({ kind: "folders" });
    expect((await collect(prepared.shards)).map((s) => [s.entry.name, s.entry.split])).toEqual([
      ["train/a.arrow", 0],
      ["train/b.arrow", 0],
      ["val/a.arrow", 1],
    ]);
    const both = prepareVersion({ sources: folder.path, positional: { val: 0.1 } });
    await expect(both).rejects.toMatchObject({ code: "invalid_argument" });
    await writeArrowJs(join(folder.path, "stray.arrow"), [batchOf(0, 1)]);
    await expect(prepareVersion({ sources: folder.path })).rejects.toMatchObject({
      code: "invalid_argument",
      details: { name: "stray.arrow" },
    });
  });

  it.each([
    [{ val: 0.1 }, ["train", "val"], { val: 100_000 }],
    [{ train: 0.8, val: 0.1, test: 0.1 }, ["train", "test", "val"], { test: 100_000, val: 100_000 }],
    [{ a: 1 / 3, b: 1 / 3, c: 1 / 3 }, ["a", "b", "c"], { b: 333_333, c: 333_333 }],
  ])("cuts by position: %j", async (positional, splits, ppm) => {
    await using prepared = await prepareVersion({ sources: [fixture("pyarrow.arrow")], positional });
    expect(prepared).toMatchObject({ splits, splitRule: { kind: "positional", salt: "", ppm } });
    expect((await collect(prepared.shards))[0]?.entry.split).toBe(0);
  });

  it.each([{ train: 0.5, val: 0.1 }, { val: -1 }, { val: 1.5 }, { Bad: 0.1 }])(
    "refuses shares %j",
    async (positional) => {
      const prepared = prepareVersion({ sources: [fixture("pyarrow.arrow")], positional });
      await expect(prepared).rejects.toMatchObject({ code: "invalid_argument" });
    },
  );

  it("refuses another schema with the first column that differs, two files of one name, and nothing at all", async () => {
    const files = [fixture("pyarrow.arrow"), fixture("polars.arrow")];
    await expect(prepareVersion({ sources: files })).rejects.toMatchObject({
      code: "schema_differs",
      details: { field: "name", file: fixture("pyarrow.arrow"), first: fixture("polars.arrow") },
    });
    await using folder = await tempDir("prepare");
    await copyFile(fixture("pyarrow.arrow"), join(folder.path, "pyarrow.arrow"));
    const twice = prepareVersion({ sources: [fixture("pyarrow.arrow"), join(folder.path, "pyarrow.arrow")] });
    await expect(twice).rejects.toMatchObject({ code: "invalid_argument", details: { name: "pyarrow.arrow" } });
    await using empty = await tempDir("prepare");
    await expect(prepareVersion({ sources: empty.path })).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(prepareVersion({ sources: join(empty.path, "no") })).rejects.toMatchObject({ code: "not_found" });
  });

  it("keeps the base vocabulary as a prefix and takes plain text columns when asked", async () => {
    const sources = [fixture("pyarrow.arrow")];
    const baseClasses = { label: ["eel", "ant"], name: ["name 9"] };
    await using prepared = await prepareVersion({ sources, baseClasses });
    expect(decodeClasses(prepared.classes)).toEqual({
      label: ["eel", "ant", "cat", "dog"],
      name: ["name 9", ...[0, 1, 2, 3, 5, 6, 7, 8].map((i) => `name ${i}`)],
    });
    await using asked = await prepareVersion({ sources, classes: ["name"] });
    expect(decodeClasses(asked.classes)["name"]).toHaveLength(9);
    await using rich = await prepareVersion({
      sources: [fixture("pyarrow-rich.arrow")],
      classes: ["point.y", "lists", "view"],
    });
    expect(decodeClasses(rich.classes)).toEqual({
      kind: ["p", "q"],
      lists: ["a", "b", "c"],
      "point.y": ["a", "d"],
      view: ["short", "x".repeat(13), "y".repeat(300)],
    });
    await expect(prepareVersion({ sources, classes: ["id"] })).rejects.toMatchObject({ code: "column_unknown" });
  });

  it("finds the same values in a batch that is read in parts", async () => {
    const rows = 80_000;
    const words = ["ant", "bee", "cat"];
    const texts = Array.from({ length: rows }, (_, i) =>
      i % 7 === 0 ? null : `${words[i % 3] ?? ""}${"-".repeat(i % 1000)}`,
    );
    const kinds = texts.map((text, i) => (i === rows - 1 ? "the last one" : (text?.slice(0, 3) ?? null)));
    const fields = [new Field("note", new Utf8(), true), new Field("kind", new Utf8(), true)];
    const children = [texts, kinds].map((values) => vectorFromArray(values, new Utf8()).data[0] as Data);
    const batch = new RecordBatch(new Schema(fields), makeData({ type: new Struct(fields), length: rows, children }));
    await using folder = await folderOf({ "a.arrow": [batch] });
    await using prepared = await prepareVersion({ sources: folder.path, classes: ["kind"] });
    expect(prepared.shards.bytes).toBeGreaterThan(33 * 1024 * 1024);
    expect(decodeClasses(prepared.classes)).toEqual({ kind: [...words, "the last one"] });
  });

  it("has no vocabulary for a column of very many values, and says so unless it was asked for", async () => {
    const many = Array.from({ length: 100_000 }, (_, i) => `value ${i}`);
    const type = new Dictionary(new Utf8(), new Int32(), 0);
    const batch = new RecordBatch(
      new Schema([new Field("label", type, true)]),
      makeData({
        type: new Struct([new Field("label", type, true)]),
        length: many.length,
        nullCount: 0,
        children: [
          makeData({ type, data: Int32Array.from(many, (_, i) => i), dictionary: vectorFromArray(many, new Utf8()) }),
        ],
      }),
    );
    await using folder = await folderOf({ "a.arrow": [batch] });
    const progress: PrepareProgress[] = [];
    await using prepared = await prepareVersion({ sources: folder.path, onProgress: (p) => progress.push(p) });
    expect(decodeClasses(prepared.classes)).toEqual({});
    expect(progress).toContainEqual({ kind: "no_vocabulary", column: "label" });
    const asked = prepareVersion({ sources: folder.path, classes: ["label"] });
    await expect(asked).rejects.toMatchObject({ code: "limit_exceeded", details: { column: "label" } });
  });

  it("writes record batches as shards, removes them on close, and refuses a batch of another schema", async () => {
    const before = await ownFolders();
    async function* batches() {
      yield batchOf(0, 4);
      yield batchOf(4, 10);
    }
    const prepared = await prepareVersion({ sources: batches() });
    const [written] = await collect(prepared.shards);
    expect([[written?.entry.name, written?.entry.rows]]).toEqual([["part-00000.arrow", 10]]);
    expect(decodeSegmentIndex((await written?.readIndex()) ?? new Uint8Array(0)).segments.map((s) => s.kind)).toEqual([
      ...["head", "schema", "dictionary", "batch", "batch", "footer"],
    ]);
    await using folder = await tempDir("prepare");
    await using store = await openDirectoryStore(folder.path);
    const [shard] = await collect(prepared.shards);
    if (!shard) throw new Error("no shard");
    expect(await uploadShard(store, shard)).toBe("stored");
    expect(await uploadShard(store, shard)).toBe("present");
    await prepared.close();
    await prepared.close();
    async function* mixed() {
      yield batchOf(0, 4);
      yield labels(["a"]);
    }
    await expect(prepareVersion({ sources: mixed() })).rejects.toMatchObject({ code: "schema_differs" });
    expect(await ownFolders()).toEqual(before);
  });

  it("refuses to store a file that changed since it was scanned", async () => {
    await using folder = await folderOf({ "a.arrow": [batchOf(0, 4)] });
    await using prepared = await prepareVersion({ sources: folder.path });
    await writeArrowJs(join(folder.path, "a.arrow"), [batchOf(0, 5)]);
    await using store = await openDirectoryStore(join(folder.path, "store"));
    const [shard] = await collect(prepared.shards);
    if (!shard) throw new Error("no shard");
    await expect(uploadShard(store, shard)).rejects.toMatchObject({ code: "shard_corrupt" });
    expect(await store.stat(shard.entry.digest)).toBeNull();
  });
});

describe("the shard writer", () => {
  it("unifies dictionaries over a file, and what it writes is read by arrow-js and by the scan", async () => {
    await using folder = await tempDir("write");
    const batches = [labels(["b", "a", "b"]), labels(["c", "a"]), labels(["z", "b"]).slice(1)];
    const schema = schemaFromCanonical(canonicalSchema(labels(["x"]).schema));
    const bytes = encodeShard(schema, batches);
    const path = join(folder.path, "a.arrow");
    await writeFile(path, bytes);
    const scanned = await scanShard(path);
    expect(scanned.rows).toBe(6);
    expect(decodeSegmentIndex(scanned.index).segments[2]).toMatchObject({ kind: "dictionary", rows: 4 });
    expect(valuesOf(tableFromIPC(bytes).getChild("label"))).toEqual(["b", "a", "b", "c", "a", "b"]);
  });

  it("keeps every value of slices, nulls, lists and structs", () => {
    const batch = batchOf(0, 10);
    const schema = schemaFromCanonical(canonicalSchema(batch.schema));
    const parts = [batch.slice(0, 3), batch.slice(3, 5), batch.slice(5, 10)];
    const table = tableFromIPC(encodeShard(schema, parts));
    for (const { name } of schema.fields) {
      expect(valuesOf(table.getChild(name))).toEqual(valuesOf(batch.getChild(name)));
    }
  });

  it("refuses more dictionary values than the index type can count", () => {
    const schema = schemaFromCanonical(canonicalSchema(labels(["x"]).schema));
    const parts = [0, 1].map((b) => labels(Array.from({ length: 100 }, (_, i) => `${b} ${i}`)));
    expect(() => encodeShard(schema, parts)).toThrowError(expect.objectContaining({ code: "limit_exceeded" }));
  });

  it("writes the same bytes each time", () => {
    const schema = schemaFromCanonical(canonicalSchema(wideBatches(1, 0.01)[0]?.schema as Schema));
    expect(encodeShard(schema, wideBatches(2, 0.01))).toEqual(encodeShard(schema, wideBatches(2, 0.01)));
  });
});

async function ownFolders(): Promise<string[]> {
  return (await readdir(tmpdir())).filter((name) => name.startsWith("shardpact-publish-")).sort();
}
