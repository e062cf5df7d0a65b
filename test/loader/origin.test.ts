/**
 * What a batch says of itself, and which batches are of one step.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { isShardpactError } from "../../src/model/errors.ts";
import { formatDigest, parseDigest } from "../../src/model/bytes.ts";
import { batchDigest } from "../../src/loader/receipt.ts";
import { createHostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import type { HostBatch } from "../../src/loader/feed.ts";
import { batchOrigin, requireSameStep, type BatchOrigin } from "../../src/loader/origin.ts";
import { slowOrder } from "./support/slow-order.ts";
import { makeVersion, numberedBatches, type TestVersion } from "./support/version.ts";

const ROWS = 240;
let data: TestVersion;
let other: TestVersion;
beforeAll(async () => {
  data = await makeVersion({ splits: { train: numberedBatches(ROWS, 37), val: numberedBatches(ROWS, 37, ROWS) } });
  other = await makeVersion({ splits: { train: numberedBatches(ROWS, 37, 1), val: numberedBatches(ROWS, 37, ROWS) } });
});
afterAll(() => Promise.all([data.close(), other.close()]));

const base = { xs: "x", ys: "y", split: "train", seed: 7, shuffle: true, batchSize: 20 } as const;

/** The first batches of an epoch of one rank. */
async function batches(o: Partial<LoaderOptions>, count = 1, of = data): Promise<HostBatch[]> {
  await using loader = createHostLoader(of.version, { ...base, ...o });
  const iterator = loader.iterate();
  const taken: HostBatch[] = [];
  while (taken.length < count) taken.push((await iterator.next()) as HostBatch);
  return taken;
}

const originAt = async (o: Partial<LoaderOptions>, of = data): Promise<BatchOrigin> =>
  (await batches(o, 1, of))[0]!.origin;

function refusal(own: BatchOrigin, theirs: unknown): unknown {
  try {
    requireSameStep(own, theirs);
    return null;
  } catch (error) {
    return error;
  }
}

test("ids are the rows of the batch; all ranks' ids in rank order are the same at every world size", async () => {
  const inOneRank = await batches({ batchSize: 60 }, 4);
  for (const world of [2, 3, 4]) {
    const ranks = [...Array(world).keys()];
    const each = await Promise.all(ranks.map((rank) => batches({ rank, world, batchSize: 60 / world }, 4)));
    for (const [step, whole] of inOneRank.entries()) {
      expect(each.flatMap((own) => [...own[step]!.ids])).toEqual([...whole.ids]);
    }
  }
  for (const { ids, columns } of inOneRank) {
    const x = columns.xs["x"]!;
    expect([...ids]).toEqual(Array.from({ length: 60 }, (_, i) => x.data[i * 3]));
  }
  const { root, selection, order } = inOneRank[0]!.origin;
  const input = { root: parseDigest(root), selection: parseDigest(selection), rows: ROWS, order };
  const sorted = (ids: Iterable<number>) => [...ids].sort((a, b) => a - b);
  expect(sorted(inOneRank[1]!.ids)).toEqual(sorted(slowOrder(input, 0).slice(60, 120)));
});

test("batches of one step on all ranks pass, also over the wire", async () => {
  const origins = await Promise.all([0, 1, 2].map((rank) => originAt({ rank, world: 3 })));
  for (const own of origins) {
    for (const theirs of origins) if (own !== theirs) requireSameStep(own, JSON.parse(JSON.stringify(theirs)));
  }
  expect(origins[1]).toMatchObject({ rank: 1, world: 3, epoch: 0, from: 0, to: 60, bytes: null });
  expect(batchOrigin.parse(JSON.parse(JSON.stringify(origins[1])))).toEqual(origins[1]);
});

test("a padded last step tells its real positions, and has all its ranks in one step", async () => {
  const last = await Promise.all(
    [0, 1].map(async (rank) => (await batches({ rank, world: 2, batchSize: 50, last: "pad" }, 3))[2]!),
  );
  expect(last[0]!.origin).toMatchObject({ from: 200, to: 240 });
  requireSameStep(last[0]!.origin, last[1]!.origin);
  expect(last.map(({ ids }) => ids.length)).toEqual([50, 50]);
});

test.each<[string, Partial<LoaderOptions>, unknown]>([
  ["selection", { split: "val" }, undefined],
  ["columns", { xs: { x: { shape: [3, 1] } } }, undefined],
  ["columns", { xs: "y", ys: "x" }, undefined],
  ["world", { world: 4 }, 4],
  ["batchSize", { batchSize: 10 }, 10],
  ["last", { last: "pad" }, "pad"],
  ["order.seed", { seed: 8 }, "8"],
  ["order.strength", { shuffle: "none" }, "none"],
  ["rank", { rank: 0 }, 0],
])("another %s is refused by name", async (field, change, got) => {
  const own = await originAt({ rank: 0, world: 3 });
  const refused = refusal(own, await originAt({ rank: 1, world: 3, ...change }));
  expect(refused).toMatchObject({ code: "plan_mismatch", details: { field, ...(got === undefined ? {} : { got }) } });
});

test("another version's batch is refused by its root, an older step's by its position, an earlier epoch's by its number", async () => {
  const own = (await batches({ rank: 0, world: 2 }, 2))[1]!.origin;
  const [before, same] = (await batches({ rank: 1, world: 2 }, 2)).map(({ origin }) => origin);
  const [, foreign] = (await batches({ rank: 1, world: 2 }, 2, other)).map(({ origin }) => origin);
  expect(refusal(own, same)).toBeNull();
  expect(refusal(own, before)).toMatchObject({ details: { rank: 1, field: "from", expected: 40, got: 0 } });
  expect(refusal(own, foreign)).toMatchObject({ details: { field: "root", got: other.version.root } });
  expect(refusal(own, { ...same, epoch: 1 })).toMatchObject({ details: { field: "epoch" } });
  expect(refusal(own, { ...same, rank: 2 })).toMatchObject({ details: { field: "rank" } });
});

test("what is no origin is damaged", async () => {
  const own = await originAt({});
  for (const junk of [null, {}, { ...own, root: "b3:00" }, { ...own, more: 1 }, { ...own, from: -1 }]) {
    expect(isShardpactError(refusal(own, junk), "damaged")).toBe(true);
  }
});

test("where receipts cover bytes, so does the origin", async () => {
  const [batch] = await batches({ receipt: "bytes" });
  const { xs, ys } = batch!.columns;
  const arrays = [xs["x"]!, ys["y"]!].map(({ data: { buffer, byteOffset, byteLength } }) => {
    return new Uint8Array(buffer, byteOffset, byteLength);
  });
  expect(batch!.origin.bytes).toBe(formatDigest(batchDigest(arrays)));
});
