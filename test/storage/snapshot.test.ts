import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { scriptedEntries } from "../contract/catalog-script.ts";
import { SCRIPTED, snapshotContract } from "../contract/snapshot.ts";
import { type StoreHarness, write } from "../contract/store-harness.ts";
import { crashMemoryDisk, createMemoryDisk, damageMemoryRecord, rowsIn } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import { tempDir } from "../support/temp-dir.ts";

async function makeHarness(): Promise<StoreHarness> {
  const disk = createMemoryDisk();
  return {
    open: async (identity = SCRIPTED) => openMemoryStores(disk, identity),
    damage: async (index) => damageMemoryRecord(disk, index),
    drop: async (index) => void disk.log.delete(index),
    breakConnections: async () => void (disk.failNext = "after"),
    close: async () => undefined,
  };
}

snapshotContract("memory", makeHarness, { flips: 300 });

describe("snapshots of the memory store", () => {
  const history = scriptedEntries(23, 80).slice(0, 80);

  async function booted(disk = createMemoryDisk()) {
    const stores = openMemoryStores(disk, SCRIPTED);
    await stores.log.boot();
    return { ...stores, disk };
  }

  it("never drops an entry whose apply a crash could take back (openraft 2116)", async () => {
    const { log, catalog, disk } = await booted();
    await log.append([write(history)]);
    await catalog.apply(history.slice(0, 50));
    await log.compactTo(50);
    crashMemoryDisk(disk);
    expect(await (await booted(disk)).log.boot()).toMatchObject({ applied: { index: 50 }, base: { index: 50 } });
  });

  it("is whole or not at all when the database fails in an install", async () => {
    const dir = await tempDir("snapshot");
    const path = join(dir.path, "a");
    const source = await booted();
    await source.catalog.apply(history);
    await source.catalog.exportSnapshot(path);
    for (const [fault, index] of [["before", 10] as const, ["after", 80] as const]) {
      const { log, catalog, disk } = await booted();
      await log.append([write(history.slice(0, 10))]);
      await catalog.apply(history.slice(0, 10));
      await log.append([write([])]);
      disk.failNext = fault;
      await expect(catalog.installSnapshot(path)).rejects.toMatchObject({ code: "unavailable" });
      crashMemoryDisk(disk);
      const state = await log.boot();
      expect([state.applied.index, state.lastIndex]).toEqual([index, index]);
    }
    await dir.remove();
  });

  it("names a replica whose rows are not what its history leads to", async () => {
    const dir = await tempDir("snapshot");
    const path = join(dir.path, "a");
    const source = await booted();
    await source.catalog.apply(history);
    await source.catalog.exportSnapshot(path);
    const { catalog, disk } = await booted();
    await catalog.apply(history.slice(0, 60));
    const versions = rowsIn(disk, "version");
    const [key, row] = [...versions][0] ?? [];
    if (key && row?.table === "version") versions.set(key, { ...row, message: "edited" });
    const error = { code: "replica_diverged", details: { table: "versions" } };
    await expect(catalog.installSnapshot(path)).rejects.toMatchObject(error);
    expect(catalog.applied().index).toBe(60);
    await dir.remove();
  });
});
