/**
 * Owns comparing the shards of two versions by name, in bounded memory: entries are dealt into parts by a hash of their names,
 * on disk, and the parts are compared one by one. Few entries make one part, which keeps their order.
 */
import type { ShardEntry } from "../client/types.ts";
import { hashBytes } from "../merkle/hash.ts";
import { utf8 } from "../model/bytes.ts";
import { openSpool, type Spool, type SpoolPlace } from "../shards/spool.ts";

export type Change = "added" | "removed" | "changed";

/** Entries of both sides that are compared at a time, about: some 50 MB. */
const PART_ENTRIES = 100_000;
const CHUNK_ENTRIES = 256;

type Entries = AsyncIterable<readonly ShardEntry[]>;

/** @param expected entries of both sides, about; it decides over the number of parts */
export async function* changedShards(
  before: Entries,
  after: Entries,
  expected: number,
): AsyncGenerator<readonly [Change, ShardEntry]> {
  await using spool = await openSpool();
  const parts = Math.max(1, Math.ceil(expected / PART_ENTRIES));
  const [old, young] = [await deal(spool, before, parts), await deal(spool, after, parts)];
  for (let part = 0; part < parts; part++) {
    const [was, is] = [await byName(spool, old[part]), await byName(spool, young[part])];
    for (const [name, entry] of was) if (!is.has(name)) yield ["removed", entry];
    for (const [name, entry] of is) {
      const then = was.get(name);
      if (then && (then.digest !== entry.digest || then.split !== entry.split)) yield ["changed", entry];
    }
    for (const [name, entry] of is) if (!was.has(name)) yield ["added", entry];
  }
}

/** Where the entries of each part lie. */
async function deal(spool: Spool, pages: Entries, parts: number): Promise<readonly SpoolPlace[][]> {
  const places = Array.from({ length: parts }, (): SpoolPlace[] => []);
  const waiting = Array.from({ length: parts }, (): ShardEntry[] => []);
  const flush = async (part: number): Promise<void> => {
    const entries = waiting[part]?.splice(0) ?? [];
    if (entries.length > 0) places[part]?.push(await spool.put(utf8(JSON.stringify(entries))));
  };
  for await (const entries of pages) {
    for (const entry of entries) {
      const part = parts === 1 ? 0 : partOf(entry.name, parts);
      if (waiting[part]?.push(entry) === CHUNK_ENTRIES) await flush(part);
    }
  }
  for (let part = 0; part < parts; part++) await flush(part);
  return places;
}

function partOf(name: string, parts: number): number {
  const digest = hashBytes(utf8(name));
  return new DataView(digest.buffer, digest.byteOffset).getUint32(0, true) % parts;
}

async function byName(spool: Spool, places: readonly SpoolPlace[] = []): Promise<Map<string, ShardEntry>> {
  const entries = new Map<string, ShardEntry>();
  for (const place of places) {
    const text = new TextDecoder().decode(await spool.read(place));
    for (const entry of JSON.parse(text) as readonly ShardEntry[]) entries.set(entry.name, entry);
  }
  return entries;
}
