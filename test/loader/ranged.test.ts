/**
 * Shards that are one giant batch, and columns that are a small part of them: what is read, kept and delivered.
 */
import fc from "fast-check";
import { Int32, makeData, makeVector, Utf8, vectorFromArray, type Vector } from "apache-arrow";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ConfirmedVersion } from "../../src/client/types.ts";
import type { LoaderState } from "../../src/loader/cursor.ts";
import type { HostBatch } from "../../src/loader/feed.ts";
import { createHostLoader, type HostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import { parseDigest } from "../../src/model/bytes.ts";
import type { ShardStore } from "../../src/shards/port.ts";
import { slowOrder, slowSlice } from "./support/slow-order.ts";
import { batchOf, listsOf, makeVersion, type TestVersion } from "./support/version.ts";

const WIDTH = 4096; // 16 KiB a row
const ROWS = 1500;
const MiB = 1024 * 1024;
const WINDOW = { strength: "window", windowBytes: 4 * MiB, lanes: 2 } as const;

/** Rows from `first` on: `id`, `x` of 16 KiB that begins with the id, `name` of varying length. */
function rowsFrom(first: number, count: number) {
  const ids = Int32Array.from({ length: count }, (_, i) => first + i);
  const x = new Float32Array(count * WIDTH);
  ids.forEach((id, i) => x.fill(id, i * WIDTH, (i + 1) * WIDTH));
  const names = Array.from(ids, (id) => ["ant", "bee", "caterpillar"][id % 3] as string);
  const name: Vector = vectorFromArray(names, new Utf8());
  return batchOf({ name, x: listsOf(x, WIDTH), id: makeVector(makeData({ type: new Int32(), data: ids })) });
}

/** The version, its bytes counted on their way out of the store. */
function counted({ version }: TestVersion): { version: ConfirmedVersion; read: { bytes: number } } {
  const read = { bytes: 0 };
  const stores = version.stores.map((store): ShardStore => {
    const open: ShardStore["open"] = async (digest, signal) => {
      const handle = await store.open(digest, signal);
      return {
        ...handle,
        readInto: async (target, position) => {
          const got = await handle.readInto(target, position);
          read.bytes += got;
          return got;
        },
      };
    };
    const { spec: _, ...rest } = store;
    return { ...rest, open };
  });
  return { version: { ...version, stores }, read };
}

async function* batchesOf(loader: HostLoader): AsyncGenerator<HostBatch> {
  const iterator = loader.iterate();
  for (let batch = await iterator.next(); batch; batch = await iterator.next()) yield batch;
}

async function idsOf(loader: HostLoader): Promise<number[]> {
  const ids: number[] = [];
  for await (const { columns } of batchesOf(loader)) {
    const id = columns.xs["id"]?.data ?? [];
    const x = columns.xs["x"]?.data;
    for (let i = 0; x && i < id.length; i++) expect([x[i * WIDTH], x[(i + 1) * WIDTH - 1]]).toEqual([id[i], id[i]]);
    ids.push(...id);
  }
  return ids;
}

const LAYOUTS: readonly (readonly [string, number, number])[] = [
  ["one giant batch", ROWS, 64 * MiB],
  ["one row a batch, some rows a shard", 1, 2 * MiB],
  ["batches of uneven size", 217, 8 * MiB],
];

describe.each(LAYOUTS)("a dataset of %s", (_name, batchRows, shardBytes) => {
  let data: TestVersion;
  beforeAll(async () => {
    const batches = Array.from({ length: Math.ceil(ROWS / batchRows) }, (_, b) =>
      rowsFrom(b * batchRows, Math.min(batchRows, ROWS - b * batchRows)),
    );
    data = await makeVersion({ splits: { "": batches }, shardBytes, classes: ["name"] });
  });
  afterAll(() => data.close());
  const make = (o: Partial<LoaderOptions>, version = data.version) =>
    createHostLoader(version, { xs: ["id", "x"], batchSize: 50, seed: 3, ...o });

  test("gives every row once, in order, in the least memory that its plan allows", async () => {
    for (const shuffle of [false, WINDOW] as const) {
      const { plan } = make({ shuffle });
      const { root, selection, rows, order } = plan;
      const slow = slowOrder({ root: parseDigest(root), selection: parseDigest(selection), rows, order }, 0);
      await using loader = make({ shuffle, batchSize: 2, memory: Math.max(plan.memoryNeededBytes, 6 * MiB) });
      const ids: number[] = [];
      for await (const { columns, from, to } of batchesOf(loader)) {
        const got = [...(columns.xs["id"]?.data ?? [])];
        expect(got).toEqual(slowSlice(slow, order.K, { from, to }, 0, 1).rows);
        ids.push(...got);
      }
      expect(ids.length).toBe(ROWS);
    }
  });

  test("any rank of any world, at any batch size, from any cursor, gets what the slow reference says", async () => {
    const { plan } = make({ shuffle: WINDOW });
    const input = { ...plan, root: parseDigest(plan.root), selection: parseDigest(plan.selection) };
    const slow = [slowOrder(input, 0), slowOrder(input, 1)];
    const shape = fc.record({
      world: fc.integer({ min: 1, max: 9 }),
      batchSize: fc.integer({ min: 1, max: 70 }),
      epoch: fc.constantFrom(0, 1),
      offset: fc.nat(ROWS - 1),
      pick: fc.nat(),
    });
    const started = make({ shuffle: WINDOW, seed: 3 }).state();
    await fc.assert(
      fc.asyncProperty(shape, async ({ world, batchSize, epoch, offset, pick }) => {
        const rank = pick % world;
        const resume: LoaderState = { ...started, epoch, offset };
        const o = { xs: ["id", "x"], shuffle: WINDOW, seed: 3, world, rank, batchSize, last: "pad", resume } as const;
        await using loader = createHostLoader(data.version, o, { ...DEFAULT_PORTS, reads: "inline" });
        let at = offset;
        let steps = 0;
        for await (const batch of batchesOf(loader)) {
          if (batch.epoch !== epoch || ++steps > 3) break;
          const step = { from: at, to: at + world * batchSize };
          const { rows } = slowSlice(slow[epoch] as number[], plan.order.K, step, rank, world);
          expect([...(batch.columns.xs["id"]?.data ?? [])]).toEqual(rows);
          at = step.to;
        }
        expect(steps).toBeGreaterThan(0);
      }),
      { numRuns: 40 },
    );
  });

  test("reads little more than the columns that are wanted", async () => {
    const { version, read } = counted(data);
    await using loader = make({ xs: { id: {} }, ys: { name: { classes: "agreed" } } }, version);
    expect(await idsOf(loader)).toEqual(Array.from({ length: ROWS }, (_, i) => i));
    const smallest = batchRows === 1 ? 1 : 0.35; // rows of 16 KiB have no leaf to leave out
    expect(read.bytes).toBeLessThan(smallest * version.bytes + 2 * MiB);
  });
});

describe("a shard that is one giant batch", () => {
  let data: TestVersion;
  beforeAll(async () => {
    data = await makeVersion({ splits: { "": [rowsFrom(0, 4000)] }, shardBytes: 128 * MiB });
  });
  afterAll(() => data.close());

  test("delivers its first batch before a tenth of it was read", async () => {
    const { version, read } = counted(data);
    await using loader = createHostLoader(version, { xs: ["x", "id"], batchSize: 32, shuffle: false });
    const first = await loader.iterate().next();
    const readBytes = read.bytes;
    expect([...(first?.columns.xs["id"]?.data ?? [])]).toEqual(Array.from({ length: 32 }, (_, i) => i));
    expect(readBytes).toBeLessThan(0.1 * version.bytes);
  });

  test("is read about once, by one rank and by all ranks together, though its blocks and batches do not meet", async () => {
    const batches = Array.from({ length: 128 }, (_, b) => rowsFrom(b * 61, 61)); // 128 MB; blocks have 63 rows
    await using many = await makeVersion({ splits: { "": batches }, shardBytes: 64 * MiB });
    const shuffle = { strength: "window", windowBytes: 16 * MiB, lanes: 8 } as const;
    for (const [world, batchSize, times] of [
      [1, 64, 1.35],
      [3, 50, 1.6],
      [8, 16, 1.6],
    ] as const) {
      const { version, read } = counted(many);
      for (let rank = 0; rank < world; rank++) {
        const o = { xs: ["x", "id"], batchSize, seed: 1, shuffle, world, rank } as const;
        await using loader = createHostLoader(version, o, { ...DEFAULT_PORTS, reads: "inline" });
        for await (const { columns } of batchesOf(loader))
          expect(columns.xs["x"]?.shape[0]).toBeLessThanOrEqual(batchSize);
      }
      expect(read.bytes / version.bytes).toBeLessThan(times);
    }
  });

  test("random reads cost a few leaves a row", async () => {
    const { version, read } = counted(data);
    const o = {
      xs: ["x", "id"],
      batchSize: 8,
      seed: 1,
      shuffle: "full",
      memory: 8 * MiB,
      allowRandomReads: true,
    } as const;
    await using loader = createHostLoader(version, o);
    const iterator = loader.iterate();
    const rows = 8 * 8;
    for (let i = 0; i < 8; i++) await iterator.next();
    await iterator.return();
    const readAhead = 64 * 8; // rows whose reads may have begun
    expect(read.bytes).toBeLessThan((rows + readAhead) * 4 * 131_072);
  });
});
