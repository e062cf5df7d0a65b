/**
 * Owns telling whether a store's copy of an object is whole: a copy of the right size may be damaged since it was put, so
 * it is read and hashed.
 */
import type { Digest } from "../../model/bytes.ts";
import { isShardpactError } from "../../model/errors.ts";
import { createObjectDigest } from "../object-digest.ts";
import type { PutOptions, ShardStore } from "../port.ts";
import { throwIfAborted } from "./guard.ts";

const READ_BYTES = 1024 * 1024;

/** False also when the copy can't be read: no copy to rely on. @throws `aborted`, `closed` */
export async function isWholeCopy(
  store: Pick<ShardStore, "stat" | "open">,
  digest: Digest,
  bytes: number,
  { context, onBytes, signal }: PutOptions,
): Promise<boolean> {
  if ((await store.stat(digest))?.bytes !== bytes) return false;
  const hash = createObjectDigest(context);
  const buffer = new Uint8Array(Math.min(READ_BYTES, bytes));
  try {
    await using handle = await store.open(digest, signal);
    for (let at = 0; at < bytes;) {
      throwIfAborted(signal);
      const read = await handle.readInto(buffer.subarray(0, Math.min(buffer.byteLength, bytes - at)), at);
      if (read === 0) break;
      hash.update(buffer.subarray(0, read));
      onBytes?.(read);
      at += read;
    }
  } catch (error) {
    if (isShardpactError(error, "store_failed") || isShardpactError(error, "not_found")) return false;
    throw error;
  }
  return hash.digest() === digest;
}
