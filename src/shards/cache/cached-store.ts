/**
 * Owns reading remote stores through a cache folder: a piece is fetched once for all processes of the machine, then read
 * from the disk.
 *
 * A store like any other, only that nothing is put into it: what it gives is hashed by its reader every time. When that
 * finds damage, what is here of the object is set aside and fetched again, from the next store in line.
 */
import type { FileHandle } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import type { Digest } from "../../model/bytes.ts";
import { ShardpactError, isShardpactError } from "../../model/errors.ts";
import type { ObjectHandle, ObjectInfo, ShardStore } from "../port.ts";
import { throwIfAborted } from "../stores/guard.ts";
import { openPieceCache, type PieceCache } from "./piece-cache.ts";

/** What is fetched at once: the first batch of a shard needs no more than this of it. */
export const CACHE_PIECE_BYTES = 4 * 1024 * 1024;
/** Files of one open object that stay open. */
const FILES_KEPT = 4;
/** Objects of which it is remembered that a copy was bad. */
const SUSPECTS_MAX = 10_000;

/** At the end of a cache's URL: it is no place that another machine could read from. */
const CACHE_MARK = "#cache";

export function isCache({ url }: ShardStore): boolean {
  return url.endsWith(CACHE_MARK);
}

export interface CacheOptions {
  readonly dir: string;
  /** Of all pieces in the folder, whichever process placed them. */
  readonly bytesMax: number;
}

