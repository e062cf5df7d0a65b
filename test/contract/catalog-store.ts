/**
 * The contract of `CatalogStore`: every adapter passes these, and gives the same as the one in memory.
 */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { AppliedEntry } from "../../src/catalog/apply.ts";
import type { Entry } from "../../src/consensus/engine.ts";
import { createMemoryDisk } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import type { CatalogStore } from "../../src/storage/port.ts";
import { objectDigest } from "../../src/merkle/root.ts";
import { CLASSES, commitOf, digestOf, pageOf, payloadOf, SCHEMA, T0 } from "../support/catalog.ts";
import { questions, scriptedEntries } from "./catalog-script.ts";
import { entry, IDENTITY, seededRandom, type StoreHarness } from "./store-harness.ts";

export function catalogStoreContract(name: string, makeHarness: () => Promise<StoreHarness>): void {
  describe(`catalog store contract: ${name}`, () => {
    let harness: StoreHarness;
    beforeEach(async () => {
      harness = await makeHarness();
    });
    afterEach(async () => {
      await harness.close();
    });
    const start = async (): Promise<CatalogStore> => {
      const stores = await harness.open();
      await stores.log.boot();
      return stores.catalog;
    };
    historyCases(() => harness, start);
    onceCases(start);
    fenceCases(() => harness, start);
  });
}

type Start = () => Promise<CatalogStore>;

async function memoryCatalog(): Promise<CatalogStore> {
  const stores = openMemoryStores(createMemoryDisk(), IDENTITY);
  await stores.log.boot();
  return stores.catalog;
}

async function applyInBatches(
  catalog: CatalogStore,
  all: readonly Entry[],
  size: () => number,
): Promise<AppliedEntry[]> {
  const applied: AppliedEntry[] = [];
  for (let at = 0; at < all.length;) {
    const batch = all.slice(at, at + size());
    applied.push(...(await catalog.apply(batch)));
    at += batch.length;
  }
  return applied;
}

async function answers(catalog: CatalogStore, at: number, asOf: number | null = at): Promise<unknown[]> {
  const all: unknown[] = [];
  for (const query of questions(at)) all.push({ query, answer: await catalog.query(query, asOf) });
  return all;
}

