import { join } from "node:path";
import { expect, it } from "vitest";
import { openDirectoryStore } from "../../src/shards/directory-store.ts";
import { startFileThreads } from "../../src/shards/file-threads.ts";
import type { ShardStore } from "../../src/shards/port.ts";
import { prepareVersion } from "../../src/shards/prepare.ts";
import type { PreparedShard, ShardList } from "../../src/shards/shard-list.ts";
import { uploadAll } from "../../src/shards/upload-all.ts";
import { tempDir } from "../support/temp-dir.ts";
import { batchOf, writeArrowJs } from "./support.ts";

/** The shards of a list over and over, `count` in all. */
function repeated(shards: ShardList, count: number): ShardList {
  async function* read(): AsyncGenerator<PreparedShard> {
    for (let left = count; left > 0;) for await (const shard of shards) if (left-- > 0) yield shard;
  }
  return { count, rows: shards.rows, bytes: shards.bytes, [Symbol.asyncIterator]: read };
}

it.each([
  { count: 127, where: "here", settles: false },
  { count: 128, where: "here", settles: true },
  { count: 128, where: "in threads", settles: true },
])("of $count shards put $where, names last before it ends: together $settles", async ({ count, where, settles }) => {
  await using folder = await tempDir("upload");
  await writeArrowJs(join(folder.path, "a.arrow"), [batchOf(0, 3)]);
  await writeArrowJs(join(folder.path, "b.arrow"), [batchOf(3, 9)]);
  await using prepared = await prepareVersion({ sources: folder.path });
  await using opened = await openDirectoryStore(join(folder.path, "store"));
  const events: string[] = [];
  const store: ShardStore = {
    ...opened,
    put: async (digest, source, options) => {
      const result = await opened.put(digest, source, options);
      events.push(options?.lasts ?? "put");
      return result;
    },
    settle: async () => {
      await opened.settle?.();
      events.push("now settled");
    },
  };
  const { spec: _, ...here } = store;
  const threads = where === "in threads" ? startFileThreads(2, 2 ** 40) : null;
  try {
    const shards = repeated(prepared.shards, count);
    expect(await uploadAll(threads ? store : here, { shards, threads })).toBeGreaterThanOrEqual(2);
  } finally {
    await threads?.close();
  }
  const puts = threads ? 0 : 2 * count;
  const lasts = settles ? "settled" : "put";
  expect(events).toEqual([...Array.from({ length: puts }, () => lasts), ...(settles ? ["now settled"] : [])]);
  for await (const { entry } of prepared.shards) {
    expect((await opened.stat(entry.digest))?.bytes).toBe(entry.bytes);
    expect(await opened.stat(entry.segmentIndex)).not.toBeNull();
  }
});
