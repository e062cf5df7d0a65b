/**
 * The contract of `LogStore`: every adapter passes these, over its own harness.
 */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Entry, HardState } from "../../src/consensus/engine.ts";
import type { LogWrite, ReplicaStores } from "../../src/storage/port.ts";
import { entries, entry, IDENTITY, seededRandom, type StoreHarness, write } from "./store-harness.ts";

export function logStoreContract(name: string, makeHarness: () => Promise<StoreHarness>): void {
  describe(`log store contract: ${name}`, () => {
    let harness: StoreHarness;
    beforeEach(async () => {
      harness = await makeHarness();
    });
    afterEach(async () => {
      await harness.close();
    });
    const start = async () => {
      const stores = await harness.open();
      return { ...stores, state: await stores.log.boot() };
    };
    startCases(() => harness, start);
    writeCases(start);
    fenceCases(() => harness, start);
    damageCases(() => harness, start);
  });
}

type Start = () => Promise<ReplicaStores & { state: Awaited<ReturnType<ReplicaStores["log"]["boot"]>> }>;

function startCases(harness: () => StoreHarness, start: Start): void {
  it("starts empty, with boot 1 and an incarnation", async () => {
    const { state } = await start();
    expect(state).toMatchObject({
      boot: 1,
      hardState: { epoch: 0, votedFor: null },
      firstIndex: 1,
      lastIndex: 0,
      epochRuns: [],
      configurations: [],
      applied: { index: 0, chain: "0".repeat(64), timeMs: 0 },
      peers: [],
      damaged: [],
      voting: true,
    });
    expect(state.incarnation.length).toBeGreaterThan(0);
  });

  it("raises boot at every boot and every open, and keeps the incarnation", async () => {
    const a = await start();
    const again = await a.log.boot();
    const b = await start();
    expect([again.boot, b.state.boot]).toEqual([2, 3]);
    expect(b.state.incarnation).toBe(a.state.incarnation);
  });

  it("writes nothing before boot", async () => {
    const { log, catalog } = await harness().open();
    await expect(log.append([write([entry(1)])])).rejects.toMatchObject({ code: "unavailable" });
    await expect(catalog.apply([entry(1, 1, "noop")])).rejects.toMatchObject({ code: "unavailable" });
  });

  it("refuses another group, replica or engine", async () => {
    await start();
    for (const other of [{ groupId: "g-2" }, { replica: "r2" }, { engine: "paxos" as const }]) {
      const { log } = await harness().open({ ...IDENTITY, ...other });
      await expect(log.boot()).rejects.toMatchObject({ code: "config_invalid" });
    }
  });

  it("closes twice, and then refuses", async () => {
    const { log, close } = await start();
    await close();
    await close();
    await expect(log.append([write([entry(1)])])).rejects.toMatchObject({ code: "closed" });
    await expect(log.boot()).rejects.toMatchObject({ code: "closed" });
  });

  it("remembers peers and a lost vote", async () => {
    const { log } = await start();
    await log.recordPeer({ peer: "r3", incarnation: "c", boot: 1 });
    await log.recordPeer({ peer: "r2", incarnation: "a", boot: 4 });
    await log.recordPeer({ peer: "r2", incarnation: "b", boot: 1 });
    await log.loseVote("restored from a backup");
    const { state } = await start();
    expect(state.voting).toBe(false);
    expect(state.peers).toEqual([
      { peer: "r2", incarnation: "b", boot: 1 },
      { peer: "r3", incarnation: "c", boot: 1 },
    ]);
  });
}

