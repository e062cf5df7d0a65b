import { beforeAll, afterAll, describe, expect, test } from "vitest";
import { explainPlan, worldsToCompare } from "../../src/loader/explain.ts";
import { createEpochOrder } from "../../src/loader/order/order.ts";
import { readShare, shuffleQuality } from "../../src/loader/order/quality.ts";
import { resolveOrder } from "../../src/loader/order/spec.ts";
import { planLoader, type PlanOptions } from "../../src/loader/plan.ts";
import { slowOrder, slowSlice } from "./support/slow-order.ts";
import { makeVersion, numberedBatches, type TestVersion } from "./support/version.ts";

const root = new Uint8Array(32).fill(1);
const selection = new Uint8Array(32).fill(2);
/** Rows of about 1 KiB: 1023 in a block. */
const inputOf = (rows: number, shuffle: Parameters<typeof resolveOrder>[2]) => ({
  root,
  selection,
  rows,
  order: resolveOrder(rows, rows * 1025, shuffle, 7n),
});
const MiB = 1024 * 1024;

describe("the quality of a shuffle", () => {
  const rows = 200_000;

  test("is counted as its words say, on small epochs that a slow count can follow", () => {
    const input = inputOf(5000, { strength: "window", windowBytes: MiB, lanes: 4 });
    const [world, batch] = [2, 25];
    const found = shuffleQuality(input, world, batch);
    const orders = [slowOrder(input, 0), slowOrder(input, 1)] as const;
    const batchesOf = (order: number[]) =>
      Array.from({ length: 100 }, (_, step) =>
        [0, 1].map((rank) => slowSlice(order, 4, { from: step * 50, to: step * 50 + 50 }, rank, world).rows),
      ).flat();
    const [first, second] = [batchesOf(orders[0]), batchesOf(orders[1])];
    const blocks = first.map((b) => new Set(b.map((row) => Math.floor(row / input.order.n))).size);
    expect(found?.blocksPerBatch).toBeCloseTo(blocks.reduce((a, b) => a + b, 0) / first.length, 9);
    const next = first.flatMap((b) => b.filter((row, i) => i > 0 && row === (b[i - 1] as number) + 1)).length;
    expect(found?.neighboursKept).toBeCloseTo(next / 5000, 9);
    const home = new Map(second.flatMap((b, k) => b.map((row) => [row, k] as const)));
    let [pairs, kept] = [0, 0];
    for (const b of first)
      for (let i = 0; i < b.length; i++)
        for (let j = i + 1; j < b.length; j++) {
          pairs++;
          if (home.get(b[i] as number) === home.get(b[j] as number)) kept++;
        }
    expect(found?.pairsKept).toBeCloseTo(kept / pairs, 9);
    let [squares, expected] = [0, 0];
    for (let s = 0; s < 100; s++) {
      const step = [...(first[2 * s] as number[]), ...(first[2 * s + 1] as number[])];
      for (let c = 0; c < 10; c++) {
        squares += (step.filter((row) => Math.floor(row / 500) === c).length - 5) ** 2;
        expected += (50 * 0.1 * 0.9 * (5000 - 50)) / 4999;
      }
    }
    expect(found?.D).toBeCloseTo(squares / expected, 9);
  });

  test("tells strengths apart: none keeps everything together, full is chance, window lies near it", () => {
    const of = (shuffle: Parameters<typeof resolveOrder>[2]) => shuffleQuality(inputOf(rows, shuffle), 1, 256);
    const none = of("none");
    const full = of("full");
    const window = of({ strength: "window", windowBytes: 64 * MiB });
    expect(none?.D).toBeGreaterThan(200);
    expect(none?.neighboursKept).toBeGreaterThan(0.99);
    expect(none?.pairsKept).toBe(1);
    expect(full?.D).toBeGreaterThan(0.9);
    expect(full?.D).toBeLessThan(1.1);
    expect(window?.D).toBeLessThan(4);
    expect(window?.blocksPerBatch).toBeGreaterThan(50);
    expect(full?.pairsKept).toBeLessThan(3 * (full?.pairsByChance ?? 0));
  });

  test("is null without a whole step", () => {
    expect(shuffleQuality(inputOf(10, "full"), 1, 11)).toBeNull();
    expect(readShare(inputOf(10, "full"), 2, 6)).toBeNull();
  });
});

