import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { type FileHandle, open, readdir, readFile, readlink, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join, relative } from "node:path";
import { Readable } from "node:stream";
import { pathToFileURL } from "node:url";
import { afterEach, expect, it, vi } from "vitest";
import { formatDigest, toHex, parseDigest, type Digest } from "../../src/model/bytes.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import { cachedFiles } from "../../src/shards/directory-files.ts";
import { openDirectoryStore } from "../../src/shards/directory-store.ts";
import { shardStoreContract, someBytes } from "../contract/shard-store.ts";
import { tempDir } from "../support/temp-dir.ts";

function pathIn(folder: string, digest: Digest): string {
  const hex = toHex(parseDigest(digest));
  return join(folder, "b3", hex.slice(0, 2), hex);
}

for (const calls of ["beside", "blocking", "cached"] as const) {
  shardStoreContract(`a folder, calls ${calls}`, async () => {
    const folder = await tempDir("store");
    const store = await openDirectoryStore(folder.path, { calls });
    return {
      store,
      damage: (digest, bytes) => writeFile(pathIn(folder.path, digest), bytes),
      async [Symbol.asyncDispose]() {
        await store.close();
        await folder.remove();
      },
    };
  });
}

/** What is synced from now on: paths below `folder`, of files that are being written `tmp`. */
async function syncsBelow(folder: string): Promise<string[]> {
  const synced: string[] = [];
  await using probe = await open(folder, "r");
  const files = Object.getPrototypeOf(probe) as FileHandle;
  const { sync } = files;
  vi.spyOn(files, "sync").mockImplementation(async function (this: FileHandle) {
    const path = relative(folder, await readlink(`/proc/self/fd/${this.fd}`));
    synced.push(path.startsWith("tmp/") ? "tmp" : path);
    await sync.call(this);
  });
  return synced;
}
afterEach(() => void vi.restoreAllMocks());

it.runIf(process.platform === "linux")(
  "syncs an object before it appears, and its name with the put or when it is settled",
  async () => {
    await using folder = await tempDir("store");
    await using store = await openDirectoryStore(folder.path);
    const objects = [1, 2, 3].map((seed) => someBytes(100, seed));
    const digests = objects.map((bytes) => formatDigest(hashBytes(bytes)));
    const folders = digests.map((digest) => `b3/${digest.slice(3, 5)}`);
    expect(new Set(folders).size).toBe(3);
    const synced = await syncsBelow(folder.path);
    const put = (i: number, lasts: "put" | "settled") =>
      store.put(digests[i] as Digest, Readable.from([objects[i]]), { bytes: 100, lasts });
    const taken = () => synced.splice(0);

    expect(await put(0, "put")).toBe("stored");
    expect(taken()).toEqual(["tmp", folders[0], "b3"]);
    expect(await put(0, "put")).toBe("present"); // whoever put it may have died before its name lasted
    expect(taken()).toEqual([folders[0]]);

    expect(await put(1, "settled")).toBe("stored");
    expect(await put(2, "settled")).toBe("stored");
    expect(await put(0, "settled")).toBe("present");
    expect(taken()).toEqual(["tmp", "tmp"]);
    await store.settle?.();
    expect(synced.slice(0, -1).sort()).toEqual([...folders].sort());
    expect(synced.at(-1)).toBe("b3");
  },
);

it("makes the folders above it, and says at once where none can be made", async () => {
  await using folder = await tempDir("store");
  const path = join(folder.path, "a", "b", "c");
  for (const store of await Promise.all([openDirectoryStore(path), openDirectoryStore(path)])) await store.close();
  expect((await readdir(path)).sort()).toEqual(["b3", "quarantine", "tmp"]);
  await expect(openDirectoryStore("/proc/shardpact/store")).rejects.toMatchObject({ code: "store_failed" });
  await writeFile(join(folder.path, "file"), "");
  for (const below of ["file", "file/store"]) {
    await expect(openDirectoryStore(join(folder.path, below))).rejects.toMatchObject({ code: "store_failed" });
  }
});

