import { afterAll, beforeAll, expect, test } from "vitest";
import type { SplitSummary } from "../../src/client/types.ts";
import { stateDigest } from "../../src/loader/cursor.ts";
import { createHostLoader, type HostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import { planLoader } from "../../src/loader/plan.ts";
import { parseReceipt } from "../../src/loader/receipt-log.ts";
import type { Receipt } from "../../src/loader/receipt.ts";
import { attemptsOf, holdsOrder, memoryToReplay, pathTo, replayBytes, seenRows } from "../../src/loader/replay.ts";
import { makeVersion, numberedBatches, type TestVersion } from "./support/version.ts";

let data: TestVersion;
beforeAll(async () => {
  data = await makeVersion({ splits: { train: numberedBatches(500, 16), val: numberedBatches(40, 16, 500) } });
});
afterAll(() => data.close());

const versionsOf = ({ version }: TestVersion) => new Map([[version.root, version]]);

const base: LoaderOptions = {
  ...{
    xs: "x",
    ys: { y: { oneHot: 5 } },
    split: "train",
    batchSize: 16,
    seed: 3,
    receipt: "bytes",
    run: { id: "exp" },
  },
  shuffle: { strength: "window", windowBytes: 1, lanes: 4 },
};
const loaderOf = (o: Partial<LoaderOptions> = {}): HostLoader => createHostLoader(data.version, { ...base, ...o });

/** Trains some steps; resolves with the rows that were trained on, in order. */
async function steps(loader: HostLoader, count: number): Promise<number[]> {
  const rows: number[] = [];
  while (count > 0) {
    const epoch = loader.iterate();
    for (let batch = await epoch.next(); batch && count > 0; batch = --count > 0 ? await epoch.next() : null) {
      const { data: values } = batch.columns.xs["x"] as { data: Float32Array };
      for (let i = 0; i < values.length; i += 3) rows.push(values[i] as number);
      loader.ack(batch);
    }
    await epoch.return();
  }
  return rows;
}

const CHECKPOINT = `b3:${"ab".repeat(32)}` as const;

test("receipts expand to the rows that were trained on; their digests can be made again from the data", async () => {
  await using loader = loaderOf();
  const trained = await steps(loader, 50); // one epoch has 32
  const receipt = parseReceipt(JSON.parse(JSON.stringify(loader.receipt())));
  expect(receipt.spans.length).toBe(2);
  expect([...seenRows(receipt, versionsOf(data))].map(({ row }) => row).sort()).toEqual(trained.sort());
  expect(holdsOrder(receipt)).toBe(true);
  expect(await replayBytes(versionsOf(data), receipt)).toBe(receipt.bytesDigest);
  const forged: Receipt = { ...receipt, spans: receipt.spans.map((span) => ({ ...span, to: span.to - 16 })) };
  expect(holdsOrder(forged)).toBe(false);
});

test("every rank of a world, from a resumed state on", async () => {
  const first = loaderOf();
  await steps(first, 5);
  await first.close();
  for (const rank of [0, 1, 2]) {
    await using loader = loaderOf({ rank, world: 3, batchSize: 8, last: "pad", resume: first.state() });
    await steps(loader, 21);
    const receipt = loader.receipt();
    expect(receipt.state.parent).toBe(stateDigest(first.state()));
    expect(await replayBytes(versionsOf(data), receipt)).toBe(receipt.bytesDigest);
  }
});

test("what a model saw is the path from its checkpoint: a crash's lost steps are on no path", async () => {
  const crashed = loaderOf();
  await steps(crashed, 4);
  await crashed.checkpointed(CHECKPOINT);
  const saved = crashed.state();
  await steps(crashed, 6); // lost: trained, then killed
  await crashed.close();
  const second = loaderOf({ resume: saved, world: 1, batchSize: 32 });
  const after = await steps(second, 3);
  await second.close();

  const receipts = data.calls.receipts.map((call) => parseReceipt((call as { receipt: unknown }).receipt));
  const own = receipts.filter(({ state }) => [crashed, second].some((l) => l.state().attempt === state.attempt));
  const attempts = attemptsOf(own);
  expect(attempts.map(({ parent }) => parent)).toEqual([null, stateDigest(saved)]);
  const path = pathTo(own, attempts[1]?.last as Receipt);
  expect(path.map(({ checkpoint }) => checkpoint)).toEqual([CHECKPOINT, null]);
  const saw = path.flatMap((receipt) => [...seenRows(receipt, versionsOf(data))]);
  expect(saw.length).toBe(4 * 16 + 3 * 32);
  expect(saw.map(({ position }) => position)).toEqual(Array.from({ length: 160 }, (_, i) => i));
  expect(
    saw
      .slice(64)
      .map(({ row }) => row)
      .sort(),
  ).toEqual(after.sort());
  expect(() =>
    pathTo(
      own.filter(({ checkpoint }) => checkpoint === null),
      attempts[1]?.last as Receipt,
    ),
  ).toThrow(expect.objectContaining({ code: "not_found" }) as Error);
});

test("what a run had more memory for than the default can be replayed; a full shuffle does with the default", () => {
  const split = data.version.splits.find(({ name }) => name === "train");
  const large = { ...data.version, splits: [{ ...(split as SplitSummary), bytes: 2 ** 36, rows: 2 ** 20 }] };
  const options = { split: "train", batchSize: 8, seed: 1, allowRandomReads: true };
  const needed = memoryToReplay(large, { ...options, shuffle: { strength: "window", windowBytes: 2 ** 33 } });
  expect(needed).toBeGreaterThan(2 ** 33);
  expect(() =>
    planLoader(large, { ...options, shuffle: { strength: "window", windowBytes: 2 ** 33 }, memory: needed - 1 }),
  ).toThrow(/memory/);
  expect(memoryToReplay(large, { ...options, shuffle: "full" })).toBe(2 ** 30);
  expect(memoryToReplay(data.version, { ...options, shuffle: "block" })).toBe(2 ** 30);
});

test("other data gives other bytes, and another version is refused", async () => {
  await using loader = loaderOf();
  await steps(loader, 3);
  const receipt = loader.receipt();
  await using other = await makeVersion({ splits: { train: numberedBatches(500, 16, 1) } });
  await expect(replayBytes(versionsOf(other), receipt)).rejects.toMatchObject({ code: "root_mismatch" });
  const otherColumns = { ...receipt.columns, ys: [{ name: "y", options: {} }] };
  expect(await replayBytes(versionsOf(data), { ...receipt, columns: otherColumns })).not.toBe(receipt.bytesDigest);
  expect(() => parseReceipt({ v: 2 })).toThrow(expect.objectContaining({ code: "damaged" }) as Error);
});
