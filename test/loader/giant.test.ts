/**
 * A shard, a record batch, a column and offsets beyond 2³¹ and 2³²: nothing on the way to a tensor counts bytes or items in 32 bits.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { arrowBatches } from "../../src/loader/arrow-batches.ts";
import { createHostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import type { HostBatch } from "../../src/loader/feed.ts";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import { createEpochOrder } from "../../src/loader/order/order.ts";
import { sliceStep } from "../../src/loader/order/slices.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { parseDigest } from "../../src/model/bytes.ts";
import { GIANT_ROWS, makeGiantShard, X_BYTES, type GiantShard } from "./support/giant-shard.ts";

const MiB = 1024 * 1024;
const BATCH = 40;
let giant: GiantShard;

beforeAll(async () => void (giant = await makeGiantShard()));
afterAll(() => giant[Symbol.asyncDispose]());

/** Threads cost more than what is read here: a window is read in them, all else without. */
const make = (o: Partial<LoaderOptions> = {}) =>
  createHostLoader(
    giant.version,
    { xs: ["x", "id", "odd"], batchSize: BATCH, memory: 32 * MiB, seed: 3, ...o },
    { ...DEFAULT_PORTS, reads: o.shuffle ? "worker" : "inline" },
  );

/** Up to `count` batches from a row (in the order of the loader) on. */
async function batchesFrom(offset: number, count: number, o: Partial<LoaderOptions> = {}): Promise<HostBatch[]> {
  const resume = { ...make(o).state(), offset };
  await using loader = make({ ...o, resume });
  const iterator = loader.iterate();
  const batches: HostBatch[] = [];
  while (batches.length < count) {
    const batch = await iterator.next();
    if (batch === null || batch.epoch > 0) break;
    batches.push(batch);
  }
  return batches;
}

/** The rows of the batches; their values are what the rows hold. */
function rowsOf(batches: readonly HostBatch[]): number[] {
  return batches.flatMap(({ columns: { xs } }) => {
    const rows = [...(xs["id"]?.data ?? [])];
    expect([...(xs["odd"]?.data ?? [])]).toEqual(rows.map((row) => row % 2));
    rows.forEach((row, i) => {
      const x = xs["x"]?.data.subarray(i * X_BYTES, (i + 1) * X_BYTES) ?? [];
      expect(Buffer.compare(Uint8Array.from(x), giant.xOf(row)), `x of row ${row}`).toBe(0);
    });
    return rows;
  });
}

const rowsFrom = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

describe("a shard that is one record batch of 9 GB, in 32 MiB of memory", () => {
  test.each([
    ["2³¹", 2 ** 31],
    ["2³²", 2 ** 32],
  ])("rows around byte %s are delivered right", async (_name, at) => {
    const row = Math.floor(at / X_BYTES);
    const from = row - BATCH;
    expect(giant.xAt(from)).toBeLessThan(at);
    expect(giant.xAt(row + BATCH)).toBeGreaterThan(at);
    expect(rowsOf(await batchesFrom(from, 2))).toEqual(rowsFrom(from, from + 2 * BATCH));
  });

  test("so are the last ones, up to the end of the epoch", async () => {
    const from = GIANT_ROWS - 2 * BATCH - 7;
    expect(rowsOf(await batchesFrom(from, 9))).toEqual(rowsFrom(from, GIANT_ROWS));
  });

  test("a window deals rows from all over it, for any rank, and reads blocks of them", async () => {
    const o = { shuffle: { strength: "window", windowBytes: 8 * MiB, lanes: 8 }, rank: 3, world: 4 } as const;
    const { plan } = make(o);
    const { root, selection, rows, stepRows, order: spec } = plan;
    const order = createEpochOrder(
      { root: parseDigest(root), selection: parseDigest(selection), rows, order: spec },
      0,
    );
    giant.read.bytes = 0;
    const found = rowsOf(await batchesFrom(0, 3, o));
    const steps = [0, 1, 2].map((i) => ({ from: i * stepRows, to: (i + 1) * stepRows }));
    expect(found).toEqual(steps.flatMap((step) => [...sliceStep(order, step, 3, 4).rows]));
    expect(giant.xAt(Math.max(...found))).toBeGreaterThan(2 ** 31);
    expect(giant.read.bytes).toBeLessThan(64 * MiB);
  });

  test("texts whose offsets are beyond 2³¹ are the texts of their rows", async () => {
    const from = GIANT_ROWS - 2 * BATCH;
    const batches = await batchesFrom(from, 2, { xs: { note: { dtype: "string" }, id: {} } });
    const notes = batches.flatMap(({ columns: { xs } }) => xs["note"]?.texts ?? []);
    const right = rowsFrom(from, GIANT_ROWS).filter((row, i) => notes[i] === giant.noteOf(row));
    expect(right).toEqual(rowsFrom(from, GIANT_ROWS));
  });

  test("texts that are views into buffers of more than a GiB are the texts of their rows", async () => {
    for (const from of [600_000 - BATCH, GIANT_ROWS - 2 * BATCH]) {
      const batches = await batchesFrom(from, 2, { xs: { view: { dtype: "string" }, id: {} } });
      const views = batches.flatMap(({ columns: { xs } }) => xs["view"]?.texts ?? []);
      expect(views.map((view, i) => view === giant.viewOf(from + i))).toEqual(views.map(() => true));
      expect(views.length).toBe(2 * BATCH);
    }
  });

  test("nothing is asked of a store in pieces that grow with the batch", () => {
    expect(giant.read.bytesMax).toBeGreaterThan(0);
    expect(giant.read.bytesMax).toBeLessThanOrEqual(MiB);
  });

  test("a bad byte beyond 2³² is named by its leaf and its place in the file, and good rows before it are delivered", async () => {
    const row = Math.floor(2 ** 32 / X_BYTES) + 1000;
    const offset = row - 1000;
    giant.flippedAt = giant.xAt(row) + 5;
    try {
      expect(rowsOf(await batchesFrom(offset, 1))).toEqual(rowsFrom(offset, offset + BATCH));
      const head = 8; // the batch's segment begins there
      const leaf = Math.floor((giant.flippedAt - head) / LIMITS.leafBytes);
      await expect(batchesFrom(row - (row % BATCH), 1)).rejects.toMatchObject({
        code: "shard_corrupt",
        details: {
          shard: "train/giant.arrow",
          segment: 1,
          leaf,
          offset: head + leaf * LIMITS.leafBytes,
          bytes: LIMITS.leafBytes,
        },
      });
    } finally {
      giant.flippedAt = null;
    }
  });

  test("as Arrow it comes in parts, and of one column only that is read", async () => {
    giant.read.bytes = 0;
    const ids: number[] = [];
    for await (const batch of arrowBatches(giant.version, { columns: ["id"] })) {
      for (const id of batch.getChildAt(0) ?? []) ids.push(Number(id));
    }
    expect(ids.length).toBe(GIANT_ROWS);
    expect(ids.every((id, row) => id === row)).toBe(true);
    expect(giant.read.bytes).toBeLessThan(8 * MiB);
    for await (const batch of arrowBatches(giant.version)) {
      expect(batch.numRows * X_BYTES).toBeLessThan(64 * MiB);
      expect(batch.getChild("note")?.get(100)).toBe(giant.noteOf(100));
      expect(batch.getChild("view")?.get(100)).toBe(giant.viewOf(100));
      break;
    }
  });
});
