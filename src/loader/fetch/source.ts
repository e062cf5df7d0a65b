/**
 * Owns what a loader reads from, opened once: the layout of its selection, open shards, verified blocks.
 */
import type { ConfirmedVersion } from "../../client/types.ts";
import { schemaFromCanonical } from "../../shards/schema.ts";
import type { LeafHasher } from "../../shards/reader.ts";
import type { BatchShape } from "../batch.ts";
import { bindColumn } from "../columns/source.ts";
import type { LoaderPlan } from "../plan.ts";
import { createBlockCache, type BlockCache } from "./block-cache.ts";
import { loadLayout } from "./layout.ts";
import { createLocator, type Locator } from "./locate.ts";
import { createShardPool } from "./shard-pool.ts";

export interface Source {
  readonly locator: Locator;
  readonly cache: BlockCache;
  /** Forgets all verified bytes, as between epochs. */
  clear(): Promise<void>;
  close(): Promise<void>;
}

/** @param signal for as long as the source lives */
export async function openSource(
  version: ConfirmedVersion,
  plan: LoaderPlan,
  shape: BatchShape,
  signal: AbortSignal,
  hasher: LeafHasher | undefined,
): Promise<Source> {
  const layout = await loadLayout(version, plan.split, signal);
  const schema = schemaFromCanonical(version.schema);
  const shards = createShardPool({ version, schema, signal, ...(hasher ? { hasher } : {}) });
  const cache = createBlockCache({
    bytesMax: plan.memoryMaxBytes,
    bytesKept: plan.memoryKeptBytes,
    blocksKept: 2 * plan.blocksOpen + 2,
    read: async (segment, buffer) => {
      const batch = await shards.read(segment, buffer);
      return shape.plans.map((column) => bindColumn(column, batch));
    },
  });
  return {
    locator: createLocator(layout, (shard) => shards.open(shard)),
    cache,
    clear: async () => {
      cache.clear();
      await shards.forget();
    },
    close: async () => {
      await cache.close();
      await shards.close();
    },
  };
}
