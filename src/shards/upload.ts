/**
 * Owns bringing a prepared shard into a store: its bytes and its segment index, each checked against its digest on the way.
 */
import { createReadStream } from "node:fs";
import type { ShardStore } from "./port.ts";
import type { PreparedShard } from "./shard-list.ts";

const CHUNK_BYTES = 1024 * 1024;

export interface UploadOptions {
  readonly signal?: AbortSignal;
  /** So many more of the shard's bytes are done, written or found whole; `entry.bytes` in all. */
  readonly onBytes?: (bytes: number) => void;
}

/**
 * Puts the index first, so that a shard that is there can be read. Objects that are there are read and not sent again:
 * a damaged copy is found and replaced for the price of the scan, and the version never stands on it.
 * @throws `shard_corrupt` when the file changed since it was scanned, `store_failed`, `aborted`
 */
export async function uploadShard(
  store: ShardStore,
  shard: PreparedShard,
  { signal, onBytes }: UploadOptions = {},
): Promise<"stored" | "present"> {
  const { entry, path } = shard;
  const index = await shard.readIndex();
  const aborting = signal ? { signal } : {};
  await store.put(entry.segmentIndex, once(index), { context: "segmentIndex", bytes: index.byteLength, ...aborting });
  let left = entry.bytes; // a copy that is read and found bad would count twice
  const count = (bytes: number): void => {
    const counted = Math.min(bytes, left);
    left -= counted;
    if (counted > 0) onBytes?.(counted);
  };
  return store.put(entry.digest, contents(path), { bytes: entry.bytes, onBytes: count, ...aborting });
}

/** Opens the file only when the first chunk is asked for. */
async function* contents(path: string): AsyncGenerator<Uint8Array> {
  yield* createReadStream(path, { highWaterMark: CHUNK_BYTES });
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
