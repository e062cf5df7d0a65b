/**
 * Owns bringing all prepared shards into a store: on all cores, where there are threads and they can open the store.
 */
import { inParallel } from "./parallel.ts";
import type { ShardStore } from "./port.ts";
import type { PreparedVersion } from "./prepare.ts";
import { type Uploaded, type UploadOptions, uploadShard } from "./upload.ts";

const UPLOADS_IN_FLIGHT = 4;
/** From so many shards on their names are made to last together: for fewer it takes longer than with each. */
const SETTLED_FROM = 128;

/**
 * Brings all shards into the store; returns how many were not there, or not whole. Once it has ended, all of them last.
 * Errors as `uploadShard`; the first ends all.
 */
export async function uploadAll(
  store: ShardStore,
  { shards, threads }: Pick<PreparedVersion, "shards" | "threads">,
  options: Omit<UploadOptions, "lasts"> = {},
): Promise<number> {
  const lasts = store.settle && shards.count >= SETTLED_FROM ? "settled" : "put";
  let stored = 0;
  const count = (uploaded: Uploaded): void => {
    if (uploaded === "stored") stored++;
  };
  const { spec } = store;
  if (!spec || threads === null) {
    await inParallel(shards, UPLOADS_IN_FLIGHT, async (shard) =>
      count(await uploadShard(store, shard, { ...options, lasts })),
    );
  } else {
    await inParallel(shards, Math.max(UPLOADS_IN_FLIGHT, threads.calls), async ({ entry, path, readIndex }) => {
      count(await threads.upload({ spec, entry, path, index: await readIndex(), lasts }, options.onBytes));
    });
  }
  if (lasts === "settled") await store.settle?.();
  return stored;
}
