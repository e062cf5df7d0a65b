import { catalogStoreContract } from "../contract/catalog-store.ts";
import { logStoreContract } from "../contract/log-store.ts";
import { IDENTITY, type StoreHarness } from "../contract/store-harness.ts";
import { createMemoryDisk, damageMemoryRecord } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";

async function makeHarness(): Promise<StoreHarness> {
  const disk = createMemoryDisk();
  return {
    open: async (identity = IDENTITY) => openMemoryStores(disk, identity),
    damage: async (index) => damageMemoryRecord(disk, index),
    drop: async (index) => void disk.log.delete(index),
    breakConnections: async () => void (disk.failNext = "after"),
    close: async () => undefined,
  };
}

logStoreContract("memory", makeHarness);
catalogStoreContract("memory", makeHarness);
