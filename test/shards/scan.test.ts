import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Bool, Decimal, Field, makeData, RecordBatch, Schema, Struct, tableFromIPC } from "apache-arrow";
import { describe, expect, it } from "vitest";
import { formatDigest } from "../../src/model/bytes.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import { decodeSegmentIndex, leafDigest, type SegmentIndex } from "../../src/merkle/segment-index.ts";
import { decodeBatch, decodeDictionaries } from "../../src/shards/decode.ts";
import { startFileThreads } from "../../src/shards/file-threads.ts";
import { scanAll } from "../../src/shards/scan-all.ts";
import { scanShard } from "../../src/shards/scan.ts";
import { schemaFromCanonical } from "../../src/shards/schema.ts";
import { collect } from "../support/collect.ts";
import { tempDir } from "../support/temp-dir.ts";
import { batchOf, bytesOf, fixture, valuesOf, wideBatches, writeArrowJs } from "./support.ts";

/** Segments tile the file and every leaf has its plain BLAKE3. */
function expectTiled(index: SegmentIndex, bytes: Uint8Array): void {
  let end = 0;
  for (const segment of index.segments) {
    expect(segment.offset).toBe(end);
    end += segment.bytes;
    for (let leaf = 0; leaf < segment.leafCount; leaf += 1) {
      const from = segment.offset + leaf * 131_072;
      const slice = bytes.subarray(from, Math.min(from + 131_072, end));
      expect(leafDigest(index, segment.firstLeaf + leaf)).toEqual(hashBytes(slice));
    }
  }
  expect(end).toBe(bytes.byteLength);
}