describe("what ranks read", () => {
  const input = inputOf(400_000, { strength: "window", windowBytes: 64 * MiB });

  test("is counted from every rank's rows", () => {
    const [world, batch] = [3, 100];
    const order = slowOrder(inputOf(30_000, { strength: "window", windowBytes: 4 * MiB, lanes: 4 }), 0);
    const small = inputOf(30_000, { strength: "window", windowBytes: 4 * MiB, lanes: 4 });
    const seen = Array.from({ length: world }, () => new Set<number>());
    for (let step = 0; step < 100; step++)
      for (let rank = 0; rank < world; rank++)
        for (const row of slowSlice(order, 4, { from: step * 300, to: step * 300 + 300 }, rank, world).rows)
          seen[rank]?.add(Math.floor(row / small.order.n));
    const all = new Set(seen.flatMap((s) => [...s])).size;
    const found = readShare(small, world, batch);
    expect(found?.amplification).toBeCloseTo(seen.reduce((sum, s) => sum + s.size, 0) / all, 9);
    expect(found?.rankShare).toBeCloseTo(Math.max(...seen.map((s) => s.size)) / all, 9);
  });

  test.each([1, 2, 3, 5, 7, 8])("up to 1.6 times with %i ranks", (world) => {
    for (const batch of [32, 100, 257]) {
      const found = readShare(input, world, batch);
      expect(found?.amplification).toBeLessThanOrEqual(1.6);
      expect(found?.amplification).toBeGreaterThanOrEqual(1);
    }
  });

  test.each([16, 24, 48, 64])("up to 2.1 times with %i ranks of 16 rows", (world) => {
    expect(readShare(input, world, 16)?.amplification).toBeLessThanOrEqual(2.1);
  });
});

describe("an explained plan", () => {
  let data: TestVersion;
  beforeAll(async () => {
    data = await makeVersion({ splits: { "": numberedBatches(3000, 500) } });
  });
  afterAll(() => data.close());
  const explain = (o: Partial<PlanOptions>) => explainPlan(planLoader(data.version, { batchSize: 64, seed: 5, ...o }));

  test("is the plan, its quality, and what ranks read", () => {
    const found = explain({ shuffle: "full", world: 4, rank: 1 });
    expect(found).toMatchObject(
      planLoader(data.version, { batchSize: 64, seed: 5, shuffle: "full", world: 4, rank: 1 }),
    );
    expect(found.reads.map((r) => r.world)).toEqual([4]);
    expect(found.quality?.countedRows).toBe(Math.floor(3000 / 256) * 256);
    expect(found.rankBytes).toBeGreaterThan(0);
    expect(found.rankBytes).toBeLessThanOrEqual(found.bytes);
    expect(JSON.parse(JSON.stringify(found))).toEqual(found);
    expect(worldsToCompare(4)).toEqual([4, 1, 2, 8, 16, 64]);
  });
});

/** Golden plans: a change of any is a change of what a run would do. */
describe("golden plans", () => {
  const SPLITS = [{ name: "train", rows: 1_200_000, bytes: 310_000_000, shards: 5 }];
  const version = {
    dataset: "golden",
    version: 1,
    root: `b3:${"01".repeat(32)}` as const,
    splits: SPLITS,
    splitRule: { kind: "folders" } as never,
  };
  const PLANS: readonly (readonly [string, Partial<PlanOptions>])[] = [
    ["none alone", { shuffle: false }],
    ["window alone", { shuffle: true }],
    ["window of 32 MiB, 8 ranks", { shuffle: { strength: "window", windowBytes: 32 * MiB }, world: 8, rank: 3 }],
    ["full, 3 ranks, padded", { shuffle: "full", world: 3, last: "pad" }],
    ["block", { shuffle: "block" }],
  ];
  test.each(PLANS)("%s", async (_name, o) => {
    const plan = planLoader(version, { batchSize: 256, seed: 42, ...o });
    const { quality, reads, rankBytes } = explainPlan(plan);
    const order = createEpochOrder(
      {
        root: new Uint8Array(32).fill(1),
        selection: new Uint8Array(Buffer.from(plan.selection.slice(3), "hex")),
        rows: plan.rows,
        order: plan.order,
      },
      0,
    );
    const first = Array.from({ length: 8 }, (_, p) => order.rowAt(p));
    expect({ plan, first, quality, reads, rankBytes }).toMatchSnapshot();
  });
});
