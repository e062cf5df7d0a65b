/**
 * Owns opening a store a second time from its spec, in another thread. A new kind of store adds its case here.
 */
import { type DirectoryOptions, openDirectoryStore } from "./directory-store.ts";
import type { ShardStore, StoreSpec } from "./port.ts";

/** @throws what opening that kind of store throws */
export async function openStoreAgain(spec: StoreSpec, options: DirectoryOptions = {}): Promise<ShardStore> {
  switch (spec.kind) {
    case "directory":
      return openDirectoryStore(spec.url, options);
  }
}
