/**
 * Owns a cache folder: pieces of objects, under a limit of bytes that all processes of this machine keep together.
 *
 *   b3/<hex>/size, b3/<hex>/<n>   what is known of an object; a piece appears by rename, so it has its bytes or is absent
 *   tmp/ locks/ quarantine/       being written; being fetched or evicted; bad copies with the reason, a few
 *
 * Nothing here is believed: readers hash what they get, and a piece that a power loss tore is found like any other damage.
 * So nothing is synced, and a cache that was killed at any moment is a cache.
 */
import { randomBytes } from "node:crypto";
import {
  type FileHandle,
  mkdir,
  open,
  readFile,
  readdir,
  rename,
  rm,
  rmdir,
  stat,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import type { Digest } from "../../model/bytes.ts";
import { isShardpactError, ShardpactError } from "../../model/errors.ts";
import { LIMITS } from "../../model/limits.ts";
import { makeFolder } from "../make-folder.ts";
import { removeStaleTemps, tempName } from "../temp-files.ts";
import { digestOf, hexOf } from "../stores/guard.ts";
import { withFileLock } from "./file-lock.ts";

/** A piece that was used within this time is not marked again: marking costs a system call. */
const TOUCH_EVERY_MS = 30_000;
/** After eviction, so much of the limit is in use: the next one is not needed at once. */
const EVICT_TO = 0.9;
/** What one process may place before it counts again what others placed. */
const RECOUNT_SHARE = 1 / 64;
const QUARANTINED_MAX = 16;
/** After a piece found no room, or its disk took none, nothing is tried again for so long. */
const FULL_MS = 5_000;
const FOLDERS = ["b3", "tmp", "locks", "quarantine"];

export interface PieceKey {
  readonly digest: Digest;
  readonly piece: number;
}

export interface PieceCache {
  readonly dir: string;
  /** Whether there was no room a moment ago: then whole pieces are not worth fetching. */
  readonly isFull: boolean;
  /** The piece's file, open for reading; null when it isn't here with `bytes` bytes. The caller closes it. */
  open(key: PieceKey, bytes: number): Promise<FileHandle | null>;
  /**
   * Sees to it that the piece is here, fetched by one process for all: others wait. Resolves with the bytes when this call
   * fetched them; null when somebody else did. What finds no room is not kept.
   */
  fill(key: PieceKey, fetch: () => Promise<Uint8Array>): Promise<Uint8Array | null>;
  /** Size of an object, when it was noted. */
  size(digest: Digest): Promise<number | null>;
  noteSize(digest: Digest, bytes: number): Promise<void>;
  /** Takes all pieces of an object away, and keeps them as evidence for a while. */
  quarantine(digest: Digest, reason: string): Promise<void>;
  digests(): Promise<readonly Digest[]>;
}

export interface PieceCacheOptions {
  readonly dir: string;
  readonly bytesMax: number;
  /** Only what is known to lie elsewhere may be evicted. */
  isElsewhere(digest: Digest): Promise<boolean>;
}

interface Held {
  readonly path: string;
  readonly digest: Digest;
  readonly bytes: number;
  readonly usedMs: number;
}

/** Makes the folder if need be, and clears away what dead processes left. @throws ShardpactError `store_failed` */
export async function openPieceCache({ dir, bytesMax, isElsewhere }: PieceCacheOptions): Promise<PieceCache> {
  try {
    await makeFolders(dir);
    await removeStaleTemps(join(dir, "tmp"));
  } catch (cause) {
    if (isShardpactError(cause)) throw cause;
    throw new ShardpactError("store_failed", `the cache ${dir} cannot be used: ${(cause as Error).message}`, {
      details: { dir },
      hint: "Name a folder that this process may write to, or none: reading goes on without a cache.",
      cause,
    });
  }
  const folderOf = (digest: Digest) => join(dir, "b3", hexOf(digest));
  const lockOf = (name: string) => ({ path: join(dir, "locks", name), scratch: join(dir, "tmp") });
  const pathOf = ({ digest, piece }: PieceKey) => join(folderOf(digest), String(piece));
  /** Bytes that lay here at the last count, what this process placed since, and what it is placing. */
  let counted: number | null = null;
  let placed = 0;
  let underWay = 0;
  let fullUntilMs = 0;

  async function place(key: PieceKey, bytes: Uint8Array): Promise<void> {
    let room = 0;
    try {
      if (!(await makeRoom(bytes.byteLength))) return;
      room = bytes.byteLength;
      await putFile(folderOf(key.digest), pathOf(key), bytes);
      placed += bytes.byteLength;
    } catch {
      noteFull(); // a full or broken disk: the bytes are here all the same
    } finally {
      underWay -= room;
    }
  }

  function noteFull(): void {
    fullUntilMs = performance.now() + FULL_MS;
  }

  /** The whole folder may be deleted at any time: then it is made again. */
  async function putFile(folder: string, path: string, bytes: Uint8Array | string): Promise<void> {
    await putFileOnce(folder, path, bytes).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
      await makeFolders(dir);
      counted = null;
      await putFileOnce(folder, path, bytes);
    });
  }

  async function putFileOnce(folder: string, path: string, bytes: Uint8Array | string): Promise<void> {
    const temp = join(dir, "tmp", tempName());
    try {
      await writeFile(temp, bytes);
      await mkdir(folder, { recursive: true });
      // An eviction may have removed the folder just now.
      await rename(temp, path).catch(async () => {
        await mkdir(folder, { recursive: true });
        await rename(temp, path);
      });
    } catch (error) {
      await rm(temp, { force: true });
      throw error;
    }
  }

  /** Where there is room it is taken, until the piece lies there. */
  async function makeRoom(bytes: number): Promise<boolean> {
    if (bytes > bytesMax * EVICT_TO) {
      noteFull();
      return false;
    }
    if (counted === null || placed > bytesMax * RECOUNT_SHARE || counted + placed + underWay + bytes > bytesMax) {
      await withFileLock(lockOf("evict"), LIMITS.storeRequestTimeoutMs, () => evict(bytes));
    }
    const fits = (counted ?? 0) + placed + underWay + bytes <= bytesMax;
    if (fits) underWay += bytes;
    return fits;
  }

  /** Counts what is here, and removes what was not used for longest until `bytes` more fit, beside what is under way. */
  async function evict(bytes: number): Promise<void> {
    const placedBefore = placed;
    const held = (await listHeld(join(dir, "b3")).catch(() => [])).sort((a, b) => a.usedMs - b.usedMs);
    let total = held.reduce((sum, piece) => sum + piece.bytes, 0);
    const elsewhere = new Map<Digest, boolean>();
    if (total + underWay + bytes > bytesMax) {
      for (const piece of held) {
        if (total + underWay + bytes <= bytesMax * EVICT_TO) break;
        let mayGo = elsewhere.get(piece.digest);
        if (mayGo === undefined) {
          mayGo = await isElsewhere(piece.digest);
          elsewhere.set(piece.digest, mayGo);
        }
        if (!mayGo) continue;
        await rm(piece.path, { force: true });
        total -= piece.bytes;
      }
      await removeEmpty(join(dir, "b3"), elsewhere.keys());
    }
    counted = total;
    placed -= placedBefore; // what came since may be in the count as well: rather too much than too little
    if (total + bytes > bytesMax) noteFull(); // nothing more may go
  }

  return {
    dir,
    get isFull() {
      return performance.now() < fullUntilMs;
    },
    async open(key, bytes) {
      const file = await open(pathOf(key), "r").catch(() => null);
      if (!file) return null;
      const { size, mtimeMs } = await file.stat();
      const nowMs = Date.now();
      if (size === bytes) {
        if (nowMs - mtimeMs > TOUCH_EVERY_MS)
          await utimes(pathOf(key), nowMs / 1000, nowMs / 1000).catch(() => undefined);
        return file;
      }
      await file.close();
      await rm(pathOf(key), { force: true });
      return null;
    },
    fill: (key, fetch) =>
      withFileLock(lockOf(`${hexOf(key.digest)}.${key.piece}`), LIMITS.storeRequestTimeoutMs, async () => {
        if (await stat(pathOf(key)).catch(() => null)) return null; // somebody else was first
        const bytes = await fetch();
        await place(key, bytes);
        return bytes;
      }),
    async size(digest) {
      const text = await readFile(join(folderOf(digest), "size"), "utf8").catch(() => "");
      return /^\d{1,16}$/.test(text) ? Number(text) : null;
    },
    async noteSize(digest, bytes) {
      await putFile(folderOf(digest), join(folderOf(digest), "size"), String(bytes)).catch(() => undefined);
    },
    async quarantine(digest, reason) {
      const kept = join(dir, "quarantine", `${hexOf(digest)}.${randomBytes(4).toString("hex")}`);
      try {
        await rename(folderOf(digest), kept);
      } catch {
        return; // nothing of it is here
      }
      await writeFile(join(kept, "reason.txt"), `${new Date().toISOString()} ${reason}\n`).catch(() => undefined);
      await keepNewest(join(dir, "quarantine"), QUARANTINED_MAX);
    },
    async digests() {
      return (await readdir(join(dir, "b3"))).flatMap((name) => digestOf(name) ?? []).sort();
    },
  };
}

