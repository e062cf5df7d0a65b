import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { bytesEqual, parseDigest, toHex, type Digest } from "../../src/model/bytes.ts";
import { ShardpactError } from "../../src/model/errors.ts";
import { openDirectoryStore } from "../../src/shards/directory-store.ts";
import { decodeSegmentIndex } from "../../src/merkle/segment-index.ts";
import type { ShardStore } from "../../src/shards/port.ts";
import { openShard, type ShardReader } from "../../src/shards/reader.ts";
import { verifyShard, type Finding } from "../../src/shards/verify.ts";
import { tempDir } from "../support/temp-dir.ts";
import { bytesOf, fixture, publishFile, wideBatches, writeArrowJs } from "./support.ts";

const where = { dataset: "digits", version: 3 };

async function fixtureOf(count: number) {
  const folder = await tempDir("reader");
  const source = await writeArrowJs(join(folder.path, "a.arrow"), wideBatches(2, 11));
  const stores = await Promise.all(
    Array.from({ length: count }, (_, i) => openDirectoryStore(join(folder.path, `store-${i}`))),
  );
  const shard = await publishFile(source, stores);
  const pathIn = (i: number, digest: Digest) => {
    const hex = toHex(parseDigest(digest));
    return join(folder.path, `store-${i}`, "b3", hex.slice(0, 2), hex);
  };
  /** Flips one bit of an object in a store. */
  const flip = async (i: number, digest: Digest, at: number) => {
    const bytes = await readFile(pathIn(i, digest));
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    await writeFile(pathIn(i, digest), bytes);
  };
  const close = async () => {
    for (const store of stores) await store.close();
    await folder.remove();
  };
  return { source, stores, shard, entry: shard.entry, flip, pathIn, [Symbol.asyncDispose]: close };
}

async function readAll(reader: ShardReader): Promise<Uint8Array> {
  const out = new Uint8Array(reader.entry.bytes);
  for (const [i, { offset, bytes }] of reader.index.segments.entries()) {
    await reader.readSegment(i, out.subarray(offset, offset + bytes));
  }
  return out;
}

async function findings(source: AsyncIterable<Finding>): Promise<Finding[]> {
  const out: Finding[] = [];
  for await (const finding of source) out.push(finding);
  return out;
}