function historyCases(harness: () => StoreHarness, start: Start): void {
  it.each([1, 2, 3])("applies in batches what it applies one by one, as in memory (I10, seed %i)", async (seed) => {
    const history = scriptedEntries(seed, 120);
    const [store, memory] = [await start(), await memoryCatalog()];
    const random = seededRandom(seed);
    const batched = await applyInBatches(store, history, () => 1 + Math.floor(random() * 20));
    const single = await applyInBatches(memory, history, () => 1);
    expect(batched).toEqual(single);
    expect(batched.some(({ outcome }) => outcome.ok)).toBe(true);
    expect(batched.some(({ outcome }) => !outcome.ok)).toBe(true);
    expect(store.applied()).toEqual(memory.applied());
    expect(await answers(store, history.length)).toEqual(await answers(memory, history.length));
  });

  it("answers as of an index what it answered then", async () => {
    const history = scriptedEntries(11, 90);
    const store = await start();
    const then = new Map<number, unknown[]>();
    for (const one of history) {
      await store.apply([one]);
      if (one.index % 15 === 0) then.set(one.index, await answers(store, one.index, null));
    }
    for (const [index, was] of then) expect(await answers(store, index)).toEqual(was);
  });

  it("knows of a pin that was released and taken again what it was as of each index", async () => {
    const store = await start();
    const page = pageOf("pinned");
    const { body, blob } = commitOf({ pages: [page] });
    const pin = { dataset: "mnist", run: "exp-1" };
    const put = (kind: "schema" | "classes" | "page", bytes: Uint8Array): Uint8Array =>
      payloadOf("page.put", { kind, digest: objectDigest(kind, bytes) }, { blob: bytes });
    const take = (note: string): Uint8Array =>
      payloadOf("pin.create", { ...pin, version: 1, root: body.root, note }, { timeMs: T0 });
    const payloads = [
      put("schema", SCHEMA),
      put("classes", CLASSES),
      put("page", page),
      payloadOf("version.commit", body, { blob }),
      take("first"),
      payloadOf("pin.release", pin),
      take("again"),
      payloadOf("pin.release", pin),
    ];
    const all = payloads.map((payload, i): Entry => ({ ...entry(i + 1), payload }));
    const applied = [...(await store.apply(all.slice(0, 6))), ...(await store.apply(all.slice(6)))];
    expect(applied.map(({ outcome }) => outcome.ok)).toEqual(all.map(() => true));
    const seen = [];
    for (const asOf of [4, 5, 6, 7, 8]) {
      const answer = await store.query({ kind: "pins", dataset: "mnist", run: "exp-1" }, asOf);
      seen.push(answer.kind === "rows" ? answer.rows : answer);
    }
    expect(seen).toMatchObject([
      [],
      [{ index: 5, note: "first", releasedIndex: null }],
      [{ index: 5, note: "first", releasedIndex: 6 }],
      [{ index: 7, note: "again", releasedIndex: null }],
      [{ index: 7, note: "again", releasedIndex: 8 }],
    ]);
  });

  it("keeps what a run that follows agreed on, epoch by epoch, as of each index", async () => {
    const store = await start();
    const pages = [pageOf("one"), pageOf("two")];
    const first = commitOf({ pages: pages.slice(0, 1) });
    const second = commitOf({ pages, kept: 1, expectedHead: { version: 1, index: 5 } });
    const put = (kind: "schema" | "classes" | "page", bytes: Uint8Array): Uint8Array =>
      payloadOf("page.put", { kind, digest: objectDigest(kind, bytes) }, { blob: bytes });
    const order = { alg: "sp-order/1", strength: "none", seed: "0", n: 1, K: 1, g: 1 } as const;
    const fixed = { selection: digestOf("all"), order, world: 2, batchSize: 8, last: "drop", follow: true } as const;
    const plan = { dataset: "mnist", version: 1, root: first.body.root, ...fixed };
    const cut = { run: "live", dataset: "mnist", from: 1, root: second.body.root, order };
    const payloads = [
      put("schema", SCHEMA),
      put("classes", CLASSES),
      ...pages.map((page) => put("page", page)),
      payloadOf("version.commit", first.body, { blob: first.blob }),
      payloadOf("run.begin", { run: "live", plan, meta: {} }),
      payloadOf("version.commit", second.body, { blob: second.blob }),
      payloadOf("epoch.cut", { ...cut, epoch: 1, version: 2 }),
      // Of a rank that saw no newer version: it is told what there is, and changes nothing.
      payloadOf("epoch.cut", { ...cut, epoch: 1, version: 1, root: first.body.root }),
    ];
    const all = payloads.map((payload, i): Entry => ({ ...entry(i + 1), payload }));
    const applied = [...(await store.apply(all.slice(0, 7))), ...(await store.apply(all.slice(7)))];
    expect(applied.map(({ outcome }) => outcome.ok)).toEqual(all.map(() => true));
    expect(applied.at(-1)?.outcome).toMatchObject({ result: { epoch: 1, version: 2, index: 8, created: false } });
    const epochs = async (after: number, asOf: number) => {
      const answer = await store.query({ kind: "run_epochs", run: "live", after, limit: 10 }, asOf);
      return answer.kind === "rows" ? answer.rows.map((row) => [row["epoch"], row["version"], row["index"]]) : answer;
    };
    expect(await epochs(-1, 5)).toMatchObject({ kind: "not_found" });
    expect(await epochs(-1, 7)).toEqual([[0, 1, 6]]);
    expect(await epochs(0, 7)).toEqual([]);
    expect(await epochs(-1, 9)).toEqual([
      [0, 1, 6],
      [1, 2, 8],
    ]);
    expect(await epochs(0, 9)).toEqual([[1, 2, 8]]);
  });

  it("gives out no object that does not hash to its digest", async () => {
    const store = await start();
    const digest = objectDigest("schema", SCHEMA);
    const payload = payloadOf("page.put", { kind: "schema", digest }, { blob: SCHEMA });
    await store.apply([{ ...entry(1), payload }]);
    expect(await store.query({ kind: "object", digest }, null)).toMatchObject({ kind: "object", bytes: SCHEMA });
    await harness().damageObjects();
    await expect(store.query({ kind: "object", digest }, null)).rejects.toMatchObject({ code: "damaged" });
  });

  it("goes on after a restart where it was", async () => {
    const history = scriptedEntries(4, 60);
    const first = await start();
    await first.apply(history.slice(0, 25));
    const before = first.applied();
    const second = await start();
    expect(second.applied()).toEqual(before);
    await second.apply(history.slice(25));
    const memory = await memoryCatalog();
    await memory.apply(history);
    expect(second.applied()).toEqual(memory.applied());
    expect(await second.chainAt(25)).toBe(before.chain);
    expect(await second.chainAt(history.length + 1)).toBeNull();
  });

  it("goes on from what another process applied meanwhile", async () => {
    const history = scriptedEntries(5, 90);
    const [first, second] = [await harness().open(), await harness().open()];
    const parts = [history.slice(0, 30), history.slice(30, 60), history.slice(60)] as const;
    for (const [i, { log, catalog }] of [first, second, first].entries()) {
      await log.boot();
      for (const one of parts[i] ?? []) await catalog.apply([one]);
    }
    const memory = await memoryCatalog();
    await memory.apply(history);
    expect(first.catalog.applied()).toEqual(memory.applied());
    await expect(second.catalog.apply([entry(61, 1, "noop")])).rejects.toMatchObject({ code: "fenced" });
  });

  it("refuses entries that do not follow, and is usable afterwards", async () => {
    const store = await start();
    await expect(store.apply([entry(2, 1, "noop")])).rejects.toMatchObject({ code: "internal" });
    await store.apply([entry(1, 1, "noop")]);
    expect(store.applied().index).toBe(1);
  });

  it("applies nothing of a batch with an entry of a later build", async () => {
    const store = await start();
    const later = { ...entry(2), payload: new Uint8Array(20).fill(9) };
    await expect(store.apply([entry(1, 1, "noop"), later])).rejects.toMatchObject({ code: "upgrade_required" });
    expect(store.applied().index).toBe(0);
    await store.apply([entry(1, 1, "noop")]);
  });
}