function writeCases(start: Start): void {
  it("gives back what was appended, to this process and the next", async () => {
    const { log } = await start();
    const config = entry(1, 1, "config", "voters");
    const written = [config, entry(2, 1, "noop"), ...entries(3, 5, 1), ...entries(6, 7, 3)];
    await log.append([write(written, { hardState: { epoch: 3, votedFor: "r2" } })]);
    expect(await log.read(1, 7, 1e6)).toEqual(written);
    const next = await start();
    expect(await next.log.read(2, 4, 1e6)).toEqual(written.slice(1, 4));
    expect(next.state).toMatchObject({
      hardState: { epoch: 3, votedFor: "r2" },
      lastIndex: 7,
      epochRuns: [
        { epoch: 1, first: 1 },
        { epoch: 3, first: 6 },
      ],
      configurations: [{ index: 1, payload: config.payload }],
      damaged: [],
    });
  });

  it("keeps term and vote when a write does not carry them, and takes a vote back", async () => {
    const { log } = await start();
    await log.append([write([], { hardState: { epoch: 4, votedFor: "r1" } })]);
    await log.append([write([entry(1, 4)])]);
    expect((await start()).state.hardState).toEqual({ epoch: 4, votedFor: "r1" });
    const { log: again } = await start();
    await again.append([write([], { hardState: { epoch: 5, votedFor: null } })]);
    expect((await start()).state.hardState).toEqual({ epoch: 5, votedFor: null });
  });

  it("truncates before it puts (Raft §5.3)", async () => {
    const { log } = await start();
    await log.append([write(entries(1, 9))]);
    await log.append([write(entries(4, 5, 2), { removeFrom: 4, hardState: { epoch: 2, votedFor: null } })]);
    expect(await log.read(1, 5, 1e6)).toEqual([...entries(1, 3), ...entries(4, 5, 2)]);
    await expect(log.read(5, 6, 1e6)).rejects.toMatchObject({ code: "invalid_argument" });
    await log.append([write([], { removeFrom: 2 })]);
    const { state, log: next } = await start();
    expect(state).toMatchObject({ lastIndex: 1, damaged: [], epochRuns: [{ epoch: 1, first: 1 }] });
    await next.append([write([], { removeFrom: 1 })]);
    expect((await start()).state).toMatchObject({ lastIndex: 0, damaged: [], epochRuns: [] });
  });

  it("folds several writes of one append in order", async () => {
    const { log } = await start();
    await log.append([
      write(entries(1, 5), { hardState: { epoch: 1, votedFor: "r1" } }),
      write(entries(3, 4, 2), { removeFrom: 3, hardState: { epoch: 2, votedFor: null } }),
      write([entry(5, 2, "noop")]),
    ]);
    expect(await log.read(1, 5, 1e6)).toEqual([...entries(1, 2), ...entries(3, 4, 2), entry(5, 2, "noop")]);
    expect((await start()).state).toMatchObject({ lastIndex: 5, hardState: { epoch: 2, votedFor: null } });
  });

  it("refuses a hole", async () => {
    const { log } = await start();
    await expect(log.append([write([entry(2)])])).rejects.toMatchObject({ code: "internal" });
  });

  it("reads about as many bytes as asked for, and at least one entry", async () => {
    const { log } = await start();
    const big = Array.from({ length: 6 }, (_, i) => entry(i + 1, 1, "command", "x".repeat(100)));
    await log.append([write(big)]);
    expect((await log.read(2, 6, 250)).map(({ index }) => index)).toEqual([2, 3]);
    expect((await log.read(2, 6, 1)).map(({ index }) => index)).toEqual([2]);
  });

  it("is a list under any sequence of writes", async () => {
    const random = seededRandom(20_26);
    const upTo = (max: number) => Math.floor(random() * max);
    let { log } = await start();
    let model: Entry[] = [];
    let hardState: HardState = { epoch: 1, votedFor: null };
    for (let round = 0; round < 60; round++) {
      const writes: LogWrite[] = [];
      for (let n = upTo(3); n >= 0; n--) {
        if (random() < 0.3) hardState = { epoch: hardState.epoch + 1, votedFor: random() < 0.5 ? "r2" : null };
        const removeFrom = random() < 0.3 && model.length > 0 ? 1 + upTo(model.length) : null;
        if (removeFrom !== null) model = model.slice(0, removeFrom - 1);
        const first = model.length + 1;
        const put = Array.from({ length: upTo(5) }, (_, i) =>
          entry(first + i, hardState.epoch, random() < 0.2 ? "noop" : "command", `${round} ${i}`),
        );
        model.push(...put);
        writes.push({ hardState, removeFrom, put });
      }
      await log.append(writes);
      if (random() < 0.1) ({ log } = await start());
      if (model.length > 0) expect(await log.read(1, model.length, 1e6)).toEqual(model);
    }
    const { state } = await start();
    const runs = model
      .filter((e, i) => model[i - 1]?.epoch !== e.epoch)
      .map((e) => ({ epoch: e.epoch, first: e.index }));
    expect(state).toMatchObject({ lastIndex: model.length, hardState, epochRuns: runs, damaged: [] });
  });
}