/** @param origins in order of preference; the caller closes them. @throws `store_failed` */
export async function openCachedStore(origins: readonly ShardStore[], options: CacheOptions): Promise<ShardStore> {
  const cache = await openPieceCache({
    ...options,
    isElsewhere: async (digest) => {
      for (const origin of origins) if (await origin.stat(digest).catch(() => null)) return true;
      return false;
    },
  });
  const url = pathToFileURL(options.dir).href + CACHE_MARK;
  /** How many copies of an object were bad: it is fetched from the store after those. */
  const bad = new Map<Digest, number>();
  let closed = false;

  function inOrder(digest: Digest): readonly ShardStore[] {
    const first = (bad.get(digest) ?? 0) % Math.max(1, origins.length);
    return [...origins.slice(first), ...origins.slice(0, first)];
  }

  async function openObject(digest: Digest, signal?: AbortSignal): Promise<ObjectHandle> {
    if (closed) throw new ShardpactError("closed", `the cache ${url} is closed`);
    throwIfAborted(signal);
    const sources = openSources(inOrder(digest), digest, signal);
    const known = await cache.size(digest);
    if (known !== null) return cachedObject(cache, digest, known, sources);
    const bytes = await sources.size();
    await cache.noteSize(digest, bytes);
    return cachedObject(cache, digest, bytes, sources);
  }

  const refuse = (what: string): Promise<never> =>
    Promise.reject(new ShardpactError("store_failed", `${what} in ${url}: a cache only holds what other stores hold`));
  const close = (): Promise<void> => {
    closed = true;
    return Promise.resolve();
  };
  return {
    url,
    open: openObject,
    async stat(digest): Promise<ObjectInfo | null> {
      if (closed) throw new ShardpactError("closed", `the cache ${url} is closed`);
      const bytes = await cache.size(digest);
      if (bytes !== null) return { digest, bytes };
      for (const origin of inOrder(digest)) {
        const found = await origin.stat(digest);
        if (found) return found;
      }
      return null;
    },
    put: () => refuse("storing"),
    async *list() {
      for (const digest of await cache.digests()) {
        const bytes = await cache.size(digest);
        if (bytes !== null) yield { digest, bytes };
      }
    },
    async quarantine(digest, reason) {
      bad.set(digest, (bad.get(digest) ?? 0) + 1);
      for (const oldest of bad.keys()) if (bad.size > SUSPECTS_MAX) bad.delete(oldest);
      await cache.quarantine(digest, reason);
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** The object in the stores that it may come from; one is opened when it is needed, and the next when that fails. */
interface Sources {
  size(): Promise<number>;
  read(target: Uint8Array, position: number): Promise<void>;
  close(): Promise<void>;
}

function openSources(stores: readonly ShardStore[], digest: Digest, signal: AbortSignal | undefined): Sources {
  const handles = new Map<ShardStore, Promise<ObjectHandle>>();
  /** Those before it have failed. */
  let first = 0;

  function opened(store: ShardStore): Promise<ObjectHandle> {
    const handle = handles.get(store) ?? store.open(digest, signal);
    handles.set(store, handle);
    return handle;
  }

  async function anyOf<T>(use: (handle: ObjectHandle) => Promise<T>): Promise<T> {
    let failure: unknown = new ShardpactError("not_found", `${digest} is in no store`);
    for (let at = first; at < stores.length; at++) {
      try {
        return await use(await opened(stores[at] as ShardStore));
      } catch (error) {
        if (isShardpactError(error, "aborted")) throw error;
        // A plain failure says more than an absence.
        if (!isShardpactError(error, "not_found") || isShardpactError(failure, "not_found")) failure = error;
        first = Math.max(first, at + 1);
      }
    }
    first = 0; // the next read tries them all again
    await close();
    throw failure;
  }

  async function close(): Promise<void> {
    const all = [...handles.values()];
    handles.clear();
    for (const handle of await Promise.allSettled(all)) if (handle.status === "fulfilled") await handle.value.close();
  }

  return {
    size: () => anyOf((handle) => Promise.resolve(handle.bytes)),
    read: (target, position) =>
      anyOf(async (handle) => {
        const got = await handle.readInto(target, position);
        if (got === target.byteLength) return;
        throw new ShardpactError("store_failed", `${digest}: ${got} of ${target.byteLength} bytes came at ${position}`);
      }),
    close,
  };
}

function cachedObject(cache: PieceCache, digest: Digest, bytes: number, sources: Sources): ObjectHandle {
  const files = new Map<number, Promise<FileHandle | null>>();
  const lengthOf = (piece: number) => Math.min(CACHE_PIECE_BYTES, bytes - piece * CACHE_PIECE_BYTES);

  async function readPiece(piece: number, target: Uint8Array, from: number): Promise<void> {
    const file = await openPiece(piece);
    if (file && (await file.read(target, 0, target.byteLength, from)).bytesRead === target.byteLength) return;
    if (cache.isFull) return sources.read(target, piece * CACHE_PIECE_BYTES + from); // no more than is asked for
    const fetched = await cache.fill({ digest, piece }, async () => {
      const all = new Uint8Array(lengthOf(piece));
      await sources.read(all, piece * CACHE_PIECE_BYTES);
      return all;
    });
    if (fetched) return target.set(fetched.subarray(from, from + target.byteLength));
    const placed = await openPiece(piece);
    if (placed && (await placed.read(target, 0, target.byteLength, from)).bytesRead === target.byteLength) return;
    // Evicted again at once, or its disk is bad: from where it came.
    await sources.read(target, piece * CACHE_PIECE_BYTES + from);
  }

  /** Files that are open can be evicted: their bytes stay until they are closed. */
  async function openPiece(piece: number): Promise<FileHandle | null> {
    const known = files.get(piece);
    files.delete(piece);
    const opening = known ?? cache.open({ digest, piece }, lengthOf(piece));
    files.set(piece, opening); // most recently used last
    const forget = (): void => {
      if (files.get(piece) === opening) files.delete(piece); // others may have found it since
    };
    try {
      const file = await opening;
      if (!file) forget();
      return file;
    } catch (error) {
      forget();
      throw error;
    }
  }

  /** Whoever reads next opens them anew: they are out of reach before the first is waited for. */
  async function closeOldest(keep: number): Promise<void> {
    const oldest = [...files].slice(0, Math.max(0, files.size - keep));
    for (const [piece] of oldest) files.delete(piece);
    for (const [, opening] of oldest) await (await opening.catch(() => null))?.close();
  }

  let reading = 0;
  let closed = false;
  const close = async (): Promise<void> => {
    closed = true;
    await closeOldest(0);
    await sources.close();
  };
  return {
    bytes,
    async readInto(target, position) {
      const length = Math.max(0, Math.min(target.byteLength, bytes - position));
      reading += 1;
      try {
        for (let at = 0; at < length;) {
          const piece = Math.floor((position + at) / CACHE_PIECE_BYTES);
          const from = position + at - piece * CACHE_PIECE_BYTES;
          const part = target.subarray(at, Math.min(length, at + CACHE_PIECE_BYTES - from));
          await readPiece(piece, part, from);
          at += part.byteLength;
        }
      } finally {
        reading -= 1;
        if (reading === 0) await closeOldest(closed ? 0 : FILES_KEPT); // while nobody reads from one of them
      }
      return length;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}
