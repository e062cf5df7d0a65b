/**
 * Pages of a layout come and go: whatever fits, every row is found where it lies, and no more pages stay than the bound says.
 */
import { Int32, makeData, makeVector } from "apache-arrow";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ConfirmedVersion } from "../../src/client/types.ts";
import { PAGE_BYTES_MIN, pageBytesOf } from "../../src/loader/fetch/budget.ts";
import { createInlineReads } from "../../src/loader/fetch/inline-reads.ts";
import { loadLayout } from "../../src/loader/fetch/layout.ts";
import { createLocator, type Located } from "../../src/loader/fetch/locate.ts";
import { BATCH_BYTES, SHARD_BYTES } from "../../src/loader/fetch/shard-memory.ts";
import { privateSideMemory } from "../../src/loader/fetch/side-memory.ts";
import { createTileReader } from "../../src/loader/fetch/tile-reader.ts";
import { planLoader } from "../../src/loader/plan.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { createRng } from "../../src/merkle/rng.ts";
import { schemaFromCanonical } from "../../src/shards/schema.ts";
import { batchOf, makeVersion, type TestVersion } from "./support/version.ts";

const SHARDS = 120;
const PAGE_SHARDS = 3;
const PAGES = SHARDS / PAGE_SHARDS;
const SHARD_ROWS = 5;
const ROWS = SHARDS * SHARD_ROWS;
/** Of pages whose shards are all open. */
const bytesOf = (pages: number): number => pages * PAGE_SHARDS * (SHARD_BYTES + BATCH_BYTES);

let made: TestVersion;
const ended = new AbortController();

/** Record batches whose rows say which they are. */
const numbered = (batches: number, rows: number) =>
  Array.from({ length: batches }, (_, i) => {
    const id = Int32Array.from({ length: rows }, (__, row) => i * rows + row);
    return batchOf({ id: makeVector(makeData({ type: new Int32(), data: id })) });
  });

beforeAll(async () => {
  const batches = numbered(SHARDS, SHARD_ROWS);
  made = await makeVersion({ splits: { "": batches }, shardBytes: 1, pageShards: PAGE_SHARDS });
});
afterAll(async () => {
  ended.abort();
  await made.close();
});

/** A layout whose pages are counted as they are fetched, and what reads through it. */
async function open(pageBytesMax: number, of = made) {
  const { signal } = ended;
  const fetched: number[] = [];
  const version: ConfirmedVersion = {
    ...of.version,
    page: async (position, until) => {
      fetched.push(position);
      await new Promise((done) => setImmediate(done));
      return of.version.page(position, until);
    },
  };
  const layout = await loadLayout(version, version.splits[0]?.name ?? "", pageBytesMax, signal);
  const where = { dataset: version.dataset, version: version.version };
  const reads = createInlineReads({ where, stores: version.stores, hashing: "blake3", signal });
  const schema = schemaFromCanonical(version.schema);
  const wanted = new Set([0]);
  const reader = createTileReader({
    reads,
    schema,
    wanted,
    tileBytes: 1 << 20,
    blockRows: 0,
    memory: privateSideMemory,
    keptBytesMax: 1 << 20,
  });
  return { layout, locator: createLocator(layout, reader), reader, fetched, reads };
}

type Opened = Awaited<ReturnType<typeof open>>;

/** What is read where the rows were found. */
async function idsAt({ reader }: Opened, { tiles, runs }: Located): Promise<number[]> {
  const columns = await Promise.all(
    tiles.map(async (tile) => (await reader.read(tile, new Uint8Array(tile.bytes))).getChildAt(0)),
  );
  const ids: number[] = [];
  for (let run = 0; run < runs.count; run++) {
    for (let k = 0; k < (runs.length[run] ?? 0); k++) {
      ids.push(columns[runs.source[run] ?? -1]?.get((runs.first[run] ?? 0) + k) as number);
    }
  }
  return ids;
}

const numbers = (rows: readonly number[]): Float64Array => Float64Array.from(rows);

test("the version has as many pages as this file thinks", async () => {
  expect(await made.version.manifest()).toHaveLength(PAGES);
  expect(made.version.rows).toBe(ROWS);
});