describe("scanShard", () => {
  it.each(["pyarrow.arrow", "pyarrow-rich.arrow", "polars.arrow", "polars-oldest.arrow"])("tiles %s", async (name) => {
    const path = fixture(name);
    const scanned = await scanShard(path);
    const bytes = await bytesOf(path);
    const index = decodeSegmentIndex(scanned.index);
    expect(scanned.digest).toBe(formatDigest(hashBytes(bytes)));
    // polars puts a bare schema in front, without a message around it: part of the head
    const hasSchemaMessage = name.startsWith("pyarrow");
    expect(index.segments.some((s) => s.kind === "schema")).toBe(hasSchemaMessage);
    expect(index.segments[0]).toMatchObject({ kind: "head", offset: 0 });
    expectTiled(index, bytes);
  });

  it("decodes the same values as arrow-js reads from a file of pyarrow, every type", async () => {
    for (const name of ["pyarrow.arrow", "pyarrow-rich.arrow", "polars.arrow", "polars-oldest.arrow"]) {
      const path = fixture(name);
      const scanned = await scanShard(path);
      const bytes = await bytesOf(path);
      const index = decodeSegmentIndex(scanned.index);
      const schema = schemaFromCanonical(scanned.schema);
      const slice = (i: number) => {
        const { offset, bytes: length } = index.segments[i] as SegmentIndex["segments"][0];
        return bytes.slice(offset, offset + length);
      };
      const at = (kind: string) => [...index.segments.keys()].filter((i) => index.segments[i]?.kind === kind);
      const dictionaries = decodeDictionaries(schema, index, at("dictionary").map(slice));
      const table = tableFromIPC(bytes);
      at("batch").forEach((segment, b) => {
        const batch = decodeBatch(schema, dictionaries, slice(segment), index.segments[segment]?.rows);
        for (const field of schema.fields) {
          const expected = valuesOf(table.batches[b]?.getChild(field.name) ?? null);
          expect(JSON.stringify(valuesOf(batch.getChild(field.name)), text)).toBe(JSON.stringify(expected, text));
        }
      });
    }
  });

  it("takes a file of arrow-js, which has no schema message", async () => {
    await using folder = await tempDir("scan");
    const path = await writeArrowJs(join(folder.path, "a.arrow"), [batchOf(0, 4), batchOf(4, 8), batchOf(8, 10)]);
    const scanned = await scanShard(path);
    const index = decodeSegmentIndex(scanned.index);
    expect(scanned.rows).toBe(10);
    expect(index.segments.map((s) => s.kind)).toEqual(["head", "dictionary", "batch", "batch", "batch", "footer"]);
    expect(index.segments.map((s) => s.rows)).toEqual([0, 3, 4, 4, 2, 0]);
    expectTiled(index, await bytesOf(path));
  });

  it("hashes large segments leaf by leaf, and tells its progress", async () => {
    await using folder = await tempDir("scan");
    const path = await writeArrowJs(join(folder.path, "a.arrow"), [...wideBatches(2, 20), ...wideBatches(3, 0.2)]);
    let bytes = 0;
    const scanned = await scanShard(path, { onBytes: (n) => (bytes += n) });
    expect(bytes).toBe(scanned.bytes);
    expectTiled(decodeSegmentIndex(scanned.index), await bytesOf(path));
  });

  it("finds the same whether reads block or not, however segments lie in what is read at a time, several at once", async () => {
    await using folder = await tempDir("scan");
    const sizes = [[3.99], [4], [0.01, 3.97], [0.3, 5, 0.9, 1.7, 0.01, 3.2, 2.6], [1, 1, 1, 1, 1, 1, 1, 1, 1]];
    const paths: string[] = [];
    for (const [i, leaves] of sizes.entries()) {
      const batches = leaves.flatMap((count) => wideBatches(1, count));
      paths.push(await writeArrowJs(join(folder.path, `${i}.arrow`), batches));
    }
    const scanAllAs = (reads: "async" | "blocking") => Promise.all(paths.map((path) => scanShard(path, { reads })));
    const [reading, blocking] = [await scanAllAs("async"), await scanAllAs("blocking")];
    expect(blocking).toEqual(reading);
    for (const [i, path] of paths.entries()) {
      const bytes = await bytesOf(path);
      expect(reading[i]?.digest).toBe(formatDigest(hashBytes(bytes)));
      expectTiled(decodeSegmentIndex(reading[i]?.index ?? bytes), bytes);
    }
  });

  it("reads metadata that goes on beyond what is read at a time", async () => {
    await using folder = await tempDir("scan");
    const fields = Array.from({ length: 3_300 }, (_, i) => new Field(String(i), new Bool(), true));
    const data = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0);
    const children = fields.map(() =>
      makeData({ type: new Bool(), length: 3, nullCount: 1, nullBitmap: Uint8Array.of(5), data }),
    );
    const batch = new RecordBatch(
      new Schema(fields),
      makeData({ type: new Struct(fields), length: 3, nullCount: 0, children }),
    );
    const path = await writeArrowJs(
      join(folder.path, "a.arrow"),
      Array.from({ length: 40 }, () => batch),
    );
    for (const reads of ["async", "blocking"] as const) {
      const scanned = await scanShard(path, { reads });
      const index = decodeSegmentIndex(scanned.index);
      const metadataBytes = 3_300 * 48;
      const ends = index.segments.map(({ offset }) => 524_288 - (offset % 524_288)); // of the read that it starts in
      expect(ends.some((bytes) => bytes >= 131_072 && bytes < metadataBytes)).toBe(true);
      expect(scanned.rows).toBe(120);
      expectTiled(index, await bytesOf(path));
    }
  });

  it("refuses a schema that the format allows and that makes no sense, in a thread too", async () => {
    await using folder = await tempDir("scan");
    const type = new Decimal(0, 0, 128);
    const schema = new Schema([new Field("x", type, false)]);
    const x = makeData({ type, length: 1, nullCount: 0, data: new Uint32Array(4) });
    const batch = new RecordBatch(schema, makeData({ type: new Struct(schema.fields), length: 1, children: [x] }));
    const path = await writeArrowJs(join(folder.path, "a.arrow"), [batch]);
    const refusal = { code: "shard_malformed", message: /its schema makes no sense/ };
    await expect(scanShard(path)).rejects.toMatchObject(refusal);
    const threads = startFileThreads(2, 2 ** 40);
    try {
      await expect(collect(scanAll([{ path }], threads, {}))).rejects.toMatchObject(refusal);
      await expect(collect(scanAll([{ path }], null, {}))).rejects.toMatchObject(refusal);
    } finally {
      await threads?.close();
    }
  });

  it("stops when it is aborted", async () => {
    const signal = AbortSignal.abort();
    await expect(scanShard(fixture("pyarrow.arrow"), { signal })).rejects.toMatchObject({ code: "aborted" });
  });

  it.each([
    ["pyarrow.arrows", /stream/],
    ["polars.arrows", /stream/],
    ["pyarrow-lz4.arrow", /compressed \(LZ4\)/],
    ["pyarrow-zstd.arrow", /compressed \(ZSTD\)/],
    ["pyarrow-delta.arrow", /delta/],
    ["pyarrow-run-end.arrow", /run-end/],
    ["make.py", /not an Arrow IPC file/],
  ])("refuses %s and says why", async (name, reason) => {
    await expect(scanShard(fixture(name))).rejects.toMatchObject({
      code: "shard_malformed",
      message: expect.stringMatching(reason),
      details: { file: fixture(name), offset: expect.any(Number), reason: expect.stringMatching(reason) },
    });
  });

  it("refuses an empty file, one cut off anywhere, and one without rows", async () => {
    await using folder = await tempDir("scan");
    const whole = await readFile(fixture("pyarrow.arrow"));
    const path = join(folder.path, "cut.arrow");
    for (const length of [0, 1, 6, 8, 17, 18, 100, 1000, whole.length - 11, whole.length - 1]) {
      await writeFile(path, whole.subarray(0, length));
      await expect(scanShard(path), `cut to ${length}`).rejects.toMatchObject({ code: "shard_malformed" });
    }
    await writeArrowJs(path, [batchOf(0, 0)]);
    await expect(scanShard(path)).rejects.toMatchObject({ code: "shard_malformed", message: /no rows/ });
    await expect(scanShard(join(folder.path, "none"))).rejects.toMatchObject({ code: "not_found" });
    await expect(scanShard(folder.path)).rejects.toMatchObject({ code: "shard_malformed" });
  });

  it("refuses what digests cannot see: wrong null counts, falling offsets, dictionary indices out of range", async () => {
    await using folder = await tempDir("scan");
    const whole = await bytesOf(await writeArrowJs(join(folder.path, "good.arrow"), [batchOf(0, 10)]));
    const index = decodeSegmentIndex((await scanShard(join(folder.path, "good.arrow"))).index);
    const batch = index.segments.find((s) => s.kind === "batch");
    if (!batch) throw new Error("no batch");
    const expectRefused = async (
      needle: Int32Array | Uint8Array,
      change: (at: number, bytes: Uint8Array) => void,
      reason: RegExp,
    ) => {
      const from = Buffer.from(needle.buffer, needle.byteOffset, needle.byteLength);
      const at = Buffer.from(whole).indexOf(from, batch.offset);
      expect(at).toBeGreaterThan(0);
      const bytes = whole.slice();
      change(at, bytes);
      const path = join(folder.path, "bad.arrow");
      await writeFile(path, bytes);
      await expect(scanShard(path)).rejects.toMatchObject({ code: "shard_malformed", message: reason });
    };
    const offsets = Int32Array.of(0, 0, 1, 3, 3, 4, 6, 6, 7, 9, 9); // of tags
    await expectRefused(offsets, (at, bytes) => (bytes[at + 8] = 9), /column tags: an offset falls/);
    await expectRefused(offsets, (at, bytes) => (bytes[at + 40] = 10), /column tags: an offset of 10 where 9/);
    const codes = Int32Array.of(0, 1, 2, 0, 1, 2, 0, 0, 2, 0);
    await expectRefused(codes, (at, bytes) => (bytes[at] = 3), /index 3 into a dictionary of 3/);
    await expectRefused(codes, (at, bytes) => (bytes[at + 3] = 0x80), /column label: a negative dictionary index/);
    const validity = Uint8Array.of(0b10110110, 0b01, 0, 0, 0, 0, 0, 0); // of maybe: rows 0, 3, 6 and 9 are null
    await expectRefused(validity, (at, bytes) => (bytes[at] = 0b10110111), /column maybe: declares 4 nulls and has 3/);
    const inNullSlot = whole.slice();
    inNullSlot[Buffer.from(whole).indexOf(Buffer.from(codes.buffer), batch.offset) + 7 * 4] = 99;
    await writeFile(join(folder.path, "null.arrow"), inNullSlot);
    expect((await scanShard(join(folder.path, "null.arrow"))).rows).toBe(10);
  });
});

function text(_: string, value: unknown): unknown {
  if (typeof value === "bigint") return `${value}n`;
  return ArrayBuffer.isView(value) ? Array.from(value as Uint8Array) : value;
}
