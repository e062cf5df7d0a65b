/**
 * Owns opening a replica's stores over a `MemoryDisk`, for tests, the simulator and in-process demonstrations.
 */
import { ShardpactError } from "../../model/errors.ts";
import type { ReplicaStores, StoreIdentity } from "../port.ts";
import { createMemoryCatalogStore } from "./catalog-store.ts";
import type { MemoryDisk, MemorySession } from "./disk.ts";
import { createMemoryLogStore } from "./log-store.ts";

/** Like `openPostgresStores`: nothing can be written before `log.boot()`, and a later boot on the disk fences this one. */
export function openMemoryStores(disk: MemoryDisk, identity: StoreIdentity): ReplicaStores {
  const lost = new ShardpactError("unavailable", `replica ${identity.replica}: the disk is open but not booted`);
  const session: MemorySession = {
    disk,
    identity,
    boot: 0,
    hardState: { epoch: 0, votedFor: null },
    lost,
    closed: false,
  };
  const close = async (): Promise<void> => {
    session.closed = true;
    session.lost = new ShardpactError("closed", `the stores of replica ${identity.replica} are closed`);
  };
  return {
    log: createMemoryLogStore(session, close),
    catalog: createMemoryCatalogStore(session, close),
    close,
    [Symbol.asyncDispose]: close,
  };
}
