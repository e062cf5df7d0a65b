/**
 * Receipts that are longer than an entry of the log may be: recorded in parts, each once, and read as one again.
 */
import { describe, expect, test } from "vitest";
import { createHostLoader, type HostLoader } from "../../src/loader/host-loader.ts";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import type { LoaderPlan } from "../../src/loader/plan.ts";
import { createReceiptTracker, type Receipt } from "../../src/loader/receipt.ts";
import { type LoggedEntry, readReceipts, SPANS_PER_PART, splitReceipt } from "../../src/loader/receipt-log.ts";
import { holdsOrder, replayBytes, seenRows } from "../../src/loader/replay.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import { formatDigest, u32le, utf8 } from "../../src/model/bytes.ts";
import type { OrderSpec } from "../../src/model/commands.ts";
import { ShardpactError } from "../../src/model/errors.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { liveDataset } from "./support/live.ts";
import { numberedBatches } from "./support/version.ts";

const rootOf = (version: number) => formatDigest(hashBytes(u32le(version)));
const ORDER: OrderSpec = {
  ...{ alg: "sp-order/1", strength: "window", seed: String(2n ** 64n - 1n), n: 65_536, K: 64, g: 999_999 },
};
const NAME = "d".repeat(LIMITS.nameCharsMax);

/** The receipt of an attempt that came to a new version in each epoch, at the end of epoch `epochs` − 1. */
function receiptAfter(epochs: number, rank = 0): Receipt {
  const tracker = createReceiptTracker(rank, { xs: [{ name: "x", options: {} }], ys: [] }, true);
  const planOf = (epoch: number) =>
    ({
      ...{ dataset: `${NAME}@v${2 ** 30 + epoch}`, root: rootOf(epoch), selection: rootOf(1 << 20), order: ORDER },
      ...{ world: 65_536, batchSize: 1_000_000, rows: 2 ** 50 },
    }) as LoaderPlan;
  for (let epoch = 0; epoch < epochs; epoch++) {
    const step = { epoch, from: 0, to: 2 ** 50 - 10, dropped: 10, padded: 0, bytes: hashBytes(u32le(epoch)) };
    tracker.add(planOf(epoch), step);
  }
  const { dataset, root } = planOf(epochs - 1);
  return tracker.receipt({
    ...{ v: 1, group: rootOf(1 << 21), dataset, root, at: [7, "c0ffee"], selection: rootOf(1 << 20), order: ORDER },
    ...{ last: "drop", epoch: epochs, offset: 0, attempt: "an attempt", parent: null },
  });
}

const entriesOf = (receipt: Receipt): unknown[] => {
  const { parts, receipt: own } = splitReceipt(receipt);
  return JSON.parse(JSON.stringify([...parts, own])) as unknown[];
};
const logged = (values: readonly unknown[]): LoggedEntry[] => values.map((receipt, i) => ({ index: i + 1, receipt }));

