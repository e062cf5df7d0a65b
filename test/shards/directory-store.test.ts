import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, it } from "vitest";
import { formatDigest, toHex, parseDigest, type Digest } from "../../src/model/bytes.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import { openDirectoryStore } from "../../src/shards/directory-store.ts";
import { shardStoreContract, someBytes } from "../contract/shard-store.ts";
import { tempDir } from "../support/temp-dir.ts";

function pathIn(folder: string, digest: Digest): string {
  const hex = toHex(parseDigest(digest));
  return join(folder, "b3", hex.slice(0, 2), hex);
}

shardStoreContract("a folder", async () => {
  const folder = await tempDir("store");
  const store = await openDirectoryStore(folder.path);
  return {
    store,
    damage: (digest, bytes) => writeFile(pathIn(folder.path, digest), bytes),
    async [Symbol.asyncDispose]() {
      await store.close();
      await folder.remove();
    },
  };
});

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
