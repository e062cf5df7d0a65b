import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { ShardpactError } from "../../src/model/errors.ts";
import { openDirectoryStore } from "../../src/shards/directory-store.ts";
import { type FileThreads, startFileThreads } from "../../src/shards/file-threads.ts";
import { scanAll } from "../../src/shards/scan-all.ts";
import { scanShard } from "../../src/shards/scan.ts";
import type { ScannedShard } from "../../src/shards/scan-file.ts";
import { tempDir } from "../support/temp-dir.ts";
import { collect } from "../support/collect.ts";
import { batchOf, bytesOf, writeArrowJs } from "./support.ts";

let threads: FileThreads | null = null;
afterEach(async () => {
  await threads?.close();
  threads = null;
});

/** As for a large publish. */
function start(signal?: AbortSignal): FileThreads {
  threads = startFileThreads(2, 2 ** 40, signal);
  if (!threads) throw new Error("this machine has one core");
  return threads;
}

/** Files of unequal sizes, the first the largest: its result comes last. */
async function filesIn(folder: string, count: number): Promise<{ path: string }[]> {
  const files: { path: string }[] = [];
  for (let i = 0; i < count; i++) {
    const path = join(folder, `${String(i).padStart(2, "0")}.arrow`);
    await writeArrowJs(path, [batchOf(i, i + (i === 0 ? 20_000 : 3))]);
    files.push({ path });
  }
  return files;
}

it("scans in threads to what a scan here finds, in the order of the files", async () => {
  await using folder = await tempDir("threads");
  const files = await filesIn(folder.path, 30);
  let bytes = 0;
  const scanned = await collect(scanAll(files, start(), { onBytes: (more) => (bytes += more) }));
  const expected: ScannedShard[] = [];
  for (const { path } of files) expected.push(await scanShard(path));
  expect(scanned).toEqual(expected);
  expect(bytes).toBe(expected.reduce((sum, shard) => sum + shard.bytes, 0));
});

it("tells the first bad file, as a scan here would, and goes on with others", async () => {
  await using folder = await tempDir("threads");
  const files = await filesIn(folder.path, 12);
  const bad = files[5]?.path ?? "";
  await writeFile(bad, "no Arrow file");
  const seen: ScannedShard[] = [];
  const scan = async (): Promise<void> => {
    for await (const shard of scanAll(files, start(), {})) seen.push(shard);
  };
  const here = await scanShard(bad).catch((error: unknown) => error as ShardpactError);
  await expect(scan()).rejects.toMatchObject({ code: "shard_malformed", message: (here as ShardpactError).message });
  expect(seen.length).toBe(5);
  expect((await threads?.scan(files[11]?.path ?? ""))?.rows).toBe(3);
});

it("ends all calls when it is aborted", async () => {
  await using folder = await tempDir("threads");
  const controller = new AbortController();
  const [file] = await filesIn(folder.path, 1);
  const scan = start(controller.signal).scan(file?.path ?? "");
  controller.abort();
  await expect(scan).rejects.toMatchObject({ code: "aborted" });
  await expect(threads?.scan(file?.path ?? "")).rejects.toMatchObject({ code: "aborted" });
});

it("puts shards into a store that a thread opens for itself, and refuses a file that changed since", async () => {
  await using folder = await tempDir("threads");
  await using store = await openDirectoryStore(join(folder.path, "store"));
  const { spec } = store;
  if (!spec) throw new Error("a directory has a spec");
  const [first, second] = await filesIn(folder.path, 2);
  const pool = start();
  const callOf = async (path = "") => {
    const { index, indexDigest, ...scanned } = await pool.scan(path);
    return {
      spec,
      path,
      index,
      lasts: "put" as const,
      entry: { ...scanned, name: path, split: 0, segmentIndex: indexDigest },
    };
  };
  const call = await callOf(first?.path);
  expect(await pool.upload(call)).toBe("stored");
  expect(await pool.upload(call)).toBe("present");
  await using stored = await store.open(call.entry.digest);
  const bytes = new Uint8Array(stored.bytes);
  await stored.readInto(bytes, 0);
  expect(bytes).toEqual(await bytesOf(first?.path ?? ""));
  const changed = await callOf(second?.path);
  await writeArrowJs(second?.path ?? "", [batchOf(7, 10)]);
  await expect(pool.upload(changed)).rejects.toMatchObject({ code: "shard_corrupt" });
  expect(await store.stat(changed.entry.digest)).toBeNull();
});
