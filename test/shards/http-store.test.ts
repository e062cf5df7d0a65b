import { expect, it } from "vitest";
import { type Digest, formatDigest } from "../../src/model/bytes.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import { openDirectoryStore } from "../../src/shards/directory-store.ts";
import { openHttpStore } from "../../src/shards/stores/http-store.ts";
import { someBytes } from "../contract/shard-store.ts";
import { serveFolder } from "../support/static-server.ts";
import { tempDir } from "../support/temp-dir.ts";

async function served(bytes: Uint8Array) {
  const folder = await tempDir("http-store");
  const files = await openDirectoryStore(folder.path);
  const digest: Digest = formatDigest(hashBytes(bytes));
  await files.put(digest, [bytes] as unknown as AsyncIterable<Uint8Array>);
  const server = await serveFolder(folder.path);
  const store = openHttpStore(`${server.url}/?token=x`);
  return {
    ...{ digest, server, store },
    async [Symbol.asyncDispose]() {
      await store.close();
      await server.close();
      await files.close();
      await folder.remove();
    },
  };
}

it("reads any range of what a web server holds, and nothing else of it", async () => {
  const bytes = someBytes(700_000, 1);
  await using t = await served(bytes);
  expect(await t.store.stat(t.digest)).toEqual({ digest: t.digest, bytes: 700_000 });
  await using handle = await t.store.open(t.digest);
  const parts = await Promise.all(
    [0, 131_072, 699_000].map(async (position) => {
      const part = new Uint8Array(1_000);
      expect(await handle.readInto(part, position)).toBe(1_000);
      return [part, bytes.slice(position, position + 1_000)];
    }),
  );
  for (const [got, expected] of parts) expect(got).toEqual(expected);
  const rest = new Uint8Array(1_000);
  expect(await handle.readInto(rest, 699_900)).toBe(100);
  expect(await handle.readInto(rest, 700_000)).toBe(0);
  expect(t.server.counts.bytes).toBe(3_100);
  const absent = formatDigest(hashBytes(someBytes(3, 2)));
  expect(await t.store.stat(absent)).toBeNull();
  await expect(t.store.open(absent)).rejects.toMatchObject({ code: "not_found" });
});

it("tries again after faults of the server, and says what it got when they go on", async () => {
  const bytes = someBytes(200_000, 3);
  await using t = await served(bytes);
  await using handle = await t.store.open(t.digest);
  for (const fault of ["500", "short", "reset"] as const) {
    t.server.fail(fault, 2);
    const target = new Uint8Array(100_000);
    expect(await handle.readInto(target, 50_000), fault).toBe(100_000);
    expect(target).toEqual(bytes.slice(50_000, 150_000));
    t.server.fail(fault, 99);
    await expect(handle.readInto(target, 0), fault).rejects.toMatchObject({ code: "store_failed" });
    t.server.fail(fault, 0);
  }
  t.server.fail("no_range", 1);
  await expect(handle.readInto(new Uint8Array(10), 0)).rejects.toThrow("ignores ranges");
});

it("ends a read that hangs when its caller gives up", async () => {
  await using t = await served(someBytes(1_000, 4));
  const giveUp = new AbortController();
  await using handle = await t.store.open(t.digest, giveUp.signal);
  t.server.fail("hang", 1);
  const reading = handle.readInto(new Uint8Array(10), 0);
  setTimeout(() => giveUp.abort(), 50);
  await expect(reading).rejects.toMatchObject({ code: "aborted" });
});

it("is read-only, and closes once and for all", async () => {
  await using t = await served(someBytes(10, 5));
  const nothing = [] as unknown as AsyncIterable<Uint8Array>;
  await expect(t.store.put(t.digest, nothing)).rejects.toMatchObject({ code: "store_failed" });
  await expect(t.store.quarantine(t.digest, "bad")).rejects.toMatchObject({ code: "store_failed" });
  await expect(t.store.list()[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: "store_failed" });
  await t.store.close();
  await t.store.close();
  await expect(t.store.stat(t.digest)).rejects.toMatchObject({ code: "closed" });
});
