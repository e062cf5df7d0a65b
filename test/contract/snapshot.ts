/**
 * The contract of snapshots: every store writes the same file, installs it alike, and refuses what is not whole.
 */
import { copyFile, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { hashAs } from "../../src/merkle/hash.ts";
import { formatDigest, utf8 } from "../../src/model/bytes.ts";
import type { Entry } from "../../src/consensus/engine.ts";
import { createMemoryDisk } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import type { CatalogStore, ReplicaStores, StoreIdentity } from "../../src/storage/port.ts";
import { tempDir } from "../support/temp-dir.ts";
import { questions, scriptedEntries } from "./catalog-script.ts";
import { entry, IDENTITY, seededRandom, type StoreHarness, write } from "./store-harness.ts";

/** The group whose first entry is that of `scriptedEntries`. */
export const SCRIPTED: StoreIdentity = { ...IDENTITY, groupId: formatDigest(hashAs("genesis", utf8("voters"))) };

type Booted = ReplicaStores & { readonly state: Awaited<ReturnType<ReplicaStores["log"]["boot"]>> };
type Start = (identity?: StoreIdentity) => Promise<Booted>;

export function snapshotContract(
  name: string,
  makeHarness: () => Promise<StoreHarness>,
  { flips }: { readonly flips: number },
): void {
  describe(`snapshot contract: ${name}`, () => {
    let harness: StoreHarness;
    let dir: Awaited<ReturnType<typeof tempDir>>;
    beforeEach(async () => {
      [harness, dir] = await Promise.all([makeHarness(), tempDir("snapshot")]);
    });
    afterEach(async () => {
      await harness.close();
      await dir.remove();
    });
    const start: Start = async (identity = SCRIPTED) => {
      const stores = await harness.open(identity);
      return { ...stores, state: await stores.log.boot() };
    };
    const at = (file: string) => join(dir.path, file);
    exportCases(start, at);
    installCases(start, at);
    logCases(start, at, () => harness);
    refusalCases(start, at, flips);
    compactionCases(start);
  });
}

/** A store in memory that has logged and applied the entries. */
async function memoryWith(history: readonly Entry[], identity = SCRIPTED): Promise<ReplicaStores> {
  const stores = openMemoryStores(createMemoryDisk(), identity);
  await stores.log.boot();
  await stores.log.append([write(history)]);
  if (history.length > 0) await stores.catalog.apply(history);
  return stores;
}

async function answers(catalog: CatalogStore, asOf: number): Promise<unknown[]> {
  const all: unknown[] = [];
  for (const query of questions(asOf)) all.push({ query, answer: await catalog.query(query, asOf) });
  return all;
}

type At = (file: string) => string;

function exportCases(start: Start, at: At): void {
  it.each([1, 2])("writes the same bytes as the store in memory, whatever the batches were (seed %i)", async (seed) => {
    const history = scriptedEntries(seed, 120).slice(0, 120);
    const [{ catalog }, memory] = [await start(), await memoryWith(history)];
    for (let i = 0; i < history.length; i += 7) await catalog.apply(history.slice(i, i + 7));
    const info = await catalog.exportSnapshot(at("a"));
    expect(await memory.catalog.exportSnapshot(at("b"))).toEqual(info);
    expect(await readFile(at("a"))).toEqual(await readFile(at("b")));
    expect(info).toMatchObject({ applied: catalog.applied(), epoch: history.at(-1)?.epoch, groupId: SCRIPTED.groupId });
    expect(info.tables[0]).toMatchObject({ name: "ledger", rows: history.length });
    // With the first seed every table has rows.
    if (seed === 1) expect(info.tables.filter(({ rows }) => rows === 0)).toEqual([]);
  });

  it("refuses to take one of nothing, or into a folder that is not there", async () => {
    const { catalog } = await start();
    await expect(catalog.exportSnapshot(at("a"))).rejects.toMatchObject({ code: "invalid_argument" });
    await catalog.apply(scriptedEntries(1, 10).slice(0, 10));
    await expect(catalog.exportSnapshot(at("no/a"))).rejects.toMatchObject({ code: "store_failed" });
    const signal = AbortSignal.abort();
    await expect(catalog.exportSnapshot(at("a"), { signal })).rejects.toMatchObject({ code: "aborted" });
    await expect(readFile(at("a"))).rejects.toThrow();
    await expect(readFile(at("a.partial"))).rejects.toThrow();
  });
}

function installCases(start: Start, at: At): void {
  it.each([0, 1, 40, 110])(
    "brings a store from %i to where another is, to go on as if it had applied",
    async (from) => {
      const history = scriptedEntries(7, 160).slice(0, 160);
      const whole = await memoryWith(history.slice(0, 110));
      const info = await whole.catalog.exportSnapshot(at("a"));
      const { catalog, log } = await start();
      if (from > 0) {
        await log.append([write(history.slice(0, from))]);
        await catalog.apply(history.slice(0, from));
      }
      const { installed } = await catalog.installSnapshot(at("a"), { digest: info.digest });
      expect(installed).toBe(from < 110);
      expect(catalog.applied()).toEqual(whole.catalog.applied());
      expect(await answers(catalog, 110)).toEqual(await answers(whole.catalog, 110));
      await catalog.exportSnapshot(at("b"));
      expect(await readFile(at("b"))).toEqual(await readFile(at("a")));
      const next = history.slice(110);
      expect(await catalog.apply(next)).toEqual(await whole.catalog.apply(next));
      expect(catalog.applied()).toEqual(whole.catalog.applied());
      expect(await answers(catalog, 160)).toEqual(await answers(whole.catalog, 160));
    },
  );

  it("checks and leaves a snapshot that it is past", async () => {
    const history = scriptedEntries(3, 60).slice(0, 60);
    await (await memoryWith(history.slice(0, 30))).catalog.exportSnapshot(at("a"));
    const { catalog } = await start();
    await catalog.apply(history);
    const before = catalog.applied();
    expect(await catalog.installSnapshot(at("a"))).toMatchObject({ installed: false });
    expect(catalog.applied()).toEqual(before);
  });
}

function logCases(start: Start, at: At, harness: () => StoreHarness): void {
  const history = scriptedEntries(5, 80).slice(0, 80);
  const lastEpoch = history.at(-1)?.epoch as number;
  const install = async (logged: readonly Entry[], applied: number) => {
    await (await memoryWith(history)).catalog.exportSnapshot(at("a"));
    const { catalog, log } = await start();
    await log.append([write(logged, { hardState: { epoch: 2, votedFor: "r1" } })]);
    await catalog.apply(history.slice(0, applied));
    const said = await catalog.installSnapshot(at("a"));
    const next = await start();
    expect(next.state.base).toEqual(said.base);
    expect(next.state.lastIndex).toEqual(said.lastIndex);
    expect(next.state).toMatchObject({ applied: catalog.applied(), damaged: [] });
    expect(next.state.configurations[0]).toEqual({ index: 1, payload: history[0]?.payload });
    return next;
  };

  it("starts the log after the snapshot when it ended before, and takes the term along", async () => {
    const { state, log } = await install(history.slice(0, 50), 20);
    expect(state).toMatchObject({
      firstIndex: 81,
      lastIndex: 80,
      base: { index: 80, epoch: lastEpoch },
      epochRuns: [],
    });
    expect(state.hardState).toEqual({ epoch: lastEpoch, votedFor: null });
    await log.append([write([entry(81, lastEpoch, "noop"), entry(82, lastEpoch)])]);
    expect(await log.read(81, 82, 1e6)).toHaveLength(2);
    await expect(log.read(80, 82, 1e6)).rejects.toMatchObject({ code: "not_found" });
    const again = (await start()).state;
    expect(again).toMatchObject({ firstIndex: 81, lastIndex: 82, epochRuns: [{ epoch: lastEpoch, first: 81 }] });
  });

  it("keeps a log that holds the snapshot's last entry, with what follows it", async () => {
    const more = [...history, entry(81, lastEpoch, "noop"), entry(82, lastEpoch + 1)];
    const { state, log } = await install(more, 20);
    expect(state).toMatchObject({ firstIndex: 1, lastIndex: 82, base: { index: 0, epoch: 0 } });
    expect(await log.read(79, 82, 1e6)).toEqual(more.slice(78));
  });

  it("drops a log that holds another entry there (hashicorp/raft 697: no wrong tail)", async () => {
    const wrong = Array.from({ length: 20 }, (_, i) => entry(71 + i, lastEpoch - 1, "noop"));
    const { state } = await install([...history.slice(0, 70), ...wrong], 20);
    expect(state).toMatchObject({ firstIndex: 81, lastIndex: 80, base: { index: 80, epoch: lastEpoch } });
  });

  it.each([
    ["damaged", (index: number) => harness().damage(index)],
    ["missing", (index: number) => harness().drop(index)],
  ] as const)("gives up its vote when its own entry there is %s and others follow (I52)", async (_name, hurt) => {
    await (await memoryWith(history)).catalog.exportSnapshot(at("a"));
    const more = [...history, entry(81, lastEpoch, "noop")];
    const { catalog, log } = await start();
    await log.append([write(more)]);
    await catalog.apply(history.slice(0, 20));
    await hurt(80);
    expect(await catalog.installSnapshot(at("a"))).toMatchObject({
      installed: true,
      base: { index: 80 },
      lastIndex: 80,
    });
    expect((await start()).state).toMatchObject({ voting: false, lastIndex: 80, applied: { index: 80 }, damaged: [] });
  });

  it("drops nothing above the snapshot from a Multi-Paxos log: it was accepted", async () => {
    await (await memoryWith(history)).catalog.exportSnapshot(at("a"));
    const paxos: StoreIdentity = { ...SCRIPTED, engine: "paxos" };
    const { catalog, log } = await start(paxos);
    const accepted = Array.from({ length: 13 }, (_, i) => entry(71 + i, 99, "noop"));
    await log.append([write([...history.slice(0, 70), ...accepted])]);
    await catalog.apply(history.slice(0, 20));
    expect(await catalog.installSnapshot(at("a"))).toMatchObject({ base: { index: 80 }, lastIndex: 83 });
    const { state, log: next } = await start(paxos);
    expect(state).toMatchObject({ firstIndex: 81, lastIndex: 83, damaged: [], applied: { index: 80 } });
    expect(await next.read(81, 83, 1e6)).toEqual(accepted.slice(10));
  });
}

function refusalCases(start: Start, at: At, flips: number): void {
  it("refuses another group and another history (I17)", async () => {
    const history = scriptedEntries(9, 60).slice(0, 60);
    await (await memoryWith(history)).catalog.exportSnapshot(at("a"));
    const { catalog } = await start();
    const other = [...history.slice(0, 20), entry(21, 3, "noop"), entry(22, 3, "noop")];
    await catalog.apply(other);
    const before = catalog.applied();
    await expect(catalog.installSnapshot(at("a"))).rejects.toMatchObject({ code: "group_forked" });
    const voters = { ...entry(1, 1, "config", "other voters") };
    const identity = { ...SCRIPTED, groupId: formatDigest(hashAs("genesis", voters.payload)) };
    const foreign = await memoryWith([voters, ...history.slice(1)], identity);
    await foreign.catalog.exportSnapshot(at("b"));
    await expect(catalog.installSnapshot(at("b"))).rejects.toMatchObject({ code: "group_forked" });
    expect(catalog.applied()).toEqual(before);
  });

  it("refuses a snapshot that is not the one that was asked for", async () => {
    const history = scriptedEntries(9, 30).slice(0, 30);
    await (await memoryWith(history)).catalog.exportSnapshot(at("a"));
    const { catalog } = await start();
    const digest = formatDigest(utf8("x".repeat(32)));
    await expect(catalog.installSnapshot(at("a"), { digest })).rejects.toMatchObject({ code: "damaged" });
    await expect(catalog.installSnapshot(at("none"))).rejects.toMatchObject({ code: "store_failed" });
    expect(catalog.applied().index).toBe(0);
  });

  it(`refuses it cut off or with a flipped bit anywhere, before it writes (${flips} places)`, async () => {
    const history = scriptedEntries(13, 60).slice(0, 60);
    const { bytes } = await (await memoryWith(history)).catalog.exportSnapshot(at("a"));
    const whole = await readFile(at("a"));
    const { catalog } = await start();
    await catalog.apply(history.slice(0, 10));
    const before = catalog.applied();
    const random = seededRandom(13);
    for (let i = 0; i < flips; i += 1) {
      const damaged = Buffer.from(whole);
      const place = i < 24 ? i : i < 48 ? bytes - 1 - (i - 24) : Math.floor(random() * bytes);
      damaged[place] = (damaged[place] as number) ^ (1 << Math.floor(random() * 8));
      await writeFile(at("b"), damaged);
      const error: unknown = await catalog.installSnapshot(at("b")).catch((e: unknown) => e);
      // A flipped version number may also stand for a later format.
      const codes = place >= 8 && place < 12 ? ["damaged", "upgrade_required"] : ["damaged"];
      expect(codes, `bit at ${place}`).toContain((error as { code?: string }).code);
      if ((error as { code?: string }).code === "damaged")
        expect(error).toMatchObject({
          details: { table: expect.any(String) as unknown, offset: expect.any(Number) as unknown },
        });
    }
    for (const size of [0, 3, 15, 16, 500, bytes - 33, bytes - 1]) {
      await copyFile(at("a"), at("b"));
      await truncate(at("b"), size);
      await expect(catalog.installSnapshot(at("b"))).rejects.toMatchObject({ code: "damaged" });
    }
    expect(catalog.applied()).toEqual(before);
    expect(await catalog.installSnapshot(at("a"))).toMatchObject({ installed: true });
  });
}

function compactionCases(start: Start): void {
  const history = scriptedEntries(17, 60).slice(0, 60);

  it("drops the log up to an applied index and no further", async () => {
    const { log, catalog } = await start();
    await log.append([write(history)]);
    await catalog.apply(history.slice(0, 40));
    await expect(log.compactTo(41)).rejects.toMatchObject({ code: "invalid_argument" });
    await log.compactTo(35);
    await log.compactTo(20);
    expect(await log.read(36, 60, 1e7)).toEqual(history.slice(35));
    await expect(log.read(35, 60, 1e7)).rejects.toMatchObject({ code: "not_found" });
    const base = { index: 35, epoch: history[34]?.epoch };
    const next = await start();
    expect(next.state).toMatchObject({ firstIndex: 36, lastIndex: 60, base, damaged: [], applied: catalog.applied() });
    expect(next.state.epochRuns[0]).toEqual({ epoch: history[35]?.epoch, first: 36 });
    expect(next.state.configurations[0]).toEqual({ index: 1, payload: history[0]?.payload });
    await next.catalog.apply(history.slice(40));
    await next.log.compactTo(60);
    const empty = await start();
    const last = { index: 60, epoch: history[59]?.epoch };
    expect(empty.state).toMatchObject({ firstIndex: 61, lastIndex: 60, base: last, epochRuns: [], damaged: [] });
    await empty.log.append([write([entry(61, 9)])]);
    await expect(empty.log.append([write([], { removeFrom: 60 })])).rejects.toMatchObject({ code: "internal" });
  });

  it("starts the log anew after what is applied", async () => {
    const { log, catalog } = await start();
    await log.append([write(history)]);
    await catalog.apply(history.slice(0, 40));
    await expect(log.resetTo({ index: 39, epoch: 4 })).rejects.toMatchObject({ code: "invalid_argument" });
    const base = { index: 40, epoch: history[39]?.epoch as number };
    await log.resetTo(base);
    const { state } = await start();
    expect(state).toMatchObject({ firstIndex: 41, lastIndex: 40, base, epochRuns: [], applied: catalog.applied() });
  });

  it("fences compaction like every write", async () => {
    const { log, catalog } = await start();
    await log.append([write(history)]);
    await catalog.apply(history);
    await start();
    await expect(log.compactTo(10)).rejects.toMatchObject({ code: "fenced" });
  });
}
