import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { LIMITS } from "../../src/model/limits.ts";
import { copyShard } from "../../src/shards/copy-shard.ts";
import { openDirectoryStore } from "../../src/shards/directory-store.ts";
import type { ReadableStore } from "../../src/shards/port.ts";
import { tempDir } from "../support/temp-dir.ts";
import { publishFile, wideBatches, writeArrowJs } from "./support.ts";

const where = { dataset: "d", version: 1 };

it("copies segments of any size in memory that does not grow with them; a bad copy leaves no file", async () => {
  await using folder = await tempDir("copy");
  const source = await writeArrowJs(join(folder.path, "a.arrow"), wideBatches(2, 100));
  await using store = await openDirectoryStore(join(folder.path, "store"));
  const { entry } = await publishFile(source, [store]);
  let memoryBytesMax = 0;
  let flippedAt = -1;
  const watched: ReadableStore = {
    url: store.url,
    quarantine: async () => undefined,
    async open(digest) {
      const handle = await store.open(digest);
      return {
        ...handle,
        async readInto(target, position) {
          const isShard = digest === entry.digest;
          if (isShard) memoryBytesMax = Math.max(memoryBytesMax, target.buffer.byteLength);
          const bytes = await handle.readInto(target, position);
          const at = flippedAt - position;
          if (isShard && at >= 0 && at < bytes) target[at] = (target[at] as number) ^ 1;
          return bytes;
        },
      };
    },
  };
  const path = join(folder.path, "out", "train", "a.arrow");
  await copyShard({ entry, where, stores: [watched] }, path);
  expect(Buffer.compare(await readFile(path), await readFile(source))).toBe(0);
  expect(memoryBytesMax).toBeLessThan(50 * LIMITS.leafBytes); // a segment has a hundred

  flippedAt = entry.bytes - 1_000_000;
  const again = join(folder.path, "out", "b.arrow");
  await expect(copyShard({ entry, where, stores: [watched] }, again)).rejects.toMatchObject({ code: "shard_corrupt" });
  expect(await readdir(join(folder.path, "out"))).toEqual(["train"]);
});