it("clears away what a dead writer left, and nothing of a living one", async () => {
  await using folder = await tempDir("store");
  await using _first = await openDirectoryStore(folder.path);
  const dead = spawnSync(process.execPath, ["-e", "0"]).pid;
  const host = hostname().replaceAll(/[^a-zA-Z0-9-]/g, "-");
  const names = [`${host}.${dead}.aa.bb`, `${host}.${process.ppid}.aa.bb`, "elsewhere.1.aa.new", "elsewhere.1.aa.old"];
  for (const name of names) await writeFile(join(folder.path, "tmp", name), "half");
  const yesterday = new Date(Date.now() - 25 * 3_600_000);
  await utimes(join(folder.path, "tmp", "elsewhere.1.aa.old"), yesterday, yesterday);
  await using _second = await openDirectoryStore(pathToFileURL(folder.path));
  const left = await readdir(join(folder.path, "tmp"));
  expect(left.sort()).toEqual([`${host}.${process.ppid}.aa.bb`, "elsewhere.1.aa.new"].sort());
});

it("shows nothing of a put that was killed in the middle, and clears it away", async () => {
  await using folder = await tempDir("store");
  const script = `
    import { openDirectoryStore } from "${new URL("../../src/shards/directory-store.ts", import.meta.url).href}";
    const store = await openDirectoryStore(process.argv[1]);
    await store.put("b3:" + "0".repeat(64), (async function* () {
      yield new Uint8Array(1e6);
      console.log("writing");
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    })());`;
  const writer = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", script, folder.path]);
  await once(writer.stdout, "data");
  expect(await readdir(join(folder.path, "tmp"))).toHaveLength(1);
  writer.kill("SIGKILL");
  await once(writer, "exit");
  await using store = await openDirectoryStore(folder.path);
  expect(await readdir(join(folder.path, "tmp"))).toEqual([]);
  expect(await store.stat(`b3:${"0".repeat(64)}`)).toBeNull();
});

it("keeps a quarantined copy with the reason as evidence", async () => {
  await using folder = await tempDir("store");
  await using store = await openDirectoryStore(folder.path);
  const bytes = someBytes(100, 1);
  const digest = formatDigest(hashBytes(bytes));
  await store.put(
    digest,
    (async function* () {
      yield bytes;
    })(),
  );
  await store.quarantine(digest, "leaf 3 is not what was agreed");
  const kept = await readdir(join(folder.path, "quarantine"));
  expect(kept).toHaveLength(2);
  const reason = kept.find((name) => name.endsWith(".reason.txt")) ?? "";
  expect(await readFile(join(folder.path, "quarantine", reason), "utf8")).toContain("leaf 3 is not what was agreed");
});

it("refuses what is no folder", async () => {
  await expect(openDirectoryStore("s3://bucket/x")).rejects.toMatchObject({ code: "invalid_argument" });
  await using folder = await tempDir("store");
  await writeFile(join(folder.path, "file"), "");
  await expect(openDirectoryStore(join(folder.path, "file"))).rejects.toMatchObject({ code: "store_failed" });
});

it("reads that wait for a disk wait side by side, until one is tried again", async () => {
  await using folder = await tempDir("reads");
  const path = join(folder.path, "file");
  await writeFile(path, Buffer.from("0123456789"));
  let nowMs = 0;
  let stepMs = 1;
  const file = await cachedFiles(() => (nowMs += stepMs)).open(path, "r");
  const target = Buffer.alloc(4);
  const read = () => file.read(target, 0, 3);
  expect(read()).toBe(4);
  for (let slow = 0; slow < 5; slow++) {
    // Now and then one waits, for a processor or a disk; three among 24 did for a disk.
    for (let fast = 0; fast < (slow < 4 ? 12 : 7); fast++) expect(read()).toBe(4);
    stepMs = 5;
    expect(read()).toBe(4);
    stepMs = 1;
  }
  for (let i = 0; i < 128; i++) {
    target.fill(0);
    const beside = read();
    expect(beside).toBeInstanceOf(Promise);
    expect(await beside).toBe(4);
    expect(target.toString()).toBe("3456");
  }
  expect(read()).toBe(4);
  await file.close();
});
