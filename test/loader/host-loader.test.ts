import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseDigest } from "../../src/model/bytes.ts";
import { isShardpactError } from "../../src/model/errors.ts";
import { createHostLoader, type HostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import type { HostBatch } from "../../src/loader/feed.ts";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import { slowOrder, slowSlice } from "./support/slow-order.ts";
import { makeVersion, numberedBatches, type TestVersion } from "./support/version.ts";

const ROWS = 1003;
let data: TestVersion;

beforeAll(async () => {
  data = await makeVersion({
    splits: { train: numberedBatches(ROWS, 37), val: numberedBatches(90, 37, ROWS) },
    shardBytes: 4000,
    pageShards: 3,
  });
});
afterAll(() => data.close());

const base = { xs: "x", ys: "y", split: "train", seed: 7 } as const;
const WINDOW = { strength: "window", windowBytes: 1, lanes: 4 } as const;

function make(o: Partial<LoaderOptions> & { batchSize: number }): HostLoader {
  return createHostLoader(data.version, { ...base, ...o });
}

/** The rows of a batch, read back from its values. */
function rowsOf(batch: HostBatch): number[] {
  const x = batch.columns.xs["x"];
  if (!x) throw new Error("no column x");
  return Array.from({ length: x.shape[0] ?? 0 }, (_, i) => x.data[i * 3] as number);
}

async function epochOf(loader: HostLoader): Promise<HostBatch[]> {
  const batches: HostBatch[] = [];
  const iterator = loader.iterate();
  for (let batch = await iterator.next(); batch; batch = await iterator.next()) batches.push(batch);
  return batches;
}

function reference(loader: HostLoader, epoch: number): number[] {
  const { root, selection, rows, order } = loader.plan;
  return slowOrder({ root: parseDigest(root), selection: parseDigest(selection), rows, order }, epoch);
}

describe("an epoch", () => {
  const shuffles = [false, "block", WINDOW, "full"] as const;
  test.each(shuffles)("has every row once, in the slow reference's order (%o)", async (shuffle) => {
    await using loader = make({ batchSize: 64, shuffle });
    for (const epoch of [0, 1]) {
      const expected = reference(loader, epoch);
      const batches = await epochOf(loader);
      expect(batches.length).toBe(loader.plan.steps);
      batches.forEach((batch) => {
        const step = { from: batch.from, to: batch.to };
        expect(rowsOf(batch)).toEqual(slowSlice(expected, loader.plan.order.K, step, 0, 1).rows);
      });
      expect(batches.flatMap(rowsOf).sort((a, b) => a - b)).toEqual(Array.from({ length: ROWS }, (_, i) => i));
    }
    expect(loader.state()).toMatchObject({ epoch: 2, offset: 0 });
  });

  test("delivers all columns of a row together", async () => {
    await using loader = make({ batchSize: 50, shuffle: WINDOW, ys: { y: { oneHot: 5 }, even: {} } });
    for (const { columns } of await epochOf(loader)) {
      const x = columns.xs["x"]?.data ?? [];
      const y = columns.ys["y"];
      const even = columns.ys["even"];
      expect(y?.shape).toEqual([x.length / 3, 5]);
      for (let i = 0; i < x.length / 3; i++) {
        const row = x[i * 3] as number;
        expect([x[i * 3 + 1], x[i * 3 + 2]]).toEqual([row + 0.5, -row]);
        expect(Array.from(y?.data.subarray(i * 5, i * 5 + 5) ?? [])).toEqual(
          [0, 1, 2, 3, 4].map((c) => (c === row % 5 ? 1 : 0)),
        );
        expect(even?.data[i]).toBe(row % 2 === 0 ? 1 : 0);
      }
    }
  });

  test.each([2, 3, 8])("%i ranks share each step as the reference says; dropped rows are counted", async (world) => {
    const last = world === 3 ? "pad" : "drop";
    const expected = reference(make({ batchSize: 10, shuffle: WINDOW }), 0);
    for (let rank = 0; rank < world; rank++) {
      await using loader = make({ batchSize: 10, shuffle: WINDOW, rank, world, last });
      const batches = await epochOf(loader);
      expect(batches.length).toBe(last === "pad" ? Math.ceil(ROWS / 30) : Math.floor(ROWS / (10 * world)));
      for (const batch of batches) {
        const step = { from: batch.from, to: batch.from + 10 * world };
        const slow = slowSlice(expected, 4, step, rank, world);
        expect(rowsOf(batch)).toEqual(slow.rows);
        expect(Array.from(batch.columns.mask?.data ?? slow.mask)).toEqual(slow.mask);
      }
      const [span] = loader.receipt().spans;
      expect(span).toMatchObject({
        epoch: 0,
        from: 0,
        W: world,
        B: 10,
        dropped: last === "drop" ? ROWS % (10 * world) : 0,
      });
      expect(span?.padded).toBe(last === "pad" ? 30 - (ROWS % 30) : 0);
    }
  });

  test("of an empty selection ends at once", async () => {
    await using loader = make({ batchSize: 2000, last: "drop" });
    expect(loader.plan.steps).toBe(0);
    expect(await loader.iterate().next()).toBeNull();
  });
});

describe("resuming", () => {
  test("at every step gives the same global order at another world size", async () => {
    await using first = make({ batchSize: 59, shuffle: WINDOW });
    const expected = reference(first, 0);
    const iterator = first.iterate();
    for (let batch = await iterator.next(); batch; batch = await iterator.next()) {
      first.ack();
      const resume = first.state();
      if (resume.epoch > 0) break;
      const seen = expected.slice(0, resume.offset);
      for (const [rank, world] of [
        [0, 2],
        [1, 2],
      ] as const) {
        await using rest = make({ batchSize: 23, shuffle: WINDOW, rank, world, last: "pad", resume });
        const next = await rest.iterate().next();
        expect(next?.from).toBe(resume.offset);
        const step = { from: resume.offset, to: resume.offset + 46 };
        expect(rowsOf(next as HostBatch)).toEqual(slowSlice(expected, 4, step, rank, world).rows);
      }
      expect(seen.length).toBe(resume.offset);
    }
  });

  test("repeats nothing and skips nothing, whatever the batch sizes", async () => {
    let resume: LoaderOptions["resume"];
    const rows: number[] = [];
    for (const batchSize of [13, 40, 7, 101, 400, 1000]) {
      await using loader = make({ batchSize, shuffle: WINDOW, ...(resume ? { resume } : {}) });
      const iterator = loader.iterate();
      for (let i = 0; i < 2 && loader.state().epoch === 0; i++) {
        const batch = await iterator.next();
        if (batch) rows.push(...rowsOf(batch));
        loader.ack();
      }
      resume = loader.state();
    }
    expect(resume?.epoch).toBe(1);
    expect(rows.sort((a, b) => a - b)).toEqual(Array.from({ length: ROWS }, (_, i) => i));
  });

  test("refuses another root, split, seed or shuffle, naming the field", async () => {
    await using loader = make({ batchSize: 10, shuffle: WINDOW });
    const state = loader.state();
    const cases = [
      [{ resume: { ...state, root: `b3:${"0".repeat(64)}` as const } }, "root"],
      [{ resume: state, split: "val" }, "selection"],
      [{ resume: state, seed: 8 }, "order.seed"],
      [{ resume: state, shuffle: "full" }, "order.strength"],
      [{ resume: { ...state, offset: ROWS + 1 } }, "offset"],
      [{ resume: { ...state, v: 2 } as never }, "v"],
    ] as const;
    for (const [o, field] of cases) {
      let caught: unknown;
      try {
        make({ batchSize: 10, shuffle: WINDOW, ...o });
      } catch (error) {
        caught = error;
      }
      expect(isShardpactError(caught, "resume_mismatch") && caught.details["field"]).toBe(field);
    }
  });

  test("names its parent; a state is small", async () => {
    await using loader = make({ batchSize: 10, shuffle: WINDOW });
    await loader.iterate().next();
    loader.ack();
    const state = loader.state();
    expect(JSON.stringify(state).length).toBeLessThan(700);
    await using next = make({ batchSize: 10, shuffle: WINDOW, resume: state });
    expect(next.state().parent).toMatch(/^b3:/);
    expect(next.state().attempt).not.toBe(state.attempt);
  });
});

describe("iterators", () => {
  test("a new one goes on at the acknowledged cursor, and the old one is refused", async () => {
    await using loader = make({ batchSize: 10 });
    const a = loader.iterate();
    expect((await a.next())?.from).toBe(0);
    expect((await a.next())?.from).toBe(10); // acknowledges the first
    const b = loader.iterate();
    expect((await b.next())?.from).toBe(10); // the second was not acknowledged
    await expect(a.next()).rejects.toMatchObject({ code: "loader_busy" });
    expect((await b.next())?.from).toBe(20);
  });

  test("two at the same moment are refused", async () => {
    await using loader = make({ batchSize: 10 });
    const [one, two] = [loader.iterate(), loader.iterate()];
    const results = await Promise.allSettled([one.next(), two.next()]);
    expect(results.map((r) => r.status)).toEqual(["fulfilled", "rejected"]);
  });

  test("batches that are there leave the event loop alone, but for a turn once a second", async () => {
    await using large = await makeVersion({ splits: { train: numberedBatches(5000, 2500) }, shardBytes: 1e6 });
    for (const [stepMs, turns] of [
      [0, 0],
      [600, 10],
    ] as const) {
      let nowMs = 0;
      const ports = { ...DEFAULT_PORTS, nowMs: () => (nowMs += stepMs), reads: "inline" } as const;
      await using loader = createHostLoader(large.version, { ...base, batchSize: 50, shuffle: "window" }, ports);
      const iterator = loader.iterate();
      for (let i = 0; i < 50; i++) await iterator.next();
      await sleep(100); // what is ahead has been planned and read
      let turned = 0;
      for (let i = 0; i < 20; i++) {
        const turn = setImmediate(() => turned++);
        expect(await iterator.next()).not.toBeNull();
        clearImmediate(turn);
      }
      expect(turned).toBeGreaterThanOrEqual(turns);
      if (turns === 0) expect(turned).toBe(0);
    }
  });

  test("a late ack of an abandoned batch changes nothing", async () => {
    await using loader = make({ batchSize: 10 });
    const late = (await loader.iterate().next()) as HostBatch;
    await loader.iterate().next();
    loader.ack(late);
    expect(loader.state().offset).toBe(0);
  });

  test("close is idempotent and ends a waiting iterator", async () => {
    const loader = make({ batchSize: 10 });
    const iterator = loader.iterate();
    await iterator.next();
    await Promise.all([loader.close(), loader.close()]);
    await loader.close();
    await expect(iterator.next()).rejects.toMatchObject({ code: "closed" });
  });

  test("after an abort no batch comes that was ready, and what was trained counts", async () => {
    const controller = new AbortController();
    await using loader = make({ batchSize: 16, signal: controller.signal });
    const iterator = loader.iterate();
    for (let i = 0; i < 5; i++) await iterator.next();
    await sleep(50); // more are assembled meanwhile
    controller.abort();
    await expect(iterator.next()).rejects.toMatchObject({ code: "aborted" });
    expect(loader.state().offset).toBe(80);
  });

  test("an epoch without a step is told of: nothing would be trained on", async () => {
    const warnings: string[] = [];
    const ports = { ...DEFAULT_PORTS, warn: (message: string) => warnings.push(message) };
    const options = { ...base, batchSize: ROWS, world: 2, rank: 0 } as const;
    await using loader = createHostLoader(data.version, options, ports);
    expect(await epochOf(loader)).toEqual([]);
    expect(warnings).toEqual([expect.stringMatching(/no step: 'train' has 1003 rows.* 2006/)]);
  });

  test("an abort ends it with a typed error", async () => {
    const controller = new AbortController();
    await using loader = make({ batchSize: 10, signal: controller.signal });
    const iterator = loader.iterate();
    await iterator.next();
    controller.abort();
    const drain = async () => {
      while (await iterator.next());
    };
    await expect(drain()).rejects.toMatchObject({ code: "aborted" });
  });
});

describe("receipts", () => {
  test("merge epochs, and their order digest does not depend on W, B or restarts", async () => {
    await using one = make({ batchSize: 17, shuffle: WINDOW });
    await using two = make({ batchSize: 59, shuffle: WINDOW });
    for (let i = 0; i < 3; i++) for (const loader of [one, two]) await epochOf(loader);
    expect(one.receipt().spans).toMatchObject([{ epoch: 0, epochs: 3, from: 0, to: ROWS }]);
    expect(one.receipt().orderDigest).toBe(two.receipt().orderDigest);
    expect(one.receipt().bytesDigest).toBeNull();
    expect(JSON.stringify(one.receipt()).length).toBeLessThan(2048);
  });

  test("the bytes digest repeats for equal runs and tells other columns apart", async () => {
    const digestOf = async (o: Partial<LoaderOptions>) => {
      await using loader = make({ batchSize: 100, shuffle: WINDOW, receipt: "bytes", ...o });
      await epochOf(loader);
      return loader.receipt().bytesDigest;
    };
    const digest = await digestOf({});
    expect(await digestOf({})).toBe(digest);
    expect(await digestOf({ map: (c) => ({ ...c, xs: {}, ys: c.ys }) })).toBe(digest); // before map
    expect(await digestOf({ ys: "even" })).not.toBe(digest);
    expect(await digestOf({ seed: 8 })).not.toBe(digest);
  });
});

describe("map", () => {
  test("draws the same numbers for a row at every world size", async () => {
    const drawn = async (rank: number, world: number, batchSize: number) => {
      const seen = new Map<number, number>();
      await using loader = make({
        batchSize,
        rank,
        world,
        last: "pad",
        shuffle: WINDOW,
        map: (columns, { rng, ids }) => {
          ids.forEach((id, i) => seen.set(id, rng(i).uniform()));
          return columns;
        },
      });
      await epochOf(loader);
      return seen;
    };
    const alone = await drawn(0, 1, 64);
    expect(alone.size).toBe(ROWS);
    expect(new Set(alone.values()).size).toBeGreaterThan(ROWS - 3);
    for (const [id, value] of await drawn(1, 2, 30)) expect(alone.get(id)).toBe(value);
  });

  test("is refused when it breaks shapes", async () => {
    await using loader = make({
      batchSize: 10,
      map: (c) => ({ ...c, ys: { y: { data: new Float32Array(3), shape: [3], dtype: "float32" } } }),
    });
    await expect(loader.iterate().next()).rejects.toMatchObject({ code: "shape_differs" });
  });
});
