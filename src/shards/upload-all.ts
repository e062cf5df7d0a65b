/**
 * Owns bringing all prepared shards into a store: on all cores, where there are threads and they can open the store.
 */
import { inParallel } from "./parallel.ts";
import type { ShardStore } from "./port.ts";
import type { PreparedVersion } from "./prepare.ts";
import { type Uploaded, type UploadOptions, uploadShard } from "./upload.ts";

const UPLOADS_IN_FLIGHT = 4;

/** Brings all shards into the store; returns how many were not there, or not whole. Errors as `uploadShard`; the first ends all. */
export async function uploadAll(
  store: ShardStore,
  { shards, threads }: Pick<PreparedVersion, "shards" | "threads">,
  options: UploadOptions = {},
): Promise<number> {
  let stored = 0;
  const count = (uploaded: Uploaded): void => {
    if (uploaded === "stored") stored++;
  };
  const { spec } = store;
  if (!spec || threads === null) {
    await inParallel(shards, UPLOADS_IN_FLIGHT, async (shard) => count(await uploadShard(store, shard, options)));
    return stored;
  }
  await inParallel(shards, Math.max(UPLOADS_IN_FLIGHT, threads.calls), async ({ entry, path, readIndex }) => {
    count(await threads.upload({ spec, entry, path, index: await readIndex() }, options.onBytes));
  });
  return stored;
}
