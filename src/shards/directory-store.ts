/**
 * Owns a shard store in a folder: `b3/ab/<64 hex digits>`, `tmp/` for what is being written, `quarantine/` for evidence.
 *
 * An object appears by rename, after its bytes were hashed and made durable, so whatever is under `b3/` is whole even
 * after SIGKILL or power loss. That its name lasts takes a sync of its folder: with each put, or for many at once (`settle`), before
 * anything may rely on them. Many processes may share the folder.
 */
import { randomBytes } from "node:crypto";
import { readdir, rename, unlink, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseDigest, toHex, type Digest } from "../model/bytes.ts";
import { ShardpactError, isShardpactError } from "../model/errors.ts";
import { asyncFiles, blockingFiles, cachedFiles, type DirectoryFiles, type OpenedFile } from "./directory-files.ts";
import { checkPut, createObjectDigest } from "./object-digest.ts";
import { makeFolder } from "./make-folder.ts";
import { inParallel } from "./parallel.ts";
import { isWholeCopy } from "./stores/whole-copy.ts";
import { throwIfAborted } from "./stores/guard.ts";
import { removeStaleTemps, tempName } from "./temp-files.ts";
import type { ObjectHandle, ObjectInfo, PutOptions, ShardStore } from "./port.ts";

const SYNCS_IN_FLIGHT = 4;

export interface DirectoryOptions {
  /**
   * How files are worked on: without blocking (the default); in blocking calls, for a thread that does nothing else; or read in
   * blocking calls while they come from the page cache, for a thread that reads.
   */
  readonly calls?: "beside" | "blocking" | "cached";
}

/**
 * Opens (and makes, if need be) a store in a folder given as path or `file:` URL; clears away what dead writers left.
 * @throws `store_failed`
 */
export async function openDirectoryStore(
  urlOrPath: string | URL,
  { calls = "beside" }: DirectoryOptions = {},
): Promise<ShardStore> {
  const root = rootOf(urlOrPath);
  await failing(`opening the store ${root}`, async () => {
    for (const folder of ["b3", "tmp", "quarantine"]) await makeFolder(join(root, folder));
    await removeStaleTemps(join(root, "tmp"));
  });
  return directoryStore(root, calls === "cached" ? cachedFiles() : calls === "blocking" ? blockingFiles : asyncFiles);
}

function rootOf(urlOrPath: string | URL): string {
  const text = String(urlOrPath);
  if (text.startsWith("file:")) return fileURLToPath(text);
  if (/^[a-z][a-z0-9+.-]+:/i.test(text)) {
    throw new ShardpactError("invalid_argument", `'${text}' is not a folder`, { hint: "Give a path or a file: URL." });
  }
  return resolve(text);
}

function directoryStore(root: string, files: DirectoryFiles): ShardStore {
  const url = pathToFileURL(root).href;
  const pathOf = (digest: Digest) => {
    const hex = toHex(parseDigest(digest));
    return join(root, "b3", hex.slice(0, 2), hex);
  };
  let closed = false;
  const using = <T>(what: string, work: () => Promise<T>): Promise<T> => {
    if (closed) return Promise.reject(new ShardpactError("closed", `the store ${url} is closed`));
    return failing(`${what} in ${url}`, work);
  };
  const close = (): Promise<void> => {
    closed = true;
    return Promise.resolve();
  };
  const store: ShardStore = {
    url,
    spec: { kind: "directory", url },
    open: (digest, signal) =>
      using(`opening ${digest}`, async () => {
        throwIfAborted(signal);
        return await objectHandle(await files.open(pathOf(digest), "r"), `${digest} in ${url}`);
      }),
    stat: (digest) => using(`looking for ${digest}`, () => statObject(files, digest, pathOf(digest))),
    put: (digest, source, options = {}) =>
      using(`storing ${digest}`, () => putObject({ root, store, files }, digest, pathOf(digest), source, options)),
    settle: () => using("settling", () => syncNames(files, join(root, "b3"))),
    list: () => listObjects(root, files, using),
    quarantine: (digest, reason) =>
      using(`quarantining ${digest}`, () => setAside(root, files, pathOf(digest), reason)),
    close,
    [Symbol.asyncDispose]: close,
  };
  return store;
}