test("an epoch in file order fetches each page once and keeps as many as the bound says", async () => {
  const opened = await open(bytesOf(4));
  for (let row = 0; row < ROWS; row += 7) {
    const rows = Array.from({ length: Math.min(7, ROWS - row) }, (_, i) => row + i);
    expect(await idsAt(opened, await opened.locator.locate(numbers(rows), ended.signal))).toEqual(rows);
    expect(opened.layout.resident.bytes).toBeLessThanOrEqual(bytesOf(4));
    expect(opened.layout.resident.count).toBeLessThanOrEqual(6); // of which some have closed shards
  }
  expect(opened.fetched).toEqual(Array.from({ length: PAGES }, (_, i) => i));
  expect(opened.layout.resident.count).toBeGreaterThanOrEqual(4);
  await opened.reads.close();
});

test("with room for all of them pages are fetched once in any order", async () => {
  const opened = await open(bytesOf(PAGES));
  const random = createRng(new Uint8Array(32).fill(1));
  for (let step = 0; step < 40; step++) {
    const rows = Array.from({ length: 30 }, () => random.integer(ROWS));
    expect(await idsAt(opened, await opened.locator.locate(numbers(rows), ended.signal))).toEqual(rows);
  }
  expect(new Set(opened.fetched).size).toBe(opened.fetched.length);
  await opened.reads.close();
});

test.each([1, 2, 5])("rows on more pages than the %i that fit are found, batch after batch", async (pages) => {
  const opened = await open(bytesOf(pages));
  const random = createRng(new Uint8Array(32).fill(pages));
  for (let step = 0; step < 20; step++) {
    const rows = Array.from({ length: 90 }, () => random.integer(ROWS));
    const located = await opened.locator.locate(numbers(rows), ended.signal);
    expect(await idsAt(opened, located)).toEqual(rows);
    // One page stays, whatever it takes.
    expect(opened.layout.resident.count === 1 || opened.layout.resident.bytes <= bytesOf(pages)).toBe(true);
    expect(opened.layout.resident.count).toBeLessThanOrEqual(Math.ceil(1.5 * pages));
  }
  await opened.reads.close();
});

test.each([100, 3_000])(
  "most rows of record batches of %i rows are found where rows before them were",
  async (batchRows) => {
    const batches = 60;
    await using of = await makeVersion({ splits: { "": numbered(batches, batchRows) }, shardBytes: 1 << 30 });
    const { layout, reader, reads } = await open(PAGE_BYTES_MIN, of);
    let searched = 0;
    const tilesOf: typeof reader.tilesOf = (segment) => {
      searched++;
      return reader.tilesOf(segment);
    };
    const locator = createLocator(layout, { ...reader, tilesOf });
    const random = createRng(new Uint8Array(32).fill(7));
    for (let step = 0; step < 200; step++) {
      if (step === 100) searched = 0; // it knows by then how long they are
      const rows = Array.from({ length: 256 }, () => random.integer(batches * batchRows));
      await locator.locate(numbers(rows), ended.signal);
    }
    expect(searched).toBeLessThan((100 * 256) / 3);
    await reads.close();
  },
);

test("a page that two batches ask for at once is the same for both", async () => {
  const { layout, reads } = await open(bytesOf(PAGES));
  const page = layout.pageOf(17);
  const [a, b] = await Promise.all([layout.loadPage(page, ended.signal), layout.loadPage(page, ended.signal)]);
  expect(a).toBe(b);
  await reads.close();
});

test("windows get room for the pages that they lie on, also of a small budget", () => {
  const rows = 64_000_000;
  const shards = 1_000_000;
  const bytes = rows * 1_024;
  const version = {
    ...{
      dataset: "d",
      version: 1,
      root: `b3:${"0".repeat(64)}` as const,
      splitRule: { kind: "none" as const },
      pageRows: null,
    },
    splits: [{ name: "all", rows, bytes, shards }],
  };
  const pageBytes = LIMITS.pageShardsMax * (SHARD_BYTES + BATCH_BYTES);
  const plan = (world: number, memory: number, shuffle: "window" | "none") =>
    planLoader(version, { batchSize: 32, world, rank: 0, shuffle, seed: 1, memory });
  const lanes = plan(1, 2 ** 30, "window").order.K;
  expect(lanes).toBeGreaterThan(1);
  // Each lane's window may begin in the middle of a page.
  expect(pageBytesOf(plan(1, 3 * 2 ** 27, "window"), shards)).toBeGreaterThanOrEqual(2 * lanes * pageBytes);
  expect(pageBytesOf(plan(64, 3 * 2 ** 27, "window"), shards)).toBe(3 * 2 ** 24);
  expect(pageBytesOf(plan(1, 2 ** 30, "none"), shards)).toBe(2 ** 27);
  expect(pageBytesOf(plan(1, 2 ** 20 * 5, "none"), shards)).toBe(PAGE_BYTES_MIN);
});