function fenceCases(harness: () => StoreHarness, start: Start): void {
  const query = { kind: "datasets", after: "", limit: 10 } as const;

  it("does not answer for a boot that is over, or before one", async () => {
    const first = await start();
    await first.apply([entry(1, 1, "noop")]);
    expect(await first.query(query, 1)).toMatchObject({ kind: "rows" });
    const stores = await harness().open();
    await expect(stores.catalog.query(query, 1)).rejects.toMatchObject({ code: "unavailable" });
    expect(await first.query(query, 1), "opened is not booted").toMatchObject({ kind: "rows" });
    await stores.log.boot();
    await expect(first.query(query, 1)).rejects.toMatchObject({ code: "fenced" });
    expect(await stores.catalog.query(query, 1)).toMatchObject({ kind: "rows" });
  });

  it("takes its own next boot for nobody else's", async () => {
    const stores = await harness().open();
    await stores.log.boot();
    const booting = stores.log.boot();
    const asked = await Promise.allSettled(Array.from({ length: 20 }, () => stores.catalog.query(query, 0)));
    await booting;
    for (const { status, ...rest } of asked) {
      if (status === "rejected") expect(rest).toMatchObject({ reason: { code: "unavailable" } });
    }
    expect(await stores.catalog.query(query, 0)).toMatchObject({ kind: "rows" });
  });
}

function onceCases(start: Start): void {
  const move = (index: number, id: string, tag: string): Entry => ({
    ...entry(index),
    payload: payloadOf("tag.move", { dataset: "mnist", tag, version: 1 }, { id, timeMs: T0 + index }),
  });
  const ID = "a".repeat(32);

  it("gives a retry the first answer, in the same batch and later (I12)", async () => {
    const store = await start();
    const [first, retry] = await store.apply([move(1, ID, "prod"), move(2, ID, "prod")]);
    expect(first).toMatchObject({
      index: 1,
      retry: false,
      firstIndex: 1,
      outcome: { ok: false, error: { code: "not_found" } },
    });
    expect(retry).toMatchObject({ index: 2, retry: true, firstIndex: 1, outcome: first?.outcome });
    const again = await start();
    const [later, reused] = await again.apply([move(3, ID, "prod"), move(4, ID, "other")]);
    expect(later).toMatchObject({ index: 3, retry: true, firstIndex: 1, outcome: first?.outcome });
    expect(reused).toMatchObject({ retry: false, outcome: { ok: false, error: { code: "command_id_reused" } } });
    expect(await again.outcome(ID)).toEqual(first);
    expect(await again.outcome("b".repeat(32))).toBeNull();
  });

  it("answers a query without an index from what is applied, and lists the ledger", async () => {
    const store = await start();
    await store.apply([entry(1, 1, "noop"), move(2, ID, "prod")]);
    const ledger = await store.query({ kind: "ledger", after: 0, limit: 10 }, null);
    expect(ledger).toMatchObject({
      kind: "rows",
      rows: [
        { index: 1, kind: "noop", actor: null, commandId: null, payloadBytes: 0 },
        { index: 2, kind: "tag.move", actor: "ada", commandId: ID, retryOf: null, timeMs: T0 + 2 },
      ],
    });
  });
}
