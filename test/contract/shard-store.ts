/**
 * What every `ShardStore` must do, the ones to come included: call with a way to open an empty store.
 */
import { describe, expect, it } from "vitest";
import { formatDigest, type Digest } from "../../src/model/bytes.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import { segmentIndexDigest } from "../../src/merkle/segment-index.ts";
import type { ShardStore } from "../../src/shards/port.ts";

export interface StoreUnderTest extends AsyncDisposable {
  readonly store: ShardStore;
  /** Replaces the bytes of an object behind the store's back. */
  damage(digest: Digest, bytes: Uint8Array): Promise<void>;
}

export function shardStoreContract(name: string, openStore: () => Promise<StoreUnderTest>): void {
  describe(`${name} as ShardStore`, () => {
    it("stores bytes under their digest and reads any range of them", async () => {
      await using t = await openStore();
      const bytes = someBytes(300_000, 1);
      const digest = formatDigest(hashBytes(bytes));
      expect(await t.store.stat(digest)).toBeNull();
      expect(await t.store.put(digest, chunks(bytes, 70_000))).toBe("stored");
      expect(await t.store.stat(digest)).toEqual({ digest, bytes: 300_000 });
      await using handle = await t.store.open(digest);
      expect(handle.bytes).toBe(300_000);
      const target = new Uint8Array(1000);
      const reads = [0, 131_072, 299_000].map(async (position) => {
        const part = new Uint8Array(1000);
        expect(await handle.readInto(part, position)).toBe(1000);
        expect(part).toEqual(bytes.slice(position, position + 1000));
      });
      await Promise.all(reads);
      expect(await handle.readInto(target, 299_900)).toBe(100);
      expect(await handle.readInto(target, 300_000)).toBe(0);
    });

    it("takes an object once, and reads no source for one that it has whole", async () => {
      await using t = await openStore();
      const bytes = someBytes(5000, 2);
      const digest = formatDigest(hashBytes(bytes));
      expect(await t.store.put(digest, chunks(bytes, 5000))).toBe("stored");
      expect(await t.store.put(digest, chunks(bytes, 5000))).toBe("present");
      const untouched = {
        [Symbol.asyncIterator]: () => {
          throw new Error("the source was read");
        },
      };
      expect(await t.store.put(digest, untouched, { bytes: 5000 })).toBe("present");
    });

    it("takes objects that are to last once it is settled, and has them before and after", async () => {
      await using t = await openStore();
      const objects = [5, 6, 7].map((seed) => someBytes(1000 * seed, seed));
      const digests = objects.map((bytes) => formatDigest(hashBytes(bytes)));
      for (const result of ["stored", "present"]) {
        for (const [i, bytes] of objects.entries()) {
          const options = { bytes: bytes.byteLength, lasts: "settled" } as const;
          expect(await t.store.put(digests[i] as Digest, chunks(bytes, 999), options)).toBe(result);
        }
        await t.store.settle?.();
        const listed = (await all(t.store.list())).map(({ digest }) => digest);
        expect(listed.sort()).toEqual([...digests].sort());
      }
    });

    it("refuses bytes of another digest, and shows nothing of them", async () => {
      await using t = await openStore();
      const digest = formatDigest(hashBytes(someBytes(10, 3)));
      await expect(t.store.put(digest, chunks(someBytes(10, 4), 10))).rejects.toMatchObject({ code: "shard_corrupt" });
      expect(await t.store.stat(digest)).toBeNull();
      await expect(t.store.open(digest)).rejects.toMatchObject({ code: "not_found" });
      expect(await all(t.store.list())).toEqual([]);
    });

    it("shows nothing of a put whose source fails or is aborted", async () => {
      await using t = await openStore();
      const bytes = someBytes(10, 5);
      const digest = formatDigest(hashBytes(bytes));
      async function* failing() {
        yield bytes.subarray(0, 5);
        throw new Error("the source broke");
      }
      await expect(t.store.put(digest, failing())).rejects.toMatchObject({ code: "store_failed" });
      const reason = new Error("the user went home");
      const signal = AbortSignal.abort(reason);
      const aborted = { code: "aborted", cause: reason };
      await expect(t.store.put(digest, chunks(bytes, 5), { signal })).rejects.toMatchObject(aborted);
      expect(await t.store.stat(digest)).toBeNull();
    });

    it("holds segment indexes under their own kind of digest", async () => {
      await using t = await openStore();
      const bytes = someBytes(777, 6);
      const digest = formatDigest(segmentIndexDigest(bytes));
      await expect(t.store.put(digest, chunks(bytes, 100))).rejects.toMatchObject({ code: "shard_corrupt" });
      expect(await t.store.put(digest, chunks(bytes, 100), { context: "segmentIndex" })).toBe("stored");
      await using handle = await t.store.open(digest);
      const back = new Uint8Array(777);
      await handle.readInto(back, 0);
      expect(back).toEqual(bytes);
    });

    it("lists what it holds", async () => {
      await using t = await openStore();
      const digests: Digest[] = [];
      for (let i = 0; i < 5; i += 1) {
        const bytes = someBytes(i * 10, 10 + i);
        digests.push(formatDigest(hashBytes(bytes)));
        await t.store.put(digests[i] as Digest, chunks(bytes, 7));
      }
      const listed = await all(t.store.list());
      expect(listed.map((o) => o.digest).sort()).toEqual(digests.sort());
      expect(listed.reduce((sum, o) => sum + o.bytes, 0)).toBe(100);
    });

    it("replaces an object of another size, and puts a quarantined one again", async () => {
      await using t = await openStore();
      const bytes = someBytes(2000, 20);
      const digest = formatDigest(hashBytes(bytes));
      await t.store.put(digest, chunks(bytes, 2000));
      await t.damage(digest, bytes.subarray(0, 1999));
      expect(await t.store.put(digest, chunks(bytes, 2000), { bytes: 2000 })).toBe("stored");
      await t.damage(digest, someBytes(2000, 21));
      await t.store.quarantine(digest, "leaf 0 does not match");
      expect(await t.store.stat(digest)).toBeNull();
      await t.store.quarantine(digest, "again");
      expect(await t.store.put(digest, chunks(bytes, 2000))).toBe("stored");
      await using handle = await t.store.open(digest);
      const back = new Uint8Array(2000);
      await handle.readInto(back, 0);
      expect(back).toEqual(bytes);
    });

    it("replaces a damaged object of the right size, and tells of the bytes that it reads and writes", async () => {
      await using t = await openStore();
      const bytes = someBytes(300_000, 25);
      const digest = formatDigest(hashBytes(bytes));
      const put = async (source: Uint8Array) => {
        let told = 0;
        const onBytes = (n: number) => void (told += n);
        return [await t.store.put(digest, chunks(source, 70_000), { bytes: 300_000, onBytes }), told];
      };
      expect(await put(bytes)).toEqual(["stored", 300_000]);
      expect(await put(bytes)).toEqual(["present", 300_000]);
      const damaged = bytes.slice();
      damaged[299_999] = (damaged[299_999] ?? 0) ^ 1;
      await t.damage(digest, damaged);
      await expect(put(damaged)).rejects.toMatchObject({ code: "shard_corrupt" });
      expect(await put(bytes)).toEqual(["stored", 600_000]);
      await t.damage(digest, damaged);
      expect(await t.store.put(digest, chunks(bytes, 70_000))).toBe("stored");
      await using handle = await t.store.open(digest);
      const back = new Uint8Array(300_000);
      await handle.readInto(back, 0);
      expect(back).toEqual(bytes);
    });

    it("takes puts of one object from many at once", async () => {
      await using t = await openStore();
      const bytes = someBytes(50_000, 30);
      const digest = formatDigest(hashBytes(bytes));
      const results = await Promise.all(Array.from({ length: 8 }, () => t.store.put(digest, chunks(bytes, 10_000))));
      expect(results).toContain("stored");
      expect(await all(t.store.list())).toEqual([{ digest, bytes: 50_000 }]);
    });

    it("closes once and for all", async () => {
      await using t = await openStore();
      await t.store.close();
      await t.store.close();
      await expect(t.store.stat(formatDigest(hashBytes(someBytes(1, 1))))).rejects.toMatchObject({ code: "closed" });
    });
  });
}

/** Bytes that look random and are the same for the same seed. */
export function someBytes(length: number, seed: number): Uint8Array {
  const out = new Uint8Array(length);
  let x = (seed * 2_654_435_761) >>> 0 || 1;
  for (let i = 0; i < length; i += 1) {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0;
    out[i] = x >>> 24;
  }
  return out;
}

async function* chunks(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += size) yield bytes.subarray(at, at + size);
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const item of items) out.push(item);
  return out;
}
