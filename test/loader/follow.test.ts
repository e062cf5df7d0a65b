import { Utf8, vectorFromArray, type RecordBatch } from "apache-arrow";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ConfirmedVersion } from "../../src/client/types.ts";
import type { HostBatch } from "../../src/loader/feed.ts";
import { createHostLoader, type HostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import { DEFAULT_PORTS, type LoaderPorts } from "../../src/loader/internal.ts";
import { parseReceipt } from "../../src/loader/receipt-log.ts";
import type { Receipt } from "../../src/loader/receipt.ts";
import { holdsOrder, replayBytes, seenRows, strayEpochs } from "../../src/loader/replay.ts";
import type { Digest } from "../../src/model/bytes.ts";
import { ShardpactError } from "../../src/model/errors.ts";
import { type LiveDataset, liveDataset } from "./support/live.ts";
import { batchOf, numberedBatches, type TestVersion } from "./support/version.ts";

let live: LiveDataset;
let warnings: string[];
beforeEach(() => {
  live = liveDataset();
  warnings = [];
});
afterEach(() => live[Symbol.asyncDispose]());

/** Rows 1000·version … of each version: a row tells its version. */
const publish = (rows: number): Promise<TestVersion> => {
  const version = versions().length + 1;
  return live.publish({ splits: { "": numberedBatches(rows, 16, 1000 * version) } });
};
function versions(): ConfirmedVersion[] {
  const found: ConfirmedVersion[] = [];
  for (;;) {
    try {
      found.push(live.at(found.length + 1));
    } catch {
      return found;
    }
  }
}
const ports = (over: Partial<LoaderPorts> = {}): LoaderPorts => ({
  ...DEFAULT_PORTS,
  retryMs: 1,
  warn: (message) => void warnings.push(message),
  ...over,
});

const options: LoaderOptions = { xs: "x", batchSize: 8, seed: 5, shuffle: "full", run: { id: "r" }, follow: true };
const loaderOf = (version: number, o: Partial<LoaderOptions> = {}): HostLoader =>
  createHostLoader(live.at(version), { ...options, ...o }, ports());

function rowsOf({ columns }: HostBatch): number[] {
  const { data } = columns.xs["x"] as { data: Float32Array };
  return Array.from({ length: data.length / 3 }, (_, i) => data[3 * i] as number);
}

/** Trains to the end of an epoch, or `steps` of it; resolves with the rows. */
async function train(loader: HostLoader, steps = Infinity): Promise<number[]> {
  const rows: number[] = [];
  const epoch = loader.iterate();
  for (let step = 0; step < steps; step++) {
    const batch = await epoch.next();
    if (!batch) return rows;
    rows.push(...rowsOf(batch));
    loader.ack(batch);
  }
  await epoch.return();
  return rows;
}

const all = (version: number, rows: number): number[] => Array.from({ length: rows }, (_, i) => 1000 * version + i);
const sorted = (rows: readonly number[]): number[] => rows.toSorted((a, b) => a - b);

describe("a run that follows its dataset", () => {
  test("all ranks train an epoch on one version, though they come there at different times and publishing goes on", async () => {
    await publish(96);
    const ranks = [0, 1, 2].map((rank) => loaderOf(1, { rank, world: 3 }));
    const [first, second, third] = ranks as [HostLoader, HostLoader, HostLoader];
    const epochs: number[][] = [[], [], []];
    const epoch = async (loader: HostLoader, n: number) => void epochs[n]?.push(...(await train(loader)));
    await epoch(first, 0);
    await epoch(second, 0);
    await publish(48);
    await epoch(first, 1); // decides: v2
    await publish(72);
    await epoch(second, 1);
    await epoch(third, 0); // slow: two epochs behind the newest version
    await epoch(third, 1);
    for (const loader of [third, first, second]) await epoch(loader, 2);
    expect(epochs.map(sorted)).toEqual([all(1, 96), all(2, 48), all(3, 72)]);
    expect([...live.epochs].map(([key, { version }]) => [key, version])).toEqual([
      ["r 0", 1],
      ["r 1", 2],
      ["r 2", 3],
    ]);
    expect(live.proposals.length).toBe(2); // who finds an answer writes nothing
    const states = ranks.map((loader) => ({ ...loader.state(), attempt: "" }));
    expect(states[1]).toEqual(states[0]);
    expect(states[2]).toEqual(states[0]);
    expect(states[0]).toMatchObject({ dataset: "things@v3", root: live.at(3).root, epoch: 3, offset: 0 });
    for (const loader of ranks) await loader.close();
  });

  test("ranks that come at once, each with its own view of the head, still agree", async () => {
    await publish(64);
    await using first = loaderOf(1, { rank: 0, world: 2 });
    await using second = loaderOf(1, { rank: 1, world: 2 });
    await train(first);
    await train(second);
    await publish(32);
    let asked = 0;
    live.onAsk = async (what) => {
      // Both found nothing agreed on, and each its own newest version, before either proposes.
      if (what === "newest" && ++asked === 2) await publish(128);
      if (what === "propose") while (asked < 2) await new Promise((done) => setTimeout(done, 1));
    };
    const [a, b] = await Promise.all([train(first), train(second)]);
    expect(live.proposals.map(({ version }) => version).sort()).toEqual([2, 3]);
    const { version } = live.epochs.get("r 1") as { version: number };
    expect(sorted([...a, ...b])).toEqual(all(version, version === 2 ? 32 : 128));
  });

  test("stays where nothing newer is, and says so in the log", async () => {
    await publish(32);
    await using loader = loaderOf(1);
    for (let epoch = 0; epoch < 3; epoch++) expect(sorted(await train(loader))).toEqual(all(1, 32));
    expect([...live.epochs.values()].map(({ epoch, version }) => [epoch, version])).toEqual([
      [0, 1],
      [1, 1],
      [2, 1],
    ]);
    expect(loader.receipt().spans).toMatchObject([{ epoch: 0, epochs: 3, from: 0, to: 32 }]);
  });

  test("goes past revoked versions, and does not go on from one", async () => {
    await publish(32);
    await using loader = loaderOf(1, { reconfirm: "open" });
    await train(loader);
    await publish(16);
    await publish(24);
    live.revoked.add(3);
    expect(sorted(await train(loader))).toEqual(all(2, 16));
    live.revoked.add(2);
    live.revoked.add(1);
    await expect(train(loader)).rejects.toMatchObject({ code: "revoked" });
  });

  test("plans each version anew: steps, memory, notes", async () => {
    await publish(32);
    await using loader = loaderOf(1);
    expect(loader.plan).toMatchObject({ dataset: "things@v1", steps: 4, rows: 32, follow: true });
    expect(loader.plan.notes.at(-1)).toContain("things@v1");
    await train(loader);
    await publish(80);
    await train(loader, 1);
    expect(loader.plan).toMatchObject({ dataset: "things@v2", steps: 10, rows: 80 });
  });

  test("versions of equal size are not one span", async () => {
    await publish(32);
    await using loader = loaderOf(1);
    await train(loader);
    await publish(32);
    await train(loader);
    expect(loader.receipt().spans).toMatchObject([
      { epoch: 0, epochs: 1, root: live.at(1).root },
      { epoch: 1, epochs: 1, root: live.at(2).root },
    ]);
  });

  test("needs a run", async () => {
    await publish(8);
    const { run: _, ...alone } = options;
    expect(() => createHostLoader(live.at(1), alone, ports())).toThrow(
      expect.objectContaining({ code: "invalid_argument" }) as Error,
    );
    // @ts-expect-error there is no third way
    const wrong: LoaderOptions = { ...options, onUnfit: "ignore" };
    expect(wrong.follow).toBe(true);
  });
});

describe("resuming", () => {
  test("in the middle of an epoch goes on there, on its version; another is refused", async () => {
    await publish(32);
    const killed = loaderOf(1);
    await train(killed);
    await publish(64);
    const before = await train(killed, 3);
    const saved = killed.state();
    expect(saved).toMatchObject({ dataset: "things@v2", root: live.at(2).root, epoch: 1, offset: 24 });
    await killed.close();
    await publish(16);
    await using resumed = loaderOf(2, { resume: saved });
    expect(sorted([...before, ...(await train(resumed))])).toEqual(all(2, 64));
    expect(sorted(await train(resumed))).toEqual(all(3, 16));
    for (const version of [1, 3])
      expect(() => loaderOf(version, { resume: saved })).toThrow(
        expect.objectContaining({
          code: "resume_mismatch",
          details: expect.objectContaining({ field: "root" }),
        }) as Error,
      );
    const elsewhere = { ...saved, dataset: "things@v1", root: live.at(1).root, order: loaderOf(1).plan.order };
    await using wrong = loaderOf(1, { resume: elsewhere });
    await expect(train(wrong)).rejects.toMatchObject({ code: "plan_mismatch" });
  });

  test("at the start of an epoch stands on the version before, and goes where the others went", async () => {
    await publish(32);
    const [fast, slow] = [loaderOf(1), loaderOf(1)];
    await train(fast);
    await train(slow);
    const saved = slow.state();
    expect(saved).toMatchObject({ dataset: "things@v1", epoch: 1, offset: 0 });
    await slow.close();
    await publish(40);
    await train(fast, 1);
    await publish(48);
    await using resumed = loaderOf(1, { resume: saved });
    expect(sorted(await train(resumed))).toEqual(all(2, 40));
    await fast.close();
  });

  test("a state does not move before a batch of the new version is acknowledged", async () => {
    await publish(32);
    await using loader = loaderOf(1);
    await train(loader);
    const atEnd = loader.state();
    await publish(40);
    const epoch = loader.iterate();
    await epoch.next();
    expect(loader.state()).toEqual(atEnd);
    await epoch.next();
    expect(loader.state()).toMatchObject({ root: live.at(2).root, epoch: 1, offset: 8 });
  });
});

const labelled = (labels: readonly string[]): RecordBatch =>
  batchOf({
    x: numberedBatches(labels.length, 64)[0]!.getChildAt(0)!,
    label: vectorFromArray([...labels], new Utf8()),
  });

describe("a version that does not fit", () => {
  const withLabels = { ys: { label: { classes: "agreed", oneHot: true } } } as const;
  const cats = Array.from({ length: 16 }, (_, i) => ["cat", "dog"][i % 2]!);

  test("is named with its column before the first batch, and nobody has agreed on it", async () => {
    await live.publish({ splits: { "": [labelled(cats)] }, classes: ["label"] });
    await using loader = loaderOf(1, withLabels);
    await train(loader);
    await live.publish({ splits: { "": [labelled([...cats.slice(1), "emu"])] }, classes: ["label"] });
    const refused = {
      code: "shape_differs",
      message: "things@v2 cannot be trained on in epoch 1: 'label' would be float32[3] a row; it is float32[2]",
      details: { column: "label", dataset: "things", version: 2, epoch: 1 },
    };
    await expect(train(loader)).rejects.toMatchObject(refused);
    expect(live.proposals).toEqual([]);
    await loader.close();
    await using staying = loaderOf(1, { ...withLabels, onUnfit: "stay", resume: loader.state() });
    expect((await train(staying)).length).toBe(16);
    expect(live.epochs.get("r 1")).toMatchObject({ version: 1 });
    expect(warnings).toEqual([expect.stringContaining("run r stays on things@v1")]);
  });

  test("keeps its figures when it is memory, or steps", async () => {
    await publish(64);
    const shuffle = { strength: "window", windowBytes: 1, lanes: 2 } as const;
    await using loader = loaderOf(1, { shuffle, memory: 60_000 });
    await train(loader);
    await publish(4096);
    await expect(train(loader)).rejects.toMatchObject({
      code: "budget_too_small",
      details: { memoryMaxBytes: 60_000, version: 2 },
    });
    await publish(4);
    await using wide = loaderOf(1, { world: 2, rank: 0, run: { id: "wide" } });
    await train(wide);
    await expect(train(wide)).rejects.toMatchObject({ code: "invalid_argument", details: { version: 3 } });
  });

  test("of a rank whose options give another order than was agreed: plan_mismatch", async () => {
    await publish(32);
    const bytes = live.at(1).bytes;
    const window = (windowBytes: number) => ({ shuffle: { strength: "window", windowBytes, lanes: 2 } }) as const;
    await using first = loaderOf(1, { ...window(bytes), rank: 0, world: 2 });
    await using second = loaderOf(1, { ...window(1e9), rank: 1, world: 2 });
    expect(second.plan.order).toEqual(first.plan.order);
    await train(first);
    await train(second);
    await publish(2048);
    await train(first, 1);
    await expect(train(second)).rejects.toMatchObject({
      code: "plan_mismatch",
      details: { epoch: 1, field: "order.strength", expected: "window", got: "full" },
    });
  });
});

describe("a group that cannot be asked at the end of an epoch", () => {
  const noQuorum = () => new ShardpactError("no_quorum", "nobody answers");

  test("is waited for, with one warning; a proposal whose answer was lost has one effect", async () => {
    await publish(32);
    await using loader = loaderOf(1);
    await train(loader);
    await publish(40);
    let failures = 0;
    live.onAsk = (what) => {
      if (what === "agreed" && live.proposals.length === 1 && failures++ < 3) throw noQuorum();
    };
    expect(sorted(await train(loader))).toEqual(all(2, 40));
    expect(failures).toBeGreaterThan(3);
    expect(live.proposals.length).toBe(1);
    expect(warnings).toEqual([expect.stringContaining("waits to agree on the version of epoch 1")]);
  });

  test("too long, or with onUnconfirmed: 'stop', it is no_quorum; the state stays where it was", async () => {
    await publish(32);
    for (const onUnconfirmed of ["pause", "stop"] as const) {
      let now = 0;
      const clock = ports({ nowMs: () => (now += 10), pauseMsMax: 100 });
      const o = { ...options, onUnconfirmed, reconfirm: "open", run: { id: onUnconfirmed } } as const;
      await using loader = createHostLoader(live.at(1), o, clock);
      await train(loader);
      live.onAsk = () => {
        throw noQuorum();
      };
      await expect(train(loader)).rejects.toMatchObject({ code: "no_quorum", retryable: true });
      expect(loader.state()).toMatchObject({ epoch: 1, offset: 0 });
      live.onAsk = () => undefined;
      expect((await train(loader)).length).toBe(32);
    }
  });

  test("a close while it waits ends it", async () => {
    await publish(32);
    const loader = loaderOf(1);
    await train(loader);
    live.onAsk = () => {
      throw noQuorum();
    };
    const waiting = expect(train(loader)).rejects.toMatchObject({
      code: expect.stringMatching(/aborted|closed/) as string,
    });
    await new Promise((done) => setTimeout(done, 10));
    await loader.close();
    await waiting;
  });
});

describe("receipts of several versions", () => {
  const byRoot = (): Map<Digest, ConfirmedVersion> => new Map(versions().map((version) => [version.root, version]));

  test.each([
    ["alone", { batchSize: 8 }],
    ["one rank of two, padded", { batchSize: 8, rank: 1, world: 2, last: "pad" as const }],
  ])("expand to the rows, and their bytes can be gathered again (%s)", async (_name, over) => {
    await publish(40);
    const loader = loaderOf(1, { ...over, receipt: "bytes" });
    const trained = await train(loader);
    trained.push(...(await train(loader)));
    await publish(56);
    trained.push(...(await train(loader)));
    trained.push(...(await train(loader, 2)));
    const receipt = parseReceipt(JSON.parse(JSON.stringify(loader.receipt())));
    await loader.close();
    const roots = [live.at(1).root, live.at(2).root];
    expect(receipt.spans.map(({ root, epoch, epochs }) => [roots.indexOf(root), epoch, epochs])).toEqual([
      [0, 0, 2],
      [1, 2, 1],
      [1, 3, 1],
    ]);
    expect(receipt.earlier).toMatchObject([{ dataset: "things@v1", root: roots[0] }]);
    expect(holdsOrder(receipt)).toBe(true);
    expect(await replayBytes(byRoot(), receipt)).toBe(receipt.bytesDigest);
    if (receipt.rank === 0) {
      const seen = [...seenRows(receipt, byRoot())].map(({ epoch, row }) => 1000 * (epoch < 2 ? 1 : 2) + row);
      expect(sorted(seen)).toEqual(sorted(trained));
    }
    const agreed = new Map([...live.epochs.values()].map(({ epoch, root }) => [epoch, root]));
    expect(strayEpochs(receipt, agreed)).toEqual([]);
    expect(strayEpochs(receipt, new Map(agreed).set(1, roots[1]!))).toMatchObject([{ epoch: 0, epochs: 2 }]);
    const [span, ...others] = receipt.spans;
    const forged: Receipt = { ...receipt, spans: [{ ...span!, root: roots[1]! }, ...others] };
    expect(holdsOrder(forged)).toBe(false);
    expect(
      holdsOrder({ ...receipt, earlier: [{ ...receipt.earlier[0]!, order: { ...receipt.state.order, n: 1 } }] }),
    ).toBe(false);
    expect(() => holdsOrder({ ...receipt, earlier: [] })).toThrow(
      expect.objectContaining({ code: "damaged" }) as Error,
    );
  });
});
