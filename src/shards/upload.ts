/**
 * Owns bringing a prepared shard into a store: its bytes and its segment index, each checked against its digest on the way.
 */
import { LIMITS } from "../model/limits.ts";
import { filePieces, type ReadKind } from "./file-reads.ts";
import type { Lasts, ShardStore } from "./port.ts";
import type { PreparedShard } from "./shard-list.ts";

/** A blocking read costs little: what it brought is still in the cache when it is hashed and written. */
const CHUNK_BYTES = { async: 8 * LIMITS.leafBytes, blocking: LIMITS.leafBytes };

export interface UploadOptions {
  readonly signal?: AbortSignal;
  /** So many more of the shard's bytes are done, written or found whole; `entry.bytes` in all. */
  readonly onBytes?: (bytes: number) => void;
  /** Default `async`. */
  readonly reads?: ReadKind;
  /** Of what is put. Default `put`. */
  readonly lasts?: Lasts;
}

export type Uploaded = "stored" | "present";

/**
 * Puts the index first, so that a shard that is there can be read. Objects that are there are read and not sent again:
 * a damaged copy is found and replaced for the price of the scan, and the version never stands on it.
 * @throws `shard_corrupt` when the file changed since it was scanned, `store_failed`, `aborted`
 */
export async function uploadShard(
  store: ShardStore,
  { entry, path, readIndex }: PreparedShard,
  { signal, onBytes, reads = "async", lasts = "put" }: UploadOptions = {},
): Promise<Uploaded> {
  const index = await readIndex();
  const options = { lasts, ...(signal ? { signal } : {}) };
  await store.put(entry.segmentIndex, once(index), { context: "segmentIndex", bytes: index.byteLength, ...options });
  let left = entry.bytes; // a copy that is read and found bad would count twice
  const count = (bytes: number): void => {
    const counted = Math.min(bytes, left);
    left -= counted;
    if (counted > 0) onBytes?.(counted);
  };
  const pieces = filePieces(path, CHUNK_BYTES[reads], reads);
  return store.put(entry.digest, pieces, { bytes: entry.bytes, onBytes: count, ...options });
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}
