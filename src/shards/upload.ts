/**
 * Owns bringing a prepared shard into a store: its bytes and its segment index, each checked against its digest on the way.
 */
import { createReadStream } from "node:fs";
import type { PreparedShard } from "./prepare.ts";
import type { ShardStore } from "./port.ts";

const CHUNK_BYTES = 1024 * 1024;

/**
 * Puts the index first, so that a shard that is there can be read. Objects that are there already are not sent again.
 * @throws `shard_corrupt` when the file changed since it was scanned, `store_failed`, `aborted`
 */
export async function uploadShard(
  store: ShardStore,
  shard: PreparedShard,
  signal?: AbortSignal,
): Promise<"stored" | "present"> {
  const { entry, path, index } = shard;
  const aborting = signal ? { signal } : {};
  await store.put(entry.segmentIndex, once(index), { context: "segmentIndex", bytes: index.byteLength, ...aborting });
  return store.put(entry.digest, contents(path), { bytes: entry.bytes, ...aborting });
}

/** Opens the file only when the first chunk is asked for. */
async function* contents(path: string): AsyncGenerator<Uint8Array> {
  yield* createReadStream(path, { highWaterMark: CHUNK_BYTES });
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
