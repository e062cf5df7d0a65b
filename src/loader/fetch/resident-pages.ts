/**
 * Owns which pages of a layout are in memory: bounded in bytes; the longest unused leave, and are fetched and checked again
 * when a row of them is wanted.
 *
 * Who works with shards of a page that left keeps those shards alive, and no others. The page that was used last stays,
 * however large it is.
 */
import { SHARD_BYTES } from "./shard-memory.ts";

export interface Page<Shard> {
  /** Null while it is not in memory. */
  shards: readonly Shard[] | null;
  /** When it was used last, in the time of this module. */
  usedAt: number;
}

export interface ResidentPages<Shard> {
  readonly count: number;
  /** About. */
  readonly bytes: number;
  /** The page was used: others leave before it. */
  touch(page: Page<Shard>): void;
  /** Takes a page's shards in; others may leave. Of a page that is here already, the shards that are. */
  admit(page: Page<Shard>, shards: readonly Shard[]): readonly Shard[];
  /** A shard of the page takes more than it did. */
  grow(page: Page<Shard>, bytes: number): void;
}

export function createResidentPages<Shard>(bytesMax: number): ResidentPages<Shard> {
  const sizes = new Map<Page<Shard>, number>();
  let bytes = 0;
  /** Goes on when pages come or grow: rows of a shuffled batch touch pages far too often to keep a list in order. */
  let clock = 0;

  function evict(): void {
    while (bytes > bytesMax && sizes.size > 1) {
      let oldest: Page<Shard> | null = null;
      for (const page of sizes.keys()) if (oldest === null || page.usedAt < oldest.usedAt) oldest = page;
      if (oldest === null) return;
      bytes -= sizes.get(oldest) ?? 0;
      sizes.delete(oldest);
      oldest.shards = null;
    }
  }

  function resize(page: Page<Shard>, size: number): void {
    bytes += size - (sizes.get(page) ?? 0);
    sizes.set(page, size);
    page.usedAt = ++clock;
    evict();
  }

  return {
    get count() {
      return sizes.size;
    },
    get bytes() {
      return bytes;
    },
    touch(page) {
      page.usedAt = clock;
    },
    admit(page, shards) {
      page.shards ??= shards;
      if (page.shards === shards) resize(page, shards.length * SHARD_BYTES);
      return page.shards;
    },
    grow(page, more) {
      const size = sizes.get(page);
      if (size !== undefined) resize(page, size + more);
    },
  };
}