function fenceCases(harness: () => StoreHarness, start: Start): void {
  it("fences every write of an earlier boot", async () => {
    const old = await start();
    await old.log.append([write([entry(1)])]);
    const now = await start();
    await expect(old.log.append([write([entry(2)])])).rejects.toMatchObject({ code: "fenced" });
    await expect(old.log.append([write([], { removeFrom: 1 })])).rejects.toMatchObject({ code: "fenced" });
    await expect(old.log.recordPeer({ peer: "r2", incarnation: "a", boot: 1 })).rejects.toMatchObject({
      code: "fenced",
    });
    await expect(old.log.loseVote("x")).rejects.toMatchObject({ code: "fenced" });
    await now.log.append([write([entry(2, 7)])]);
    expect((await start()).state).toMatchObject({ lastIndex: 2, peers: [], voting: true });
  });

  it("fences applies of an earlier boot", async () => {
    const old = await start();
    const now = await start();
    await expect(old.catalog.apply([entry(1, 1, "noop")])).rejects.toMatchObject({ code: "fenced" });
    expect(now.catalog.applied().index).toBe(0);
    await now.catalog.apply([entry(1, 1, "noop")]);
    expect(now.catalog.applied().index).toBe(1);
  });

  it("is unusable after a broken connection until it boots again", async () => {
    const { log, catalog } = await start();
    await log.append([write(entries(1, 3))]);
    await harness().breakConnections();
    await expect(log.append([write([entry(4)])])).rejects.toMatchObject({ code: "unavailable" });
    await expect(log.append([write([entry(4)])])).rejects.toMatchObject({ code: "unavailable" });
    await expect(catalog.apply([entry(1, 1, "noop")])).rejects.toMatchObject({ code: "unavailable" });
    const state = await log.boot();
    expect(state.boot).toBe(2);
    // The write whose answer was lost is there or is not: both are right.
    expect([3, 4]).toContain(state.lastIndex);
    await log.append([write(entries(state.lastIndex + 1, 6))]);
    expect(await log.read(1, 6, 1e6)).toEqual(entries(1, 6));
  });
}

