import type { FixedSizeList, Float32, RecordBatch, Vector } from "apache-arrow";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { arrowBatches, type ArrowBatchesOptions } from "../../src/loader/arrow-batches.ts";
import { createHostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import type { ConfirmedVersion } from "../../src/client/types.ts";
import type { LoaderPorts } from "../../src/loader/internal.ts";
import { ShardpactError } from "../../src/model/errors.ts";
import { positionalRows, positionalTotals } from "../../src/shards/positional.ts";
import { makeVersion, numberedBatches, type TestVersion, type TestVersionOptions } from "./support/version.ts";

const small = (o: Partial<TestVersionOptions> = {}) => makeVersion({ splits: { "": numberedBatches(200, 16) }, ...o });

async function collect(version: ConfirmedVersion, o: ArrowBatchesOptions = {}): Promise<RecordBatch[]> {
  const batches: RecordBatch[] = [];
  for await (const batch of arrowBatches(version, o)) batches.push(batch);
  return batches;
}

/** A clock that tests move. */
function ports(): LoaderPorts & { now: number; warnings: string[] } {
  const made = {
    hashing: "blake3" as const,
    reads: "auto" as const,
    images: "auto" as const,
    now: 0,
    warnings: [] as string[],
    nowMs: () => made.now,
    leaseMs: 1000,
    pauseMsMax: 500,
    retryMs: 1,
    warn: (message: string) => void made.warnings.push(message),
  };
  return made satisfies LoaderPorts;
}

const noQuorum = () => new ShardpactError("no_quorum", "nobody answers");
const base = { xs: "x", ys: "y", batchSize: 10, seed: 1 } as const;

describe("a missing seed", () => {
  const { seed: _, ...unseeded } = base;

  test("is drawn and told once, and the state goes on with it silently", async () => {
    await using data = await small();
    const [told, again, given, ordered] = [ports(), ports(), ports(), ports()];
    await using loader = createHostLoader(data.version, { ...unseeded, shuffle: true }, told);
    const seed = loader.state().order?.seed;
    expect(told.warnings).toEqual([expect.stringContaining(`seed drawn: ${seed}; it is in state()`)]);
    await using resumed = createHostLoader(data.version, { ...unseeded, resume: loader.state() }, again);
    expect(resumed.plan.order.seed).toBe(seed);
    await using seeded = createHostLoader(data.version, { ...base, shuffle: true }, given);
    await using inOrder = createHostLoader(data.version, unseeded, ordered);
    expect([seeded.plan.order.seed, inOrder.plan.order.strength]).toEqual(["1", "none"]);
    expect([again.warnings, given.warnings, ordered.warnings]).toEqual([[], [], []]);
  });
});

describe("reconfirming", () => {
  test("a revocation stops at once", async () => {
    let revoked = false;
    await using data = await small({
      reconfirm: async () => {
        if (revoked) throw new ShardpactError("revoked", "things@v1 was revoked");
        return data.version.confirmation;
      },
    });
    await using loader = createHostLoader(data.version, { ...base, reconfirm: "epoch" }, ports());
    const iterator = loader.iterate();
    while (await iterator.next());
    expect(data.calls.reconfirms).toBe(1);
    revoked = true;
    await expect(loader.iterate().next()).rejects.toMatchObject({ code: "revoked" });
    await expect(loader.iterate().next()).rejects.toMatchObject({ code: "revoked" });
  });

  test("by the clock: while the group can't be asked batches go on until the lease ends, then wait", async () => {
    let down = true;
    await using data = await small({
      reconfirm: async () => {
        if (down) throw noQuorum();
        return data.version.confirmation;
      },
    });
    const clock = ports();
    await using loader = createHostLoader(data.version, { ...base, reconfirm: { everyMs: 1 } }, clock);
    const iterator = loader.iterate();
    await iterator.next();
    await new Promise((done) => setTimeout(done, 20));
    expect(data.calls.reconfirms).toBeGreaterThan(1);
    clock.now = 999;
    expect(await iterator.next()).not.toBeNull();
    clock.now = 1001;
    const waiting = iterator.next();
    setTimeout(() => (down = false), 20);
    expect(await waiting).not.toBeNull();
    expect(clock.warnings.length).toBe(1);
  });

  test("a pause that lasts too long, or onUnconfirmed: 'stop', is no_quorum", async () => {
    for (const onUnconfirmed of ["pause", "stop"] as const) {
      await using data = await small({ reconfirm: async () => Promise.reject(noQuorum()) });
      const clock = ports();
      await using loader = createHostLoader(data.version, { ...base, reconfirm: "epoch", onUnconfirmed }, clock);
      const iterator = loader.iterate();
      await iterator.next();
      clock.now = 1600;
      await expect(iterator.next()).rejects.toMatchObject({ code: "no_quorum", retryable: true });
      expect(loader.state().offset).toBe(10); // what was acknowledged stays
    }
  });

  test("'open' never asks again", async () => {
    await using data = await small();
    const clock = ports();
    await using loader = createHostLoader(data.version, { ...base, reconfirm: "open" }, clock);
    clock.now = 1e9;
    const iterator = loader.iterate();
    while (await iterator.next());
    expect(data.calls.reconfirms).toBe(0);
  });
});

describe("a state that another history was in", () => {
  const stateOf = async () => {
    await using data = await small();
    await using loader = createHostLoader(data.version, base, ports());
    return loader.state();
  };

  test("of another group is group_forked at once", async () => {
    const resume = { ...(await stateOf()), group: `b3:${"4".repeat(64)}` };
    await using data = await small();
    expect(() => createHostLoader(data.version, { ...base, resume }, ports())).toThrow(
      expect.objectContaining({ code: "group_forked" }),
    );
  });

  test("is asked about before the first batch, once", async () => {
    const resume = await stateOf();
    const asked: unknown[] = [];
    await using data = await small({
      reconfirm: async (_signal, since) => {
        asked.push(since);
        if (asked.length === 1) throw new ShardpactError("group_forked", "another chain");
        return data.version.confirmation;
      },
    });
    await using loader = createHostLoader(data.version, { ...base, reconfirm: "open", resume }, ports());
    await expect(loader.iterate().next()).rejects.toMatchObject({ code: "group_forked" });
    const iterator = loader.iterate();
    while (await iterator.next());
    const [index, chain] = resume.at;
    const since = { groupId: resume.group, index, chain };
    expect(asked).toEqual([since, since]);
  });
});

describe("a run", () => {
  const run = { id: "exp-1", meta: { note: "x" } };
  test("is begun before the first batch with the whole plan, and gets receipts", async () => {
    await using data = await small();
    const loader = createHostLoader(data.version, { ...base, run, shuffle: true }, ports());
    expect(data.calls.plans).toEqual([]);
    const iterator = loader.iterate();
    while (await iterator.next());
    const { root, selection, order } = loader.plan;
    const plan = { dataset: "things", version: 1, root, selection, order, world: 1, batchSize: 10, last: "partial" };
    expect(data.calls.plans).toEqual([{ run: "exp-1", plan, meta: { note: "x" } }]);
    await loader.close();
    expect(data.calls.receipts.length).toBe(1); // the epoch's; nothing was added before close
    expect(data.calls.receipts[0]).toMatchObject({ run: "exp-1", rank: 0, receipt: { spans: [{ from: 0, to: 200 }] } });
  });

  test("of another plan is refused before the first batch", async () => {
    await using data = await small({
      beginRun: async () => Promise.reject(new ShardpactError("plan_mismatch", "another seed")),
    });
    await using loader = createHostLoader(data.version, { ...base, run }, ports());
    await expect(loader.iterate().next()).rejects.toMatchObject({ code: "plan_mismatch" });
  });
});

describe("positional splits", () => {
  let data: TestVersion;
  beforeAll(async () => {
    data = await makeVersion({
      splits: { "": numberedBatches(3000, 97) },
      shardBytes: 20_000,
      positional: { train: 0.8, val: 0.2 },
    });
  });
  afterAll(() => data.close());

  async function idsOf(o: Partial<LoaderOptions>): Promise<number[]> {
    await using loader = createHostLoader(data.version, { ...base, ...o });
    const ids: number[] = [];
    const iterator = loader.iterate();
    for (let batch = await iterator.next(); batch; batch = await iterator.next()) {
      const x = batch.columns.xs["x"]?.data ?? [];
      for (let i = 0; i < x.length; i += 3) ids.push(x[i] as number);
    }
    return ids;
  }

  test("have exact sizes at once, share no row, and keep file order", async () => {
    const rule = data.version.splitRule;
    if (rule.kind !== "positional") throw new Error("not positional");
    const entries = await data.version.page(0);
    const [, heldOut] = positionalTotals(rule, entries);
    const expected: number[] = [];
    let before = 0;
    for (const entry of entries) {
      const rows = positionalRows(rule, heldOut?.name ?? null, entry);
      for (let k = 0; k < rows.rows; k++) expected.push(before + rows.rowOf(k));
      before += entry.rows;
    }
    const held = await idsOf({ split: heldOut?.name ?? "" });
    const rest = await idsOf({ split: heldOut?.name === "val" ? "train" : "val" });
    expect(held).toEqual(expected);
    expect([...held, ...rest].sort((a, b) => a - b)).toEqual(Array.from({ length: 3000 }, (_, i) => i));
    for (const { name, rows } of data.version.splits) {
      expect(createHostLoader(data.version, { ...base, split: name }).plan.steps).toBe(Math.ceil(rows / 10));
    }
    const shuffled = await idsOf({ split: "train", shuffle: true });
    const train = await idsOf({ split: "train" });
    expect(shuffled).not.toEqual(train);
    expect(shuffled.sort((a, b) => a - b)).toEqual(train);
  });

  test("are read as Arrow too", async () => {
    const ids: number[] = [];
    for await (const batch of arrowBatches(data.version, { split: "val", columns: ["x"] })) {
      expect(batch.schema.fields.map((f) => f.name)).toEqual(["x"]);
      for (let i = 0; i < batch.numRows; i++)
        ids.push((batch.getChildAt(0) as Vector<FixedSizeList<Float32>>).get(i)?.get(0) as number);
    }
    expect(ids).toEqual(await idsOf({ split: "val" }));
  });
});

describe("arrowBatches", () => {
  test("streams every split in file order; batches may be kept", async () => {
    await using data = await makeVersion({
      splits: { train: numberedBatches(100, 16), val: numberedBatches(50, 16, 100) },
    });
    const all = await collect(data.version);
    const ys = all.flatMap((batch) => Array.from(batch.getChild("y")?.toArray() as Int32Array));
    expect(ys).toEqual(Array.from({ length: 150 }, (_, i) => i % 5));
    const val = await collect(data.version, { split: "val", columns: ["even", "y"] });
    expect(val[0]?.schema.fields.map((f) => f.name)).toEqual(["even", "y"]);
    expect(val.reduce((sum, b) => sum + b.numRows, 0)).toBe(50);
  });

  test("refuses unknown splits and columns, and ends on abort and on break", async () => {
    await using data = await small();
    const drain = (o: ArrowBatchesOptions) => collect(data.version, o);
    await expect(drain({ split: "x" })).rejects.toMatchObject({ code: "not_found" });
    await expect(drain({ columns: ["evn"] })).rejects.toMatchObject({
      code: "column_unknown",
      details: { nearest: ["even"] },
    });
    await expect(drain({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "aborted" });
    for await (const batch of arrowBatches(data.version)) {
      expect(batch.numRows).toBeGreaterThan(0);
      break;
    }
  });
});
