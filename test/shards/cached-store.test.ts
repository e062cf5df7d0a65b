import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { type Digest, bytesEqual, formatDigest } from "../../src/model/bytes.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import { CACHE_PIECE_BYTES, openCachedStore } from "../../src/shards/cache/cached-store.ts";
import { openDirectoryStore } from "../../src/shards/directory-store.ts";
import type { ShardStore } from "../../src/shards/port.ts";
import { openShard } from "../../src/shards/reader.ts";
import { openHttpStore } from "../../src/shards/stores/http-store.ts";
import { someBytes } from "../contract/shard-store.ts";
import { openFiles } from "../support/open-files.ts";
import { serveFolder, type StaticServer } from "../support/static-server.ts";
import { tempDir } from "../support/temp-dir.ts";
import { bytesOf, publishFile, wideBatches, writeArrowJs } from "./support.ts";

const MiB = 1024 * 1024;

interface Remote extends AsyncDisposable {
  readonly dir: string;
  readonly cacheDir: string;
  readonly files: ShardStore;
  readonly server: StaticServer;
  readonly origin: ShardStore;
}

async function remote(): Promise<Remote> {
  const folder = await tempDir("cache");
  const files = await openDirectoryStore(join(folder.path, "origin"));
  const server = await serveFolder(join(folder.path, "origin"));
  return {
    ...{ dir: folder.path, cacheDir: join(folder.path, "cache"), files, server },
    origin: openHttpStore(server.url),
    async [Symbol.asyncDispose]() {
      await server.close();
      await folder.remove();
    },
  };
}

async function putObject(store: ShardStore, bytes: Uint8Array): Promise<Digest> {
  const digest = formatDigest(hashBytes(bytes));
  await store.put(digest, [bytes] as unknown as AsyncIterable<Uint8Array>);
  return digest;
}

async function readAll(store: ShardStore, digest: Digest): Promise<Uint8Array> {
  await using handle = await store.open(digest);
  const out = new Uint8Array(handle.bytes);
  const reads: Promise<number>[] = [];
  for (let at = 0; at < out.byteLength; at += 300_000) reads.push(handle.readInto(out.subarray(at, at + 300_000), at));
  await Promise.all(reads);
  return out;
}

const pieceFile = (cacheDir: string, digest: Digest, piece: number) =>
  join(cacheDir, "b3", digest.slice(3), String(piece));

async function cachedBytes(cacheDir: string): Promise<number> {
  let total = 0;
  for (const name of await readdir(join(cacheDir, "b3"))) {
    for (const file of await readdir(join(cacheDir, "b3", name))) {
      if (file !== "size") total += (await stat(join(cacheDir, "b3", name, file))).size;
    }
  }
  return total;
}

it("fetches a piece once, and reads from the disk when the store is gone", async () => {
  await using r = await remote();
  const bytes = someBytes(9 * MiB, 1);
  const digest = await putObject(r.files, bytes);
  await using cache = await openCachedStore([r.origin], { dir: r.cacheDir, bytesMax: 64 * MiB });
  {
    await using handle = await cache.open(digest);
    expect(await handle.readInto(new Uint8Array(1_000), 5 * MiB)).toBe(1_000);
    expect(r.server.counts.bytes).toBe(CACHE_PIECE_BYTES);
  }
  expect(bytesEqual(await readAll(cache, digest), bytes)).toBe(true);
  expect(r.server.counts.bytes).toBe(9 * MiB);
  await r.server.close();
  expect(bytesEqual(await readAll(cache, digest), bytes)).toBe(true);
  expect(await cache.stat(digest)).toEqual({ digest, bytes: 9 * MiB });
  await expect(cache.put(digest, [] as unknown as AsyncIterable<Uint8Array>)).rejects.toMatchObject({
    code: "store_failed",
  });
});

it("closes every file that it opened, also when many reads look for one piece while it is fetched", async () => {
  await using r = await remote();
  const bytes = someBytes(33 * MiB, 4);
  const digest = await putObject(r.files, bytes);
  await using cache = await openCachedStore([r.origin], { dir: r.cacheDir, bytesMax: 16 * MiB });
  const before = openFiles();
  // Of the first piece nothing is read before.
  let late: Promise<unknown>;
  {
    await using handle = await cache.open(digest);
    const part = new Uint8Array(60_000);
    const starts = Array.from(
      { length: 500 },
      (_, i) => CACHE_PIECE_BYTES + ((i * 7_919_777) % (bytes.byteLength - CACHE_PIECE_BYTES - part.byteLength)),
    );
    for (let at = 0; at < starts.length; at += 100) {
      const reads = starts.slice(at, at + 100).map(async (from) => {
        const target = new Uint8Array(part.byteLength);
        expect(await handle.readInto(target, from)).toBe(target.byteLength);
        expect(bytesEqual(target, bytes.subarray(from, from + target.byteLength))).toBe(true);
      });
      await Promise.all(reads);
      expect(openFiles() - before).toBeLessThanOrEqual(4);
    }
    // Closed while one fetches a piece and others wait for it, to read it from its file then.
    late = Promise.allSettled([0, 1, 2].map((i) => handle.readInto(new Uint8Array(1000), MiB + i * 1000)));
    for (const sent = r.server.counts.bytes; r.server.counts.bytes === sent;) await sleep(1);
  }
  await late;
  expect(openFiles()).toBe(before);
});