async function objectHandle(file: OpenedFile, what: string): Promise<ObjectHandle> {
  const { size } = await file.stat();
  let closing: Promise<void> | null = null;
  const close = () => (closing ??= Promise.resolve(file.close()));
  return {
    bytes: size,
    readInto: (target, position) =>
      failing(`reading ${what}`, async () => {
        let at = 0;
        while (at < target.byteLength) {
          const bytes = await file.read(target, at, position + at);
          if (bytes === 0) break;
          at += bytes;
        }
        return at;
      }),
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function statObject(files: DirectoryFiles, digest: Digest, path: string): Promise<ObjectInfo | null> {
  try {
    const found = await files.stat(path);
    return found.isFile() ? { digest, bytes: found.size } : null;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return null;
    throw error;
  }
}

interface Place {
  readonly root: string;
  readonly store: ShardStore;
  readonly files: DirectoryFiles;
}

async function putObject(
  { root, store, files }: Place,
  digest: Digest,
  path: string,
  source: AsyncIterable<Uint8Array>,
  options: PutOptions,
): Promise<"stored" | "present"> {
  const { context, bytes, onBytes, signal, lasts = "put" } = options;
  throwIfAborted(signal);
  const present = async (): Promise<"present"> => {
    if (lasts === "put") await syncFolder(files, dirname(path)); // whoever placed it may have died before this
    return "present";
  };
  if (bytes !== undefined && (await isWholeCopy(store, digest, bytes, options))) return await present();
  const temp = join(root, "tmp", tempName());
  const file = await files.open(temp, "wx");
  let isPlaced = false;
  try {
    const hash = createObjectDigest(context);
    let written = 0;
    try {
      for await (const chunk of source) {
        throwIfAborted(signal);
        hash.update(chunk);
        for (let at = 0; at < chunk.byteLength;) at += await file.write(chunk, at);
        written += chunk.byteLength;
        onBytes?.(chunk.byteLength);
      }
      checkPut(store.url, digest, hash.digest(), written);
      // Somebody else may have been first, and a size that was not given is known now.
      const { onBytes: _, ...quietly } = options;
      if (await isWholeCopy(store, digest, written, quietly)) return await present();
      await file.sync();
    } finally {
      await file.close();
    }
    const made = await place(files, temp, path);
    if (lasts === "put") await syncFolder(files, dirname(path));
    if (lasts === "put" && made) await syncFolder(files, dirname(dirname(path)));
    isPlaced = true;
    return "stored";
  } finally {
    if (!isPlaced) await unlink(temp).catch(() => undefined); // perhaps it was placed, and that is not known to last
  }
}

/** Renames into a folder that may have to be made; true when it was. The name lasts once the folder is synced. */
async function place(files: DirectoryFiles, from: string, to: string): Promise<boolean> {
  try {
    await files.rename(from, to);
    return false;
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
  await makeFolder(dirname(to));
  await files.rename(from, to);
  return true;
}

/** One sync of a folder for all names that came into it, whoever put them there. */
async function syncNames(files: DirectoryFiles, objects: string): Promise<void> {
  const prefixes = await readdir(objects);
  await inParallel(prefixes, SYNCS_IN_FLIGHT, (prefix) => syncFolder(files, join(objects, prefix)));
  await syncFolder(files, objects);
}

async function syncFolder(files: DirectoryFiles, path: string): Promise<void> {
  const folder = await files.open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

async function* listObjects(
  root: string,
  files: DirectoryFiles,
  using: <T>(what: string, work: () => Promise<T>) => Promise<T>,
): AsyncGenerator<ObjectInfo> {
  const prefixes = await using("listing", () => readdir(join(root, "b3")));
  for (const prefix of prefixes.sort()) {
    const names = await using("listing", () => readdir(join(root, "b3", prefix)));
    for (const name of names.sort()) {
      if (!/^[0-9a-f]{64}$/.test(name)) continue;
      const info = await using("listing", () => statObject(files, `b3:${name}`, join(root, "b3", prefix, name)));
      if (info) yield info;
    }
  }
}

async function setAside(root: string, files: DirectoryFiles, path: string, reason: string): Promise<void> {
  const kept = join(root, "quarantine", `${basename(path)}.${randomBytes(4).toString("hex")}`);
  try {
    await rename(path, kept);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return; // somebody else was first
    throw error;
  }
  await writeFile(`${kept}.reason.txt`, `${new Date().toISOString()} ${reason}\n`, { flush: true });
  await syncFolder(files, dirname(kept));
  await syncFolder(files, dirname(path));
}

/** Runs file work; what the file system says becomes `not_found` or `store_failed`. */
async function failing<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (isShardpactError(error)) throw error;
    const code = codeOf(error);
    const message = error instanceof Error ? error.message : String(error);
    if (code === "ENOENT") throw new ShardpactError("not_found", `${what}: not there`, { cause: error });
    throw new ShardpactError("store_failed", `${what}: ${message}`, {
      details: { code },
      cause: error,
      hint: code === "ENOSPC" ? "The disk is full." : "Check that the folder can be read and written.",
    });
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
