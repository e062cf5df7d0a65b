/**
 * What a loader knows of shards is counted: the figures that stand for it are held to V8's heap, and to the bounds they are for.
 */
import { vectorFromArray, Utf8 } from "apache-arrow";
import { expect, test } from "vitest";
import type { ConfirmedVersion } from "../../src/client/types.ts";
import { createHostLoader } from "../../src/loader/host-loader.ts";
import { createInlineReads } from "../../src/loader/fetch/inline-reads.ts";
import { loadLayout } from "../../src/loader/fetch/layout.ts";
import { createLocator } from "../../src/loader/fetch/locate.ts";
import { createRecent } from "../../src/loader/fetch/recent.ts";
import type { ShardReads } from "../../src/loader/fetch/reads.ts";
import { indexBytes, tableBytes } from "../../src/loader/fetch/shard-memory.ts";
import { LOADS_MAX, privateSideMemory } from "../../src/loader/fetch/side-memory.ts";
import { createTileReader } from "../../src/loader/fetch/tile-reader.ts";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import { decodeSegmentIndex, encodeSegmentIndex, tileSegments } from "../../src/merkle/segment-index.ts";
import { layoutOf } from "../../src/shards/decode.ts";
import { openShard } from "../../src/shards/reader.ts";
import { schemaFromCanonical } from "../../src/shards/schema.ts";
import { heldBytes } from "../support/heap.ts";
import { makeGiantShard } from "./support/giant-shard.ts";
import { batchOf, floatBatches, makeVersion } from "./support/version.ts";

const MiB = 1024 * 1024;
const where = { dataset: "things", version: 1 };

/** What `make` leaves in memory: the least of three times, for V8 also keeps code that it compiles meanwhile. All of them live. */
async function heldBy<T>(make: () => T | Promise<T>): Promise<{ held: number; made: T; all: readonly T[] }> {
  const all: T[] = [];
  let held = Infinity;
  while (all.length < 3) {
    const before = await heldBytes();
    all.push(await make());
    held = Math.min(held, (await heldBytes()) - before);
  }
  return { held, made: all[0] as T, all };
}

/** The figure covers what is held, and is no invention. */
function expectCovers(figure: number, held: number): void {
  expect(held / figure).toBeLessThanOrEqual(1.1);
  expect(held / figure).toBeGreaterThan(0.6);
}

const SEGMENTS = 30_000;

/** The index of a shard of 30 GB. */
function bigIndex(): Uint8Array {
  const segments = tileSegments([
    { kind: "head", bytes: 8, rows: 0 },
    ...Array.from({ length: SEGMENTS }, (_, i) => ({ kind: "batch" as const, bytes: MiB, rows: 1000 + i })),
    { kind: "footer", bytes: 64, rows: 0 },
  ]);
  const last = segments.at(-1);
  const leaves = new Uint8Array(32 * ((last?.firstLeaf ?? 0) + (last?.leafCount ?? 0)));
  const fileBytes = (last?.offset ?? 0) + (last?.bytes ?? 0);
  return encodeSegmentIndex({ fileBytes, fileDigest: new Uint8Array(32), segments, leaves, dictionaryIds: [] });
}

test("a segment index takes what it is counted with", async () => {
  const encoded = bigIndex();
  const { held, made } = await heldBy(() => decodeSegmentIndex(encoded));
  expectCovers(indexBytes(made), held);
});

test("the metadata of record batches takes what it is counted with, however many columns and offsets", async () => {
  for (const columns of [1, 8]) {
    const texts = vectorFromArray(["a", "b", "c"], new Utf8());
    const batch = batchOf(Object.fromEntries(Array.from({ length: columns }, (_, c) => [`c${c}`, texts])));
    await using data = await makeVersion({ splits: { "": [batch] } });
    const schema = schemaFromCanonical(data.version.schema);
    const [entry] = await data.version.page(0);
    if (!entry) throw new Error("no shard");
    await using reader = await openShard({ entry, where, stores: data.version.stores });
    const at = reader.index.segments.findIndex(({ kind }) => kind === "batch");
    const bytes = await reader.readSegment(at, new Uint8Array(reader.index.segments[at]?.bytes ?? 0));
    const table = () => ({
      ...layoutOf(schema, bytes),
      offsets: new Map<string, number>(),
      scans: new Map(),
      head: null,
    });
    const { held, made } = await heldBy(() => Array.from({ length: 2000 }, table));
    expectCovers(
      made.reduce((sum, one) => sum + tableBytes(one), 0),
      held,
    );
    const many = await heldBy(() => {
      const one = table();
      for (let i = 0; i < 50_000; i++) one.offsets.set(`${i % 3}:${i * 1000}`, i * 2048);
      return one;
    });
    expectCovers(tableBytes(many.made), many.held);
  }
});

/** A layout of one shard, and what reads it. */
async function openOne(version: ConfirmedVersion, tileBytes: number) {
  const { signal } = new AbortController();
  const layout = await loadLayout(version, version.splits[0]?.name ?? "", 64 * MiB, signal);
  const reads = createInlineReads({ where, stores: version.stores, hashing: "blake3", signal });
  const schema = schemaFromCanonical(version.schema);
  const reader = createTileReader({
    ...{ reads, schema, wanted: new Set([0]), tileBytes, blockRows: 0 },
    ...{ memory: privateSideMemory, keptBytesMax: MiB, onCut: layout.cut },
  });
  await layout.loadPage(layout.pageOf(0), signal);
  return { layout, reads, locate: (at: number) => createLocator(layout, reader).locate(Float64Array.of(at), signal) };
}