async function makeFolders(dir: string): Promise<void> {
  for (const folder of FOLDERS) await makeFolder(join(dir, folder));
}

async function listHeld(root: string): Promise<Held[]> {
  const held: Held[] = [];
  for (const name of await readdir(root)) {
    const digest = digestOf(name);
    if (!digest) continue;
    for (const file of await readdir(join(root, name)).catch(() => [])) {
      const path = join(root, name, file);
      const info = file === "size" ? null : await stat(path).catch(() => null);
      if (info) held.push({ path, digest, bytes: info.size, usedMs: info.mtimeMs });
    }
  }
  return held;
}

/** Folders of which nothing but the size is left. */
async function removeEmpty(root: string, digests: Iterable<Digest>): Promise<void> {
  for (const digest of digests) {
    const folder = join(root, hexOf(digest));
    const left = await readdir(folder).catch(() => []);
    if (left.some((file) => file !== "size")) continue;
    await rm(join(folder, "size"), { force: true });
    await rmdir(folder).catch(() => undefined); // a piece came in between
  }
}

async function keepNewest(folder: string, count: number): Promise<void> {
  const entries = await Promise.all(
    (await readdir(folder)).map(async (name) => {
      const path = join(folder, name);
      return { path, madeMs: (await stat(path).catch(() => null))?.ctimeMs ?? 0 };
    }),
  );
  const old = entries.sort((a, b) => b.madeMs - a.madeMs).slice(count);
  for (const { path } of old) await rm(path, { recursive: true, force: true });
}