function damageCases(harness: () => StoreHarness, start: Start): void {
  it("names an entry whose bytes changed, and does not give it out", async () => {
    const { log } = await start();
    await log.append([write(entries(1, 6))]);
    await harness().damage(4);
    expect(await log.read(3, 5, 1e6), "what is before it").toEqual(entries(3, 3));
    await expect(log.read(4, 5, 1e6)).rejects.toMatchObject({ code: "damaged", details: { indexes: [4] } });
    expect(await log.read(5, 6, 1e6)).toEqual(entries(5, 6));
  });

  it("takes a missing entry for damage, not for absence", async () => {
    const { log } = await start();
    await log.append([write(entries(1, 6))]);
    await harness().drop(6);
    await harness().drop(2);
    expect(await log.read(1, 3, 1e6), "what is before it").toEqual(entries(1, 1));
    await expect(log.read(2, 3, 1e6)).rejects.toMatchObject({ code: "damaged", details: { indexes: [2] } });
    await expect(log.read(6, 6, 1e6)).rejects.toMatchObject({ code: "damaged", details: { indexes: [6] } });
    expect((await start()).state).toMatchObject({ damaged: [2, 6], lastIndex: 1, promisedLast: 6, voting: true });
  });

  it.each([
    ["as large as pages", 40, 200_000],
    ["many", 1_100, 1],
  ])("finds damage anywhere among entries that are %s", async (_what, count, bytes) => {
    const { log } = await start();
    const all = entries(1, count).map((each) => ({ ...each, payload: new Uint8Array(bytes).fill(each.index % 251) }));
    for (let from = 0; from < count; from += 100) await log.append([write(all.slice(from, from + 100))]);
    const bad = [1, 2, 21, 22, count - 1, count];
    for (const index of bad) await harness().damage(index);
    expect((await start()).state).toMatchObject({ damaged: bad, lastIndex: 0, promisedLast: count });
  });

  it("cuts a damaged log before the damage and remembers, boot after boot, how far it reached", async () => {
    const { log } = await start();
    await log.append([write(entries(1, 6), { hardState: { epoch: 1, votedFor: "r2" } })]);
    await harness().damage(4);
    for (let boot = 0; boot < 2; boot++) {
      const { state, log: next } = await start();
      expect(state).toMatchObject({
        damaged: [4],
        lastIndex: 3,
        promisedLast: 6,
        hardState: { epoch: 1, votedFor: "r2" },
      });
      expect(state.epochRuns).toEqual([{ epoch: 1, first: 1 }]);
      await expect(next.read(3, 4, 1e6)).rejects.toMatchObject({ code: "invalid_argument" });
    }
    // It goes on from there; what it was given is not damage, and the mark stays until all is.
    const { log: next } = await start();
    await next.append([write(entries(4, 5, 2), { hardState: { epoch: 2, votedFor: null } })]);
    expect((await start()).state).toMatchObject({ damaged: [], lastIndex: 5, promisedLast: 6 });
  });

  it("drops what lay beyond the cut once it is mended, and only then", async () => {
    const { log } = await start();
    await log.append([write(entries(1, 6))]);
    await harness().drop(3);
    const { log: next } = await start();
    await next.append([write(entries(3, 4, 2), { hardState: { epoch: 2, votedFor: null } })]);
    await next.mended();
    const { state, log: last } = await start();
    expect(state).toMatchObject({ damaged: [], lastIndex: 4, promisedLast: null, voting: true });
    await last.append([write([entry(5, 2)])]);
    expect(await last.read(1, 5, 1e6)).toEqual([...entries(1, 2), ...entries(3, 5, 2)]);
    expect((await start()).state).toMatchObject({ damaged: [], lastIndex: 5, promisedLast: null });
  });

  it("does not hand out a damaged configuration", async () => {
    const { log } = await start();
    await log.append([write([entry(1, 1, "config", "voters"), entry(2)])]);
    await harness().damage(1);
    expect((await start()).state).toMatchObject({ damaged: [1], configurations: [], lastIndex: 0, promisedLast: 2 });
  });

  it("is whole again once the damaged entry is put again", async () => {
    const { log } = await start();
    await log.append([write(entries(1, 3))]);
    await harness().damage(2);
    await log.append([write([entry(2)])]);
    expect((await start()).state).toMatchObject({ damaged: [], lastIndex: 3, promisedLast: null });
  });

  it("takes what is applied out of the ledger again: at a boot, and when it is asked to", async () => {
    const { log, catalog } = await start();
    const written = [entry(1, 1, "config", "voters"), ...entries(2, 6)];
    await log.append([write(written)]);
    await catalog.apply(written.slice(0, 5));
    await log.append([write([])]);
    await harness().damage(2);
    await harness().drop(4);
    await log.rebuild([2, 4]);
    expect(await log.read(1, 6, 1e6)).toEqual(written);
    await harness().drop(1);
    await harness().damage(3);
    const { state, log: next } = await start();
    expect(state).toMatchObject({ damaged: [], lastIndex: 6, promisedLast: null, configurations: [{ index: 1 }] });
    expect(await next.read(1, 6, 1e6)).toEqual(written);
  });

  it("believes no ledger row that the chain does not prove", async () => {
    const { log, catalog } = await start();
    await log.append([write(entries(1, 4))]);
    await catalog.apply(entries(1, 4));
    await log.append([write([])]);
    await harness().drop(2);
    await harness().damageLedger(2);
    await expect(log.rebuild([2])).rejects.toMatchObject({ code: "damaged", details: { ledger: [2] } });
    expect((await start()).state).toMatchObject({ damaged: [2], lastIndex: 4, promisedLast: null });
  });

  it("gives up the vote when the record of its promises is damaged, and goes on from what it has proof of", async () => {
    const { log } = await start();
    await log.append([write(entries(1, 3, 4), { hardState: { epoch: 6, votedFor: "r2" } })]);
    await harness().damagePromises();
    const { state, log: next } = await start();
    expect(state).toMatchObject({ hardState: { epoch: 4, votedFor: null }, lastIndex: 3, voting: false });
    expect(state.lostReason).toContain("damaged");
    await next.append([write([entry(4, 7)], { hardState: { epoch: 7, votedFor: null } })]);
    expect((await start()).state).toMatchObject({ hardState: { epoch: 7 }, lastIndex: 4, voting: false });
  });

  it("writes what it promised anew with every append: what became of the row meanwhile is not believed", async () => {
    const { log } = await start();
    await log.append([write(entries(1, 3), { hardState: { epoch: 6, votedFor: "r2" } })]);
    await harness().damagePromises();
    await log.append([write([entry(4, 6)])]);
    expect((await start()).state).toMatchObject({
      hardState: { epoch: 6, votedFor: "r2" },
      lastIndex: 4,
      voting: true,
    });
  });

  it("does not take a lost record of promises for a new replica", async () => {
    const { log, catalog } = await start();
    await log.append([write(entries(1, 3))]);
    await catalog.apply(entries(1, 2));
    await log.append([write([])]);
    await harness().dropPromises();
    const { state } = await start();
    expect(state).toMatchObject({ voting: false, lastIndex: 3, applied: { index: 2 }, hardState: { epoch: 1 } });
    expect(state.lostReason).toContain("gone");
    expect((await start()).state.voting).toBe(false);
  });

  it("says at a boot that the applied state and the ledger contradict each other", async () => {
    const { log, catalog } = await start();
    await log.append([write(entries(1, 6))]);
    await catalog.apply(entries(1, 4));
    expect((await start()).state).toMatchObject({ tablesDamaged: null, applied: { index: 4 } });
    await harness().dropLedger(4);
    const { state } = await start();
    expect(state).toMatchObject({ applied: { index: 3 }, lastIndex: 6 });
    expect(state.tablesDamaged).toContain("applied is 4, the ledger ends at 3");
  });

  it("starts over: drops tables and log, keeps what was promised, and takes everything again", async () => {
    const { log, catalog } = await start();
    const written = [entry(1, 2, "config", "voters"), ...entries(2, 6, 2)];
    await log.append([write(written, { hardState: { epoch: 3, votedFor: "r2" } })]);
    await catalog.apply(written.slice(0, 4));
    const before = catalog.applied();
    await log.recordPeer({ peer: "r2", incarnation: "a", boot: 4 });
    await log.startOver();
    const next = await start();
    expect(next.state).toMatchObject({
      hardState: { epoch: 3, votedFor: "r2" },
      lastIndex: 0,
      promisedLast: 6,
      applied: { index: 0 },
      peers: [{ peer: "r2" }],
      tablesDamaged: null,
      voting: true,
    });
    await next.log.append([write(written)]);
    await next.catalog.apply(written.slice(0, 4));
    expect(next.catalog.applied()).toEqual(before);
    await next.log.mended();
    expect((await start()).state).toMatchObject({
      promisedLast: null,
      damaged: [],
      lastIndex: 6,
      applied: { index: 4 },
    });
  });
}