test("record batches of an open shard, and the tiles that one of 9 GB is cut into, are counted with their page", async () => {
  await using many = await makeVersion({ splits: { "": floatBatches(160_000, 16, 1024) }, shardBytes: 1 << 30 });
  await using giant = await makeGiantShard();
  for (const [version, tileBytes] of [
    [many.version, MiB],
    [giant.version, 64 * 1024],
  ] as const) {
    const { held, made, all } = await heldBy(async () => {
      const opened = await openOne(version, tileBytes);
      await opened.locate(0);
      return opened;
    });
    const [entry] = await version.page(0);
    if (!entry) throw new Error("no shard");
    await using reader = await openShard({ entry, where, stores: version.stores });
    const figure = made.layout.resident.bytes + indexBytes(reader.index);
    expect(figure).toBeGreaterThan(2 * MiB); // it is a matter of megabytes
    expect(held / figure).toBeLessThanOrEqual(1.1);
    for (const { reads } of all) await reads.close();
  }
});

test("a shard that is known by more than half of the memory is refused, naming both figures; with as much as they say it is read", async () => {
  await using many = await makeVersion({ splits: { "": floatBatches(160_000, 16, 1024) }, shardBytes: 1 << 30 });
  const read = async (memory: number): Promise<unknown> => {
    const options = { xs: "x", batchSize: 64, memory, shuffle: false } as const;
    await using loader = createHostLoader(many.version, options, { ...DEFAULT_PORTS, reads: "inline" });
    return await loader.iterate().next();
  };
  const error: unknown = await read(4 * MiB).catch((e: unknown) => e);
  expect(error).toMatchObject({ code: "budget_too_small", details: { memoryMaxBytes: 4 * MiB } });
  const { memoryNeededBytes } = (error as { details: { memoryNeededBytes: number } }).details;
  expect(memoryNeededBytes).toBeGreaterThan(4 * MiB);
  expect(await read(memoryNeededBytes)).toMatchObject({ from: 0, to: 64 });
});

test("shards stay open as long as their indexes fit, the one that was read last however large its index is", async () => {
  await using data = await makeVersion({ splits: { "": floatBatches(800, 16, 1024) }, shardBytes: 1024 });
  const open = new Set<object>();
  const stores = data.version.stores.map((store) => ({
    ...store,
    open: async (digest: Parameters<typeof store.open>[0]) => {
      const handle = await store.open(digest);
      open.add(handle);
      return { ...handle, close: () => (open.delete(handle), handle.close()) };
    },
  }));
  const entries = await data.version.page(0);
  const [first] = entries;
  if (!first) throw new Error("no shard");
  await using reader = await openShard({ entry: first, where, stores: data.version.stores });
  const one = indexBytes(reader.index);
  for (const [indexBytesMax, expected] of [
    [5 * one, 5],
    [one / 2, 1],
  ] as const) {
    const reads = createInlineReads({ where, stores, hashing: "blake3", indexBytesMax });
    const target = new Uint8Array(64);
    for (const entry of [...entries, ...entries]) {
      await reads.read(entry, 0, [{ from: 0, to: 8, at: 0 }], target);
      expect(open.size).toBeLessThanOrEqual(expected);
    }
    expect(open.size).toBe(expected);
    await reads.close();
    expect(open.size).toBe(0);
  }
});

test("metadata is looked at a few batches at a time, as many as there is memory for", async () => {
  await using data = await makeVersion({ splits: { "": floatBatches(80 * 640, 64, 160 * 1024) }, shardBytes: 1 << 30 });
  const { signal } = new AbortController();
  const layout = await loadLayout(data.version, data.version.splits[0]?.name ?? "", 64 * MiB, signal);
  const inline = createInlineReads({ where, stores: data.version.stores, hashing: "blake3", signal });
  let running = 0;
  let runningMax = 0;
  const reads: ShardReads = {
    ...inline,
    async read(...call) {
      runningMax = Math.max(runningMax, ++running);
      await inline.read(...call).finally(() => running--);
    },
  };
  const schema = schemaFromCanonical(data.version.schema);
  const reader = createTileReader({
    ...{ reads, schema, wanted: new Set([0]), tileBytes: 64 * 1024, blockRows: 0 },
    ...{ memory: privateSideMemory, keptBytesMax: MiB },
  });
  const rows = Float64Array.from({ length: 80 }, (_, i) => i * 640);
  const located = await createLocator(layout, reader).locate(rows, signal);
  expect(located.tiles.length).toBe(80);
  expect(runningMax).toBeGreaterThan(1);
  expect(runningMax).toBeLessThanOrEqual(LOADS_MAX);
  await inline.close();
});

test("what was made recently goes when it takes more than it may, the longest unused first; the last one stays", async () => {
  const made: number[] = [];
  const recent = createRecent<string, { bytes: number }>(100, ({ bytes }) => bytes);
  const get = (key: string, bytes: number) =>
    recent.get(key, async () => {
      made.push(bytes);
      return { bytes };
    });
  const a = await get("a", 40);
  await get("b", 40);
  await get("a", 0); // used again
  await get("c", 40);
  expect(recent.bytes).toBe(80);
  await get("a", 0);
  await get("b", 41);
  expect(made).toEqual([40, 40, 40, 41]);
  expect(recent.bytes).toBe(81);
  a.bytes = 90;
  recent.resized("a");
  expect(recent.bytes).toBe(90);
  await get("d", 1000);
  expect(recent.bytes).toBe(1000);
  await expect(recent.get("e", () => Promise.reject(new Error("no")))).rejects.toThrow("no");
  expect(await recent.get("e", async () => ({ bytes: 1 }))).toEqual({ bytes: 1 });
  recent.clear();
  expect(recent.bytes).toBe(0);
});