it("is shared by processes: one fetch for all of them", { timeout: 60_000 }, async () => {
  await using r = await remote();
  const bytes = someBytes(17 * MiB, 2);
  const digest = await putObject(r.files, bytes);
  const readers = Array.from({ length: 3 }, () => readInProcess(r, digest));
  for (const reader of readers) expect(await reader.printed).toBe(digest);
  expect(r.server.counts.bytes).toBe(17 * MiB);
  expect(await readdir(join(r.cacheDir, "locks"))).toEqual([]);
});

it("is whole after SIGKILL at any moment", { timeout: 60_000 }, async () => {
  await using r = await remote();
  const bytes = someBytes(33 * MiB, 3);
  const digest = await putObject(r.files, bytes);
  for (const afterMs of [0, 15, 40, 80]) {
    const reader = readInProcess(r, digest);
    await reader.started;
    await new Promise((resolve) => setTimeout(resolve, afterMs));
    reader.kill();
    await reader.printed;
  }
  await using cache = await openCachedStore([r.origin], { dir: r.cacheDir, bytesMax: 64 * MiB });
  expect(bytesEqual(await readAll(cache, digest), bytes)).toBe(true);
  expect(await readdir(join(r.cacheDir, "tmp"))).toEqual([]);
  expect(await readdir(join(r.cacheDir, "locks"))).toEqual([]);
});

it("keeps its limit: what was not used for longest goes, and never what no other store has", async () => {
  await using r = await remote();
  const objects = await Promise.all([1, 2, 3, 4, 5].map((n) => putObject(r.files, someBytes(2 * MiB, 10 + n))));
  const [first, second, third, fourth, fifth] = objects as [Digest, Digest, Digest, Digest, Digest];
  await using cache = await openCachedStore([r.origin], { dir: r.cacheDir, bytesMax: 7 * MiB });
  const age = async (digest: Digest, seconds: number): Promise<void> => {
    const at = Date.now() / 1000 - seconds;
    await utimes(pieceFile(r.cacheDir, digest, 0), at, at);
  };
  for (const [i, digest] of [first, second, third].entries()) {
    await readAll(cache, digest);
    await age(digest, 300 - i * 50);
  }
  await readAll(cache, first); // used again: now the second is the oldest
  await readAll(cache, fourth);
  expect(await cache.stat(second)).toEqual({ digest: second, bytes: 2 * MiB }); // from where it came
  await expect(stat(pieceFile(r.cacheDir, second, 0))).rejects.toMatchObject({ code: "ENOENT" });
  for (const digest of [first, third, fourth]) await stat(pieceFile(r.cacheDir, digest, 0));

  await age(third, 500);
  await rm(join(r.dir, "origin", "b3", third.slice(3, 5), third.slice(3)));
  await readAll(cache, fifth);
  await stat(pieceFile(r.cacheDir, third, 0));
  expect(bytesEqual(await readAll(cache, third), someBytes(2 * MiB, 13))).toBe(true);
  expect(await cachedBytes(r.cacheDir)).toBeLessThanOrEqual(7 * MiB);
});

it("gives what it can't keep all the same", async () => {
  await using r = await remote();
  const bytes = someBytes(5 * MiB, 20);
  const digest = await putObject(r.files, bytes);
  await using cache = await openCachedStore([r.origin], { dir: r.cacheDir, bytesMax: MiB });
  expect(bytesEqual(await readAll(cache, digest), bytes)).toBe(true);
  expect(await cachedBytes(r.cacheDir)).toBeLessThanOrEqual(MiB);
  const before = r.server.counts.bytes;
  expect(bytesEqual(await readAll(cache, digest), bytes)).toBe(true);
  expect(r.server.counts.bytes - before).toBe(5 * MiB); // and fetches no more of it than is asked for
});

