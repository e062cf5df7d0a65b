import { setTimeout as sleep } from "node:timers/promises";
import { makeData, makeVector, Int32 } from "apache-arrow";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createBlockCache } from "../../src/loader/fetch/block-cache.ts";
import { createBoundedQueue } from "../../src/loader/fetch/bounded-queue.ts";
import type { Tile } from "../../src/loader/fetch/layout.ts";
import { BLOCK_BYTES } from "../../src/loader/fetch/shard-memory.ts";
import { createHostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import { planLoader } from "../../src/loader/plan.ts";
import { parseDigest } from "../../src/model/bytes.ts";
import { slowOrder } from "./support/slow-order.ts";
import { batchOf, listsOf, makeVersion, type TestVersion } from "./support/version.ts";

const WIDTH = 4096; // 16 KiB a row: 64 rows a block
const ROWS = 1500; // 24 blocks
let data: TestVersion;

beforeAll(async () => {
  const batches = Array.from({ length: 50 }, (_, b) => {
    const ids = Int32Array.from({ length: 30 }, (_, i) => b * 30 + i);
    const id = makeVector(makeData({ type: new Int32(), data: ids }));
    return batchOf({ id, x: listsOf(new Float32Array(30 * WIDTH).fill(1), WIDTH) });
  });
  data = await makeVersion({ splits: { "": batches }, shardBytes: 4 << 20 });
});
afterAll(() => data.close());

const MiB = 1024 * 1024;
const make = (o: Partial<LoaderOptions>) =>
  createHostLoader(data.version, { xs: ["id", "x"], batchSize: 50, seed: 3, ...o });

async function idsOf(o: Partial<LoaderOptions>): Promise<number[]> {
  await using loader = make(o);
  const ids: number[] = [];
  const iterator = loader.iterate();
  for (let batch = await iterator.next(); batch; batch = await iterator.next())
    ids.push(...(batch.columns.xs["id"]?.data ?? []));
  return ids;
}

describe("a window of several blocks", () => {
  const shuffle = { strength: "window", windowBytes: 4 * MiB, lanes: 2 } as const;
  test("keeps its order and its blocks within the budget, down to the least memory that is allowed", async () => {
    const { plan } = make({ shuffle });
    expect(plan).toMatchObject({ order: { n: 63, K: 2, g: 2 }, blocksOpen: 6 });
    const { root, selection, rows, order } = plan;
    const input = { root: parseDigest(root), selection: parseDigest(selection), rows, order };
    const sorted = (ids: number[]) => ids.toSorted((a, b) => a - b);
    const all = Array.from({ length: ROWS }, (_, i) => i);
    const ids = await idsOf({ shuffle, batchSize: 2 });
    expect(sorted(ids)).toEqual(all);
    expect(ids).toEqual(slowOrder(input, 0).map((_, p, rowsOf) => rowsOf[p]));
    expect(await idsOf({ shuffle, batchSize: 2, memory: plan.memoryNeededBytes })).toEqual(ids);
  });

  test("refuses less, naming both figures", () => {
    const { plan } = make({ shuffle });
    const memory = plan.memoryNeededBytes - 1;
    expect(() => make({ shuffle, memory })).toThrow(
      expect.objectContaining({
        code: "budget_too_small",
        details: { memoryNeededBytes: plan.memoryNeededBytes, memoryMaxBytes: memory, blocksOpen: 6 },
      }),
    );
  });
});

describe("full", () => {
  test("beyond memory is too costly unless random reads are allowed", async () => {
    expect(() => make({ shuffle: "full", memory: 4 * MiB })).toThrow(
      expect.objectContaining({ code: "full_shuffle_too_costly" }),
    );
    const few = await idsOf({ shuffle: "full", memory: 4 * MiB, allowRandomReads: true, batchSize: 3 });
    expect(few).toEqual(await idsOf({ shuffle: "full", batchSize: 100 }));
  });

  test("a batch that no memory can hold is refused while reading", async () => {
    const ids = idsOf({ shuffle: "full", memory: 2 * MiB, allowRandomReads: true, batchSize: 100 });
    await expect(ids).rejects.toMatchObject({ code: "budget_too_small", details: { memoryMaxBytes: 2 * MiB } });
  });
});

test("iterators that are abandoned anywhere give their memory back", async () => {
  const shuffle = { strength: "window", windowBytes: 4 * MiB, lanes: 2 } as const;
  const { memoryNeededBytes } = make({ shuffle }).plan;
  await using loader = make({ shuffle, batchSize: 2, memory: memoryNeededBytes + MiB });
  for (let steps = 1; steps < 60; steps += 7) {
    const iterator = loader.iterate();
    for (let i = 0; i < steps; i++) await iterator.next();
    if (steps % 2 === 0) await iterator.return();
  }
  const ids: number[] = [];
  const { offset } = loader.state();
  const iterator = loader.iterate();
  for (let batch = await iterator.next(); batch; batch = await iterator.next())
    ids.push(...(batch.columns.xs["id"]?.data ?? []));
  expect(ids.length).toBe(ROWS - offset);
  expect(new Set(ids).size).toBe(ids.length);
});

test("iterators that are abandoned while the next batch waits for room give back what it has pinned", async () => {
  const shuffle = { strength: "window", windowBytes: 8 * MiB, lanes: 4 } as const;
  const { memoryNeededBytes } = make({ shuffle, batchSize: 12 }).plan;
  await using loader = make({ shuffle, batchSize: 12, memory: memoryNeededBytes });
  const ids: number[] = [];
  for (let round = 0; loader.state().epoch === 0; round++) {
    const iterator = loader.iterate();
    const batch = await iterator.next();
    ids.push(...(batch?.columns.xs["id"]?.data ?? []));
    loader.ack(batch ?? undefined);
    await sleep(round % 4); // it plans ahead as far as memory goes
    await iterator.return();
  }
  expect(ids.toSorted((a, b) => a - b)).toEqual(Array.from({ length: ROWS }, (_, i) => i));
});

test("batches that fail give back the memory of those that are planned behind them", async () => {
  const shuffle = { strength: "window", windowBytes: 4 * MiB, lanes: 2 } as const;
  const { memoryNeededBytes } = make({ shuffle }).plan;
  let calls = 0;
  const map: LoaderOptions["map"] = (columns) => {
    if (++calls % 5 === 0) throw new Error("a map that fails now and then");
    return columns;
  };
  await using loader = make({ shuffle, batchSize: 2, memory: memoryNeededBytes, map });
  const ids: number[] = [];
  let failures = 0;
  while (loader.state().epoch === 0) {
    const iterator = loader.iterate();
    try {
      for (let batch = await iterator.next(); batch; batch = await iterator.next()) {
        ids.push(...(batch.columns.xs["id"]?.data ?? []));
        loader.ack(batch);
      }
    } catch (error) {
      expect(error).toMatchObject({ code: "invalid_argument" });
      failures++;
    }
  }
  expect(failures).toBeGreaterThan(50);
  expect(ids.toSorted((a, b) => a - b)).toEqual(Array.from({ length: ROWS }, (_, i) => i));
});

describe("the plan", () => {
  test("is pure and says what a run costs", () => {
    const plan = planLoader(data.version, { batchSize: 32, seed: 1, world: 4, rank: 2, shuffle: "block" });
    expect(plan).toMatchObject({ rows: ROWS, stepRows: 128, steps: 11, dropped: ROWS % 128, padded: 0, last: "drop" });
    expect(plan.notes.join()).toMatch(/reads nearly everything/);
    expect(planLoader(data.version, { batchSize: 32, seed: 1, world: 4, last: "pad" })).toMatchObject({
      steps: 12,
      padded: 36,
    });
  });

  test.each([
    [{ batchSize: 0 }, /batchSize/],
    [{ batchSize: 1.5 }, /batchSize/],
    [{ batchSize: 1, rank: 2, world: 2 }, /rank/],
    [{ batchSize: 1, world: 2, last: "partial" as const }, /partial/],
    [{ batchSize: 1, memory: -1 }, /memory/],
    [{ batchSize: 1, split: "nope" }, /no split 'nope'/],
    [{ batchSize: 1, shuffle: "much" as never }, /strength/],
  ])("refuses %o", (o, message) => {
    expect(() => planLoader(data.version, { seed: 1, ...o })).toThrow(message);
  });
});

describe("the block cache", () => {
  const segment = (bytes: number) => ({ bytes }) as Tile;

  test("holds no more than its bound, keeps the youngest, and gives everything back", async () => {
    const read: number[] = [];
    const cache = createBlockCache({
      bytesMax: 4096 * 3,
      bytesKept: (4096 + BLOCK_BYTES) * 2,
      blocksKept: 0,
      read: async ({ bytes }) => {
        read.push(bytes);
        return [];
      },
    });
    const [a, b, c, d] = [segment(4000), segment(3999), segment(3998), segment(3997)];
    const pins = [a, b, c].map((s) => cache.tryPin(s, true));
    for (const pin of pins) await pin?.ready;
    expect(cache.tryPin(d, true)).toBeNull();
    cache.unpin(pins.flatMap((p) => p ?? []));
    const again = cache.tryPin(c, true);
    const fresh = cache.tryPin(d, false);
    expect([again !== null, fresh !== null]).toEqual([true, true]);
    await fresh?.ready;
    expect(read).toEqual([4000, 3999, 3998, 3997]);
    expect(cache.bytesHeld).toBeLessThanOrEqual(4096 * 2);
    if (again) cache.unpin([again]);
    if (fresh) cache.unpin([fresh]);
    cache.clear();
    expect(cache.bytesHeld).toBe(0);
    await cache.close();
  });

  test("giving up a pin wakes who waits, also when the block stays pinned: the next batch may be in front now", async () => {
    const cache = createBlockCache({ bytesMax: 8192, bytesKept: 4096, blocksKept: 0, read: async () => [] });
    const [a, b] = [segment(4000), segment(4000)];
    const [before, after] = [cache.tryPin(a, true), cache.tryPin(a, false)];
    expect(cache.tryPin(b, false)).toBeNull();
    const woken = cache.changed();
    await before?.ready;
    const again = cache.changed();
    if (before) cache.unpin([before]);
    await Promise.all([woken, again]);
    const front = cache.tryPin(b, true);
    expect(front).not.toBeNull();
    for (const pin of [after, front]) if (pin) cache.unpin([pin]);
    await cache.close();
  });

  test("a read that failed is tried again by the next pin", async () => {
    let fails = true;
    const cache = createBlockCache({
      bytesMax: 10_000,
      bytesKept: 10_000,
      blocksKept: 0,
      read: async () => {
        if (fails) throw new Error("disk");
        return [];
      },
    });
    const s = segment(100);
    const first = cache.tryPin(s, true);
    await expect(first?.ready).rejects.toThrow("disk");
    if (first) cache.unpin([first]);
    fails = false;
    const second = cache.tryPin(s, true);
    await second?.ready;
    expect(second?.isReady).toBe(true);
    await cache.close();
  });
});

describe("the bounded queue", () => {
  test("holds back the producer, hands over in order, ends, fails and closes", async () => {
    const queue = createBoundedQueue<number>(2);
    const pushed: number[] = [];
    const producer = (async () => {
      for (let i = 0; i < 5 && (await queue.push(i)); i++) pushed.push(i);
      queue.end();
    })();
    await new Promise((done) => setTimeout(done, 5));
    expect(pushed).toEqual([0]);
    const got: (number | null)[] = [];
    for (let i = 0; i < 6; i++) got.push(await queue.shift());
    await producer;
    expect(got).toEqual([0, 1, 2, 3, 4, null]);

    const failing = createBoundedQueue<number>(2);
    void failing.push(1);
    const pending = failing.push(2);
    failing.fail(new Error("no"));
    expect([failing.shift(), failing.shift(), await pending]).toEqual([1, 2, false]);
    expect(() => failing.shift()).toThrow("no");
    const starved = createBoundedQueue<number>(2);
    const starving = starved.shift();
    starved.fail(new Error("none"));
    await expect(starving).rejects.toThrow("none");

    const closing = createBoundedQueue<number>(1);
    const waiting = closing.push(7);
    const dropped: number[] = [];
    closing.close((item) => dropped.push(item));
    expect([await waiting, dropped, await closing.shift()]).toEqual([false, [7], null]);
    expect([await closing.push(8), dropped]).toEqual([false, [7, 8]]);
  });

  test("a producer that had to wait goes on when there is room for a burst; nobody gets a promise without need", async () => {
    const queue = createBoundedQueue<number>(4, 3);
    expect([queue.push(0), queue.push(1), queue.push(2)]).toEqual([true, true, true]);
    let goesOn = false;
    const waiting = Promise.resolve(queue.push(3)).then((open) => (goesOn = open));
    for (const item of [0, 1]) {
      expect(queue.shift()).toBe(item);
      await new Promise((done) => setTimeout(done, 1));
      expect(goesOn).toBe(false);
    }
    expect(queue.shift()).toBe(2);
    expect(await waiting).toBe(true);
    expect(queue.shift()).toBe(3);
    const next = queue.shift();
    expect(next).toBeInstanceOf(Promise);
    expect(queue.push(4)).toBe(true);
    expect(await next).toBe(4);
  });
});
