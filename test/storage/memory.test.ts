import { describe, expect, it } from "vitest";
import type { Entry } from "../../src/consensus/engine.ts";
import { checksumOf, foldWrites, isIntact } from "../../src/storage/log-record.ts";
import type { LogWrite } from "../../src/storage/port.ts";
import { scriptedEntries } from "../contract/catalog-script.ts";
import { catalogStoreContract } from "../contract/catalog-store.ts";
import { logStoreContract } from "../contract/log-store.ts";
import { entries, entry, IDENTITY, seededRandom, type StoreHarness, write } from "../contract/store-harness.ts";
import {
  crashMemoryDisk,
  createMemoryDisk,
  damageMemoryPromises,
  damageMemoryRecord,
  rowsIn,
} from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";

async function makeHarness(): Promise<StoreHarness> {
  const disk = createMemoryDisk();
  return {
    open: async (identity = IDENTITY) => openMemoryStores(disk, identity),
    damage: async (index) => damageMemoryRecord(disk, index),
    drop: async (index) => void disk.log.delete(index),
    damageLedger: async (index) => {
      const row = disk.ledger[index - 1];
      if (row) disk.ledger[index - 1] = { ...row, payload: Uint8Array.of(...row.payload, 0) };
    },
    dropLedger: async (index) => void disk.ledger.splice(index - 1, 1),
    damageObjects: async () => {
      for (const [key, row] of rowsIn(disk, "page")) {
        if (row.table === "page") rowsIn(disk, "page").set(key, { ...row, bytes: row.bytes.map((byte) => byte ^ 1) });
      }
    },
    damagePromises: async () => damageMemoryPromises(disk),
    dropPromises: async () => void (disk.state = null),
    breakConnections: async () => void (disk.failNext = "after"),
    close: async () => undefined,
  };
}

logStoreContract("memory", makeHarness);
catalogStoreContract("memory", makeHarness);

describe("memory disk", () => {
  it("loses the applies since the last append in a crash, and replays them to the same state", async () => {
    const disk = createMemoryDisk();
    const { log, catalog } = openMemoryStores(disk, IDENTITY);
    await log.boot();
    const history = scriptedEntries(31, 80);
    await log.append([write(history)]);
    await catalog.apply(history.slice(0, 20));
    await log.append([write([], { hardState: { epoch: 9, votedFor: null } })]);
    const durable = catalog.applied();
    for (const one of history.slice(20, 70)) await catalog.apply([one]);
    const whole = catalog.applied();
    crashMemoryDisk(disk);
    const next = openMemoryStores(disk, IDENTITY);
    expect((await next.log.boot()).applied).toEqual(durable);
    await next.catalog.apply(history.slice(20, 70));
    expect(next.catalog.applied()).toEqual(whole);
  });

  it("loses an answer with or without the write", async () => {
    for (const [fault, lastIndex] of [
      ["before", 0],
      ["after", 2],
    ] as const) {
      const disk = createMemoryDisk();
      const { log } = openMemoryStores(disk, IDENTITY);
      await log.boot();
      disk.failNext = fault;
      await expect(log.append([write(entries(1, 2))])).rejects.toMatchObject({ code: "unavailable" });
      expect((await log.boot()).lastIndex).toBe(lastIndex);
    }
  });
});

describe("log records", () => {
  it("has checksums that depend on index, epoch, kind and payload", () => {
    const record = entry(7, 3);
    const others = [
      entry(8, 3, "command", "entry 7"),
      entry(7, 4),
      { ...record, kind: "config" as const },
      entry(7, 3, "command", "x"),
    ];
    const checksum = checksumOf(record);
    expect(isIntact(record, checksum)).toBe(true);
    for (const other of others) expect(isIntact(other, checksum)).toBe(false);
  });

  it("folds any writes to what they come to one by one", () => {
    const random = seededRandom(3);
    for (let round = 0; round < 300; round++) {
      let model = new Map<number, Entry>();
      const writes: LogWrite[] = [];
      for (let n = 0; n < 5; n++) {
        const removeFrom = random() < 0.4 ? 1 + Math.floor(random() * 8) : null;
        if (removeFrom !== null) model = new Map([...model].filter(([index]) => index < removeFrom));
        // Anywhere in the log, or after its end, never leaving a hole.
        const first = 1 + Math.floor(random() * (model.size + 1));
        const put = Array.from({ length: Math.floor(random() * 4) }, (_, i) => entry(first + i, n));
        for (const one of put) model.set(one.index, one);
        writes.push(write(put, { removeFrom }));
      }
      const folded = foldWrites(writes, 0);
      expect(new Map(folded.put.map((one) => [one.index, one]))).toEqual(model);
      expect(folded.put.map(({ index }) => index)).toEqual([...model.keys()].toSorted((a, b) => a - b));
    }
  });
});