it("may be deleted at any time: it goes on, and keeps pieces again", async () => {
  await using r = await remote();
  const bytes = someBytes(9 * MiB, 21);
  const digest = await putObject(r.files, bytes);
  await using cache = await openCachedStore([r.origin], { dir: r.cacheDir, bytesMax: 64 * MiB });
  await readAll(cache, digest);
  await rm(r.cacheDir, { recursive: true });
  expect(bytesEqual(await readAll(cache, digest), bytes)).toBe(true);
  expect(await cachedBytes(r.cacheDir)).toBe(9 * MiB);
  const { bytes: fetched } = r.server.counts;
  expect(bytesEqual(await readAll(cache, digest), bytes)).toBe(true);
  expect(r.server.counts.bytes).toBe(fetched);
});

it("says which folder it cannot use", async () => {
  await using r = await remote();
  await writeFile(join(r.dir, "file"), "x");
  const opening = openCachedStore([r.origin], { dir: join(r.dir, "file"), bytesMax: 64 * MiB });
  await expect(opening).rejects.toMatchObject({ code: "store_failed", message: expect.stringContaining("file") });
});

it("is checked like any store: a bad piece is set aside, named, and fetched again from a good store", async () => {
  await using r = await remote();
  await using good = await openDirectoryStore(join(r.dir, "good"));
  const source = await writeArrowJs(join(r.dir, "a.arrow"), wideBatches(2, 11));
  const { entry } = await publishFile(source, [r.files, good]);
  const bytes = await bytesOf(source);
  const where = { dataset: "digits", version: 3 };
  const readShard = async (stores: readonly ShardStore[]): Promise<Uint8Array> => {
    await using reader = await openShard({ entry, where, stores });
    const out = new Uint8Array(entry.bytes);
    for (const [i, { offset, bytes: length }] of reader.index.segments.entries()) {
      await reader.readSegment(i, out.subarray(offset, offset + length));
    }
    return out;
  };
  const flip = async (path: string): Promise<void> => {
    const file = await readFile(path);
    file[1_000_000] = (file[1_000_000] ?? 0) ^ 1;
    await writeFile(path, file);
  };
  await using cache = await openCachedStore([r.origin, good], { dir: r.cacheDir, bytesMax: 64 * MiB });
  expect(bytesEqual(await readShard([cache, r.origin, good]), bytes)).toBe(true);

  await flip(pieceFile(r.cacheDir, entry.digest, 0));
  await expect(readShard([cache])).rejects.toMatchObject({
    code: "shard_corrupt",
    details: { shard: "a.arrow", leaf: expect.any(Number) as number },
  });
  const [kept = ""] = await readdir(join(r.cacheDir, "quarantine"));
  expect(kept.startsWith(entry.digest.slice(3))).toBe(true);
  expect(await readFile(join(r.cacheDir, "quarantine", kept, "reason.txt"), "utf8")).toContain("leaf");
  expect(bytesEqual(await readShard([cache, r.origin, good]), bytes)).toBe(true);

  // The first store itself is bad: what came of it is not kept, and the next one serves.
  await cache.quarantine(entry.digest, "start anew"); // in line is now the first store again
  await flip(join(r.dir, "origin", "b3", entry.digest.slice(3, 5), entry.digest.slice(3)));
  expect(bytesEqual(await readShard([cache, r.origin, good]), bytes)).toBe(true);
  expect(bytesEqual(await readShard([cache]), bytes)).toBe(true);
});

/** Reads an object through the cache in a process of its own, which prints the digest of what it got. */
function readInProcess(r: Remote, digest: Digest) {
  const src = (path: string): string => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
  const script = `
    import { openCachedStore } from ${src("shards/cache/cached-store.ts")};
    import { openHttpStore } from ${src("shards/stores/http-store.ts")};
    import { hashBytes } from ${src("merkle/hash.ts")};
    import { formatDigest } from ${src("model/bytes.ts")};
    const options = { dir: ${JSON.stringify(r.cacheDir)}, bytesMax: 64 * 1024 * 1024 };
    const cache = await openCachedStore([openHttpStore(${JSON.stringify(r.server.url)})], options);
    const handle = await cache.open(${JSON.stringify(digest)});
    process.stdout.write(" ");
    const out = new Uint8Array(handle.bytes);
    for (let at = 0; at < out.length; at += 131072) await handle.readInto(out.subarray(at, at + 131072), at);
    process.stdout.write(formatDigest(hashBytes(out)));
  `;
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  const child = spawn(process.execPath, ["--import", tsx, "--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
  return {
    started: once(child.stdout, "data"),
    printed: once(child, "close").then(() => text.trim()),
    kill: () => child.kill("SIGKILL"),
  };
}
