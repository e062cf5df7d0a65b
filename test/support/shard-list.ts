/**
 * Owns lists of shards that no scan made: for tests of what comes after it.
 */
import type { PageEntry } from "../../src/merkle/page.ts";
import type { PreparedShard, ShardList } from "../../src/shards/shard-list.ts";

export function shardList(entries: readonly PageEntry[]): ShardList {
  async function* read(): AsyncGenerator<PreparedShard> {
    for (const entry of entries) yield { entry, path: "", readIndex: () => Promise.resolve(new Uint8Array(0)) };
  }
  return {
    count: entries.length,
    rows: entries.reduce((sum, { rows }) => sum + rows, 0),
    bytes: entries.reduce((sum, { bytes }) => sum + bytes, 0),
    [Symbol.asyncIterator]: read,
  };
}
