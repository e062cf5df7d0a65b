/**
 * Owns the objects that a client has proven by their digest: what has a digest never changes, so it is fetched once.
 *
 * A kind is part of the name: the same bytes have another digest as another kind. Every caller gets a copy: what one of
 * them writes to it stays unproven for all others.
 */
import type { Digest } from "../model/bytes.ts";
import type { ObjectKind } from "../model/commands.ts";
import { LIMITS } from "../model/limits.ts";

export interface ObjectCache {
  get(kind: ObjectKind, digest: Digest): Uint8Array | null;
  /** The bytes hash to the digest: the caller has checked. */
  put(kind: ObjectKind, digest: Digest, bytes: Uint8Array): void;
}

/** Drops what was not asked for the longest. */
export function createObjectCache(bytesMax: number = LIMITS.clientObjectsBytesMax): ObjectCache {
  const kept = new Map<string, Uint8Array>();
  let total = 0;

  function drop(key: string): void {
    total -= kept.get(key)?.byteLength ?? 0;
    kept.delete(key);
  }

  return {
    get(kind, digest) {
      const key = `${kind} ${digest}`;
      const bytes = kept.get(key);
      if (bytes === undefined) return null;
      kept.delete(key);
      kept.set(key, bytes);
      return bytes.slice();
    },
    put(kind, digest, bytes) {
      const key = `${kind} ${digest}`;
      drop(key);
      if (bytes.byteLength > bytesMax) return;
      kept.set(key, bytes.slice());
      total += bytes.byteLength;
      for (const oldest of kept.keys()) {
        if (total <= bytesMax) return;
        drop(oldest);
      }
    },
  };
}
