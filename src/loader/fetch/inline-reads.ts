/**
 * Owns verified reading in the thread that calls: open shards, a bounded number of them, and their readers.
 *
 * The reading worker runs this same code; small selections, and hosts without workers, run it beside the training loop.
 */
import { ShardpactError } from "../../model/errors.ts";
import type { ReadableStore } from "../../shards/port.ts";
import { openShard, type ShardReader } from "../../shards/reader.ts";
import type { ShardRef, ShardWhere } from "../../shards/shard-ref.ts";
import { copyParts, type Scratch } from "./copy-parts.ts";
import type { Hashing, ShardReads } from "./reads.ts";

/** Files that are open at a time at most, unless more are being read. */
const READERS_MAX = 256;

export interface InlineReadsOptions {
  readonly where: ShardWhere;
  /** In order of preference. They stay open. */
  readonly stores: readonly ReadableStore[];
  readonly hashing: Hashing;
  /** For as long as the reads live. */
  readonly signal?: AbortSignal;
}

interface Opened {
  readonly reader: Promise<ShardReader>;
  users: number;
}

export function createInlineReads({ where, stores, hashing, signal }: InlineReadsOptions): ShardReads {
  const open = new Map<string, Opened>(); // the longest unused first
  const scratch: Scratch = [];
  let verifiedBytes = 0;
  let closed = false;

  function opened(entry: ShardRef): Opened {
    if (closed) throw new ShardpactError("closed", "the loader is closed");
    const key = `${entry.digest} ${entry.segmentIndex} ${entry.name}`;
    const known = open.get(key);
    if (known) open.delete(key);
    const hasher = hashing === "none" ? { hasher: () => null } : {};
    const next: Opened = known ?? {
      reader: openShard({ entry, where, stores, ...(signal ? { signal } : {}), ...hasher }),
      users: 0,
    };
    open.set(key, next);
    next.reader.catch(() => {
      if (open.get(key) === next) open.delete(key); // so that the next read tries again
    });
    return next;
  }

  async function use<T>(entry: ShardRef, work: (reader: ShardReader) => Promise<T> | T): Promise<T> {
    const held = opened(entry);
    held.users++;
    try {
      return await work(await held.reader);
    } finally {
      held.users--;
      if (open.size > READERS_MAX) await closeOldest(READERS_MAX);
    }
  }

  async function closeOldest(keep: number): Promise<void> {
    for (const [key, held] of open) {
      if (open.size <= keep) return;
      if (held.users > 0) continue;
      open.delete(key);
      await closeReader(held);
    }
  }

  return {
    map: (shard) => use(shard, ({ index: { segments, dictionaryIds } }) => ({ segments, dictionaryIds })),
    read: (shard, segment, parts, target) =>
      use(shard, async (reader) => {
        const bytes = await copyParts(reader, segment, parts, target, scratch);
        verifiedBytes += bytes;
      }),
    takeAnswers: () => undefined,
    get verifiedBytes() {
      return verifiedBytes;
    },
    forget: () => closeOldest(0),
    async close() {
      closed = true;
      const all = [...open.values()];
      open.clear();
      await Promise.all(all.map(closeReader));
    },
  };
}

async function closeReader({ reader }: Opened): Promise<void> {
  const opened = await reader.catch(() => null); // one that failed to open has nothing to close
  await opened?.close();
}
