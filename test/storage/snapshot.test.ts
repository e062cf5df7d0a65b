import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { scriptedEntries } from "../contract/catalog-script.ts";
import { SCRIPTED, snapshotContract } from "../contract/snapshot.ts";
import { type StoreHarness, write } from "../contract/store-harness.ts";
import {
  crashMemoryDisk,
  createMemoryDisk,
  damageMemoryPromises,
  damageMemoryRecord,
  rowsIn,
} from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import { openSnapshot } from "../../src/storage/snapshot/file.ts";
import { receiveSnapshot } from "../../src/storage/snapshot/receive.ts";
import { isFounding, refoundSnapshot } from "../../src/storage/snapshot/refound.ts";
import { hashAs } from "../../src/merkle/hash.ts";
import { formatDigest, utf8 } from "../../src/model/bytes.ts";
import { tempDir } from "../support/temp-dir.ts";

async function makeHarness(): Promise<StoreHarness> {
  const disk = createMemoryDisk();
  return {
    open: async (identity = SCRIPTED) => openMemoryStores(disk, identity),
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

describe("snapshots in chunks", () => {
  const history = scriptedEntries(31, 50).slice(0, 50);

  it("are sent and received in pieces of any size, once each, and refused when they are not what was named", async () => {
    const dir = await tempDir("snapshot");
    const [from, to] = [join(dir.path, "a"), join(dir.path, "b")];
    const stores = openMemoryStores(createMemoryDisk(), SCRIPTED);
    await stores.log.boot();
    await stores.catalog.apply(history);
    const info = await stores.catalog.exportSnapshot(from);
    await using source = await openSnapshot(from);
    const receive = async (spoil: boolean) => {
      await using sink = await receiveSnapshot(to, info);
      for (let size = 1; sink.offset < info.bytes; size = (size * 3) % 5_000) {
        const chunk = await source.chunk(sink.offset, size);
        if (spoil && sink.offset > 9_000) chunk[0] = (chunk[0] ?? 0) ^ 1;
        await sink.write(sink.offset + 1, chunk);
        await sink.write(sink.offset, chunk);
      }
      return await sink.finish();
    };
    await expect(receive(true)).rejects.toMatchObject({ code: "damaged" });
    await expect(openSnapshot(to)).rejects.toMatchObject({ code: "store_failed" });
    // What is there is not what was named, and nobody knows since when: it goes, and all comes again.
    await expect(receive(false)).rejects.toMatchObject({ code: "damaged" });
    await rm(`${to}.begun`);
    expect(await receive(false)).toEqual(info);
    expect(await readFile(to)).toEqual(await readFile(from));
    expect(await source.chunk(info.bytes, 10)).toHaveLength(0);
    await expect(source.chunk(info.bytes + 1, 10)).rejects.toMatchObject({ code: "invalid_argument" });
    await using unfinished = await receiveSnapshot(to, info);
    await expect(unfinished.finish()).rejects.toMatchObject({ code: "damaged" });
    await unfinished.write(0, new Uint8Array(9));
    await unfinished.close();
    await using another = await receiveSnapshot(to, info);
    expect(another.offset).toBe(9);
    await another.close();
    await using shorter = await receiveSnapshot(to, { ...info, bytes: 8 });
    expect(shorter.offset).toBe(0);
    await dir.remove();
  });

  it("found a new group as the next entry of the same ledger", async () => {
    const dir = await tempDir("snapshot");
    const [from, to] = [join(dir.path, "a"), join(dir.path, "b")];
    const old = openMemoryStores(createMemoryDisk(), SCRIPTED);
    await old.log.boot();
    await old.catalog.apply(history);
    const before = await old.catalog.exportSnapshot(from);
    const genesis = utf8("new voters");
    const after = await refoundSnapshot(from, to, genesis);
    const groupId = formatDigest(hashAs("genesis", genesis));
    expect(after).toMatchObject({ groupId, genesis, epoch: before.epoch + 1, applied: { index: 51 } });
    await expect(old.catalog.installSnapshot(to)).rejects.toMatchObject({ code: "group_forked" });
    const founded = openMemoryStores(createMemoryDisk(), { ...SCRIPTED, groupId });
    await founded.log.boot();
    await founded.catalog.installSnapshot(to);
    expect(await founded.catalog.chainAt(50)).toBe(before.applied.chain);
    const { base, configurations } = await founded.log.boot();
    expect(base).toEqual({ index: 51, epoch: after.epoch });
    expect(configurations).toEqual([{ index: 51, payload: genesis }]);
    for (const [path, founding] of [[from, false] as const, [to, true] as const]) {
      await using file = await openSnapshot(path);
      expect(await isFounding(file)).toBe(founding);
    }
    await dir.remove();
  });
});
