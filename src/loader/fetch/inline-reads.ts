/**
 * Owns verified reading in the thread that calls: open shards, a bounded number of them, and their readers.
 *
 * The reading worker runs this same code; small selections, and hosts without workers, run it beside the training loop.
 */
import { ShardpactError } from "../../model/errors.ts";
import type { ReadableStore } from "../../shards/port.ts";
import { openShard, type ShardReader } from "../../shards/reader.ts";
import type { PassedOver, ShardRef, ShardWhere } from "../../shards/shard-ref.ts";
import { copyParts, type Scratch } from "./copy-parts.ts";
import { indexBytes, READERS_MAX } from "./shard-memory.ts";
import type { Hashing, ShardReads } from "./reads.ts";

/** For segment indexes, where nobody says: those of 128 GiB. */
const INDEX_BYTES_MAX = 32 * 1024 * 1024;

export interface InlineReadsOptions {
  readonly where: ShardWhere;
  /** In order of preference. They stay open. */
  readonly stores: readonly ReadableStore[];
  readonly hashing: Hashing;
  /** What the segment indexes of open shards may take; one that is used stays, however large it is. */
  readonly indexBytesMax?: number;
  /** For as long as the reads live. */
  readonly signal?: AbortSignal;
  /** Told when another store gave what this one should have. */
  readonly onPassedOver?: (passed: PassedOver) => void;
}

interface Opened {
  readonly reader: Promise<ShardReader>;
  users: number;
  /** Of its index, once that is here. */
  bytes: number;
}

export function createInlineReads(options: InlineReadsOptions): ShardReads {
  const { hashing, signal, indexBytesMax = INDEX_BYTES_MAX, ...shared } = options;
  const open = new Map<string, Opened>(); // the longest unused first
  const scratch: Scratch = [];
  let verifiedBytes = 0;
  let heldBytes = 0; // of the indexes of all that are open
  let closed = false;

  function opened(entry: ShardRef): Opened {
    if (closed) throw new ShardpactError("closed", "the loader is closed");
    const key = `${entry.digest} ${entry.segmentIndex} ${entry.name}`;
    const known = open.get(key);
    if (known) open.delete(key);
    const hasher = hashing === "none" ? { hasher: () => null } : {};
    const next: Opened = known ?? {
      reader: openShard({ entry, ...shared, ...(signal ? { signal } : {}), ...hasher }),
      users: 0,
      bytes: 0,
    };
    open.set(key, next);
    if (!known)
      next.reader.then(
        ({ index }) => {
          if (open.get(key) === next) heldBytes += next.bytes = indexBytes(index);
        },
        () => {
          if (open.get(key) === next) open.delete(key); // so that the next read tries again
        },
      );
    return next;
  }

  async function use<T>(entry: ShardRef, work: (reader: ShardReader) => Promise<T> | T): Promise<T> {
    const held = opened(entry);
    held.users++;
    try {
      return await work(await held.reader);
    } finally {
      held.users--;
      if (open.size > READERS_MAX || heldBytes > indexBytesMax) await closeOldest(READERS_MAX, indexBytesMax, held);
    }
  }

  /** @param latest stays: it is wanted again, most likely */
  async function closeOldest(keep: number, keepBytes: number, latest: Opened | null): Promise<void> {
    for (const [key, held] of open) {
      if (open.size <= keep && heldBytes <= keepBytes) return;
      if (held.users > 0 || held === latest) continue;
      open.delete(key);
      heldBytes -= held.bytes;
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
    forget: () => closeOldest(0, 0, null),
    async close() {
      closed = true;
      const all = [...open.values()];
      open.clear();
      heldBytes = 0;
      await Promise.all(all.map(closeReader));
    },
  };
}

async function closeReader({ reader }: Opened): Promise<void> {
  const opened = await reader.catch(() => null); // one that failed to open has nothing to close
  await opened?.close();
}