describe("openShard", () => {
  it("reads every segment, and any leaves of one", async () => {
    await using f = await fixtureOf(1);
    const bytes = await bytesOf(f.source);
    await using reader = await openShard({ entry: f.entry, where, stores: f.stores });
    expect(bytesEqual(await readAll(reader), bytes)).toBe(true);
    const at = reader.index.segments.findIndex((s) => s.kind === "batch");
    const segment = reader.index.segments[at];
    if (!segment) throw new Error("no batch");
    const part = await reader.readLeaves(at, 9, 11, new Uint8Array(262_144));
    const wanted = bytes.slice(segment.offset + 9 * 131_072, segment.offset + 11 * 131_072);
    expect(bytesEqual(part, wanted)).toBe(true);
    const last = await reader.readLeaves(at, segment.leafCount - 1, segment.leafCount, new Uint8Array(131_072));
    expect(last.byteLength).toBe(segment.bytes - (segment.leafCount - 1) * 131_072);
    await expect(reader.readLeaves(at, 3, 3, new Uint8Array(9))).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(reader.readSegment(at, new Uint8Array(9))).rejects.toMatchObject({ code: "invalid_argument" });
    await expect(reader.readSegment(99, new Uint8Array(9))).rejects.toMatchObject({ code: "invalid_argument" });
  });

  it("finds and names one flipped bit in every kind of segment, then reads on from a good copy", async () => {
    const kinds = ["head", "schema", "dictionary", "batch", "footer"] as const;
    for (const kind of kinds) {
      await using f = await fixtureOf(0);
      await using folder = await tempDir("flip");
      const [bad, good] = [
        await openDirectoryStore(join(folder.path, "bad")),
        await openDirectoryStore(join(folder.path, "good")),
      ];
      const source = kind === "schema" ? fixture("pyarrow.arrow") : f.source; // arrow-js writes no schema message
      const { entry, index } = await publishFile(source, [bad, good]);
      const segments = decodeSegmentIndex(index).segments;
      const at = segments.findIndex((s) => s.kind === kind);
      const segment = segments[at];
      if (!segment) throw new Error(`no ${kind}`);
      const leaf = segment.leafCount - 1;
      const hex = toHex(parseDigest(entry.digest));
      const path = join(folder.path, "bad", "b3", hex.slice(0, 2), hex);
      const bytes = await readFile(path);
      const place = segment.offset + segment.bytes - 1;
      bytes[place] = (bytes[place] ?? 0) ^ 1;
      await writeFile(path, bytes);

      const found = await findings(verifyShard({ entry, store: bad }));
      expect(found).toMatchObject([{ kind: "leaf", segment: at, segmentKind: kind, leaf, shard: entry.name }]);
      expect(await findings(verifyShard({ entry, store: good }))).toEqual([]);

      {
        await using reader = await openShard({ entry, where, stores: [bad] });
        await expect(readAll(reader)).rejects.toMatchObject({
          code: "shard_corrupt",
          details: {
            dataset: "digits",
            version: 3,
            shard: entry.name,
            segment: at,
            segmentKind: kind,
            leaf,
            offset: segment.offset + leaf * 131_072,
            bytes: segment.bytes - leaf * 131_072,
            store: bad.url,
          },
        });
        expect(await bad.stat(entry.digest)).toBeNull(); // quarantined
      }
      await writeFile(path, bytes);
      await using reader = await openShard({ entry, where, stores: [bad, good] });
      expect(bytesEqual(await readAll(reader), await bytesOf(source))).toBe(true);
      expect(await bad.stat(entry.digest)).toBeNull();
      expect(await good.stat(entry.digest)).not.toBeNull();
    }
  });

  it("finds a flipped bit anywhere in the segment index", async () => {
    await using f = await fixtureOf(2);
    for (const at of [0, 10, 20, 50, 70, f.shard.index.byteLength - 1]) {
      await f.flip(0, f.entry.segmentIndex, at);
      expect(await findings(verifyShard({ entry: f.entry, store: f.stores[0] as never }))).toMatchObject([
        { kind: "index" },
      ]);
      const alone = openShard({ entry: f.entry, where, stores: f.stores.slice(0, 1) });
      await expect(alone).rejects.toMatchObject({ code: "shard_corrupt", details: { segmentKind: "index" } });
      expect(await f.stores[0]?.stat(f.entry.segmentIndex)).toBeNull();
      await using reader = await openShard({ entry: f.entry, where, stores: f.stores });
      expect(reader.index.segments.length).toBeGreaterThan(3);
      await f.stores[0]?.put(f.entry.segmentIndex, once(f.shard.index), { context: "segmentIndex" });
    }
  });

  it("treats a short copy as corrupt and a missing one as missing", async () => {
    await using f = await fixtureOf(2);
    const path = f.pathIn(0, f.entry.digest);
    await writeFile(path, (await readFile(path)).subarray(0, 1_000_000));
    const found = await findings(verifyShard({ entry: f.entry, store: f.stores[0] as never }));
    expect(found[0]).toMatchObject({ kind: "size", expected: f.entry.bytes, got: 1_000_000 });
    expect(found[1]).toMatchObject({ kind: "leaf", segmentKind: "batch", got: null });
    await using reader = await openShard({ entry: f.entry, where, stores: f.stores });
    expect(bytesEqual(await readAll(reader), await bytesOf(f.source))).toBe(true);
    expect(await f.stores[0]?.stat(f.entry.digest)).toBeNull();
    await using alone = await openShard({ entry: f.entry, where, stores: f.stores.slice(0, 1) });
    await expect(readAll(alone)).rejects.toMatchObject({ code: "not_found", details: { shard: f.entry.name } });
  });

  it("goes on with another store when one fails, and asks the failed one again", async () => {
    await using f = await fixtureOf(1);
    let failures = 0;
    const good = f.stores[0] as (typeof f.stores)[0];
    const flaky = {
      ...good,
      url: "flaky:",
      open: async (digest: Digest) => {
        const handle = await good.open(digest);
        return {
          ...handle,
          readInto: (target: Uint8Array, position: number) => {
            if (position > 1_000_000 && failures++ === 0) return Promise.reject(new Error("the network blinked"));
            return handle.readInto(target, position);
          },
        };
      },
    };
    await using reader = await openShard({ entry: f.entry, where, stores: [flaky] });
    await expect(readAll(reader)).rejects.toMatchObject({ code: "store_failed" });
    expect(bytesEqual(await readAll(reader), await bytesOf(f.source))).toBe(true);
    failures = 0;
    await using both = await openShard({ entry: f.entry, where, stores: [flaky, good] });
    expect(bytesEqual(await readAll(both), await bytesOf(f.source))).toBe(true);
  });

  it("is closed once and for all, and stops when aborted", async () => {
    await using f = await fixtureOf(1);
    const abort = new AbortController();
    const reader = await openShard({ entry: f.entry, where, stores: f.stores, signal: abort.signal });
    abort.abort();
    await expect(readAll(reader)).rejects.toMatchObject({ code: "aborted" });
    await reader.close();
    await reader.close();
    await expect(readAll(reader)).rejects.toMatchObject({ code: "closed" });
  });

  it("takes a hasher that sees nothing, for measuring", async () => {
    await using f = await fixtureOf(1);
    await f.flip(0, f.entry.digest, f.entry.bytes - 1);
    await using reader = await openShard({ entry: f.entry, where, stores: f.stores, hasher: () => null });
    expect((await readAll(reader)).byteLength).toBe(f.entry.bytes);
  });
});

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

it("verifyShard sets a bad copy aside once all of it was read: in a bucket it can't be read afterwards", async () => {
  await using f = await fixtureOf(1);
  const [folder] = f.stores;
  if (!folder) throw new Error("no store");
  const first = 200_000;
  const last = f.entry.bytes - 1_000_000; // in another read than the first
  for (const at of [first, last]) await f.flip(0, f.entry.digest, at);
  const aside: [Digest, string][] = [];
  const bucket: ShardStore = {
    ...folder,
    async open(digest, signal) {
      const handle = await folder.open(digest, signal);
      return {
        ...handle,
        readInto: async (target, position) => {
          if (aside.some(([moved]) => moved === digest)) throw new ShardpactError("not_found", "not there");
          return handle.readInto(target, position);
        },
      };
    },
    quarantine: async (digest, reason) => void aside.push([digest, reason]),
  };
  const setAside = (finding: Finding) => (finding.kind === "leaf" ? `leaf at ${finding.offset}` : finding.kind);
  const found = await findings(verifyShard({ entry: f.entry, store: bucket, setAside }));
  const offsets = found.map((finding) => (finding.kind === "leaf" ? finding.offset : -1));
  const distances = [first - (offsets[0] ?? 0), last - (offsets[1] ?? 0)];
  expect([offsets.length, distances.every((bytes) => bytes >= 0 && bytes < 131_072)]).toEqual([2, true]);
  expect(aside).toEqual([[f.entry.digest, `leaf at ${offsets[0]}`]]);
  aside.length = 0;
  await findings(verifyShard({ entry: f.entry, store: bucket }));
  expect(aside).toEqual([]);
});