describe("a receipt of any length", () => {
  test("is one entry of format 1 while it is short, and entries that each fit the log when it is long", () => {
    expect(splitReceipt(receiptAfter(SPANS_PER_PART + 1))).toEqual({
      parts: [],
      receipt: receiptAfter(SPANS_PER_PART + 1),
    });
    for (const epochs of [SPANS_PER_PART + 2, 700, 3000]) {
      const receipt = receiptAfter(epochs);
      const entries = entriesOf(receipt);
      expect(entries.length).toBe(1 + Math.floor((epochs - 2) / SPANS_PER_PART));
      for (const entry of entries) {
        expect(entry).toMatchObject({ v: 2 });
        expect(utf8(JSON.stringify(entry)).byteLength).toBeLessThan(LIMITS.commandBytesMax / 2);
      }
      const [read, ...more] = readReceipts(logged(entries));
      expect(more).toEqual([]);
      expect(read).toEqual({ index: entries.length, receipt });
      expect(holdsOrder((read as { receipt: Receipt }).receipt)).toBe(true);
    }
  });

  test("goes on with the parts that are recorded already", () => {
    let before: readonly unknown[] = [];
    for (let epochs = 1; epochs < 3 * SPANS_PER_PART; epochs += 7) {
      const { parts } = splitReceipt(receiptAfter(epochs));
      expect(parts.slice(0, before.length)).toEqual(before);
      before = parts;
    }
    expect(before.length).toBe(2);
  });

  test("is read beside others': each rank's and attempt's parts are its own, and some come twice", () => {
    const receipts = [receiptAfter(300), receiptAfter(300, 1), receiptAfter(20, 2), receiptAfter(400)];
    const read = readReceipts(logged([...receipts, receipts[0] as Receipt].flatMap(entriesOf)));
    expect(read.map(({ receipt }) => receipt)).toEqual([...receipts, receipts[0]]);
  });

  test("with a part missing, changed, late or of somebody else is damaged", () => {
    const [first, second, receipt] = entriesOf(receiptAfter(300)) as [Receipt, Receipt, Receipt];
    const [, others] = entriesOf(receiptAfter(300, 1)) as [Receipt, Receipt];
    const changed = {
      ...second,
      spans: second.spans.map((span, i) => (i === 5 ? { ...span, to: span.to - 1 } : span)),
    };
    for (const entries of [
      [second, receipt],
      [first, receipt],
      [first, changed, receipt],
      [first, others, receipt],
      [first, receipt, second],
      [first, second, { ...receipt, rank: 1 }],
      [first, second, { ...receipt, parts: { ...(receipt as unknown as { parts: object }).parts, count: 1 } }],
      [first, { ...second, v: 3 }, receipt],
    ])
      expect(() => readReceipts(logged(entries))).toThrow(expect.objectContaining({ code: "damaged" }) as Error);
    expect(readReceipts(logged([first, second, receipt])).length).toBe(1);
  });
});

test("a loader that follows through many versions has all of it recorded, each part once, though some fail to be", async () => {
  await using live = liveDataset();
  const publish = () => live.publish({ splits: { "": numberedBatches(16, 16) } });
  const sent: { receipt: unknown }[] = [];
  let failing = 0;
  let nowMs = 0;
  await publish();
  const version = {
    ...live.at(1),
    sendReceipt: async (_run: string, _rank: number, receipt: unknown) => {
      if (failing-- > 0) throw new ShardpactError("unavailable", "no leader");
      sent.push({ receipt: JSON.parse(JSON.stringify(receipt)) });
    },
  };
  const options = { xs: "x", batchSize: 8, seed: 1, shuffle: true, receipt: "bytes", follow: true } as const;
  const ports = { ...DEFAULT_PORTS, warn: () => undefined, nowMs: () => nowMs };
  const loader = createHostLoader(version, { ...options, run: { id: "long" } }, ports);
  const epochs = SPANS_PER_PART + 20;
  for (let epoch = 0; epoch < epochs; epoch++) {
    if (epoch === SPANS_PER_PART + 1) failing = 2; // the part, then again with the next receipt
    nowMs += 60_000;
    await trainEpoch(loader);
    // The same rows under another root: a version of its own.
    await live.publish({ splits: { "": numberedBatches(16, 16, 100 * (epoch + 1)) } });
  }
  await loader.close();
  const entries = sent.map(({ receipt }, i) => ({ index: i + 1, receipt }));
  const parts = entries.filter(({ receipt }) => (receipt as { kind?: string }).kind === "part");
  expect(parts.length).toBe(1);
  expect(sent.length).toBeGreaterThan(epochs / 2);
  const last = readReceipts(entries).at(-1)?.receipt as Receipt;
  expect(last).toEqual(loader.receipt());
  expect(last.spans.length).toBe(epochs);
  expect(holdsOrder(last)).toBe(true);
  const versions = new Map(Array.from({ length: epochs }, (_, i) => [live.at(i + 1).root, live.at(i + 1)]));
  expect([...seenRows(last, versions)].length).toBe(16 * epochs);
  expect(await replayBytes(versions, last)).toBe(last.bytesDigest);
});

async function trainEpoch(loader: HostLoader): Promise<void> {
  const epoch = loader.iterate();
  for (let batch = await epoch.next(); batch; batch = await epoch.next()) loader.ack(batch);
}
