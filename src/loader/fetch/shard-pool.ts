/**
 * Owns the open shards of a loader: verified readers, a bounded number of them, and the dictionaries of their shards.
 *
 * `read` is the one door through which shard bytes come: read, verified leaf by leaf, then decoded under the agreed schema.
 */
import type { RecordBatch, Schema } from "apache-arrow";
import type { ConfirmedVersion } from "../../client/types.ts";
import { ShardpactError } from "../../model/errors.ts";
import { decodeBatch, decodeDictionaries, type Dictionaries } from "../../shards/decode.ts";
import { openShard, type LeafHasher, type ShardReader } from "../../shards/reader.ts";
import { listBatches, type BatchSegment, type ShardPlace } from "./layout.ts";

/** Files that are open at a time at most, unless more are being read. */
const READERS_MAX = 256;

export interface ShardPool extends AsyncDisposable {
  /** Reads the shard's index, so that its batches are known. */
  open(shard: ShardPlace): Promise<readonly BatchSegment[]>;
  /** The batch, verified; its arrays are views into `buffer`. @throws `shard_corrupt`, `shard_malformed`, `store_failed`, … */
  read(batch: BatchSegment, buffer: Uint8Array): Promise<RecordBatch>;
  /** Forgets what was read of shards; call between epochs. */
  forget(): Promise<void>;
  close(): Promise<void>;
}

interface Opened {
  readonly reader: Promise<ShardReader>;
  dictionaries: Promise<Dictionaries> | null;
  users: number;
}

export interface ShardPoolOptions {
  readonly version: Pick<ConfirmedVersion, "dataset" | "version" | "stores">;
  readonly schema: Schema;
  readonly hasher?: LeafHasher;
  /** For as long as the pool lives. */
  readonly signal: AbortSignal;
}

export function createShardPool({ version, schema, hasher, signal }: ShardPoolOptions): ShardPool {
  const open = new Map<ShardPlace, Opened>();
  const where = { dataset: version.dataset, version: version.version };
  let closed = false;

  function opened(shard: ShardPlace): Opened {
    if (closed) throw new ShardpactError("closed", "the loader is closed");
    const known = open.get(shard);
    if (known) open.delete(shard);
    const { stores } = version;
    const next: Opened = known ?? {
      reader: openShard({ entry: shard.entry, where, stores, signal, ...(hasher ? { hasher } : {}) }),
      dictionaries: null,
      users: 0,
    };
    open.set(shard, next); // most recently used last
    next.reader.catch(() => open.delete(shard)); // so that the next read tries again
    return next;
  }

  async function use<T>(shard: ShardPlace, work: (reader: ShardReader, held: Opened) => Promise<T>): Promise<T> {
    const held = opened(shard);
    held.users++;
    try {
      return await work(await held.reader, held);
    } finally {
      held.users--;
      await closeOldest(READERS_MAX);
    }
  }

  async function closeOldest(keep: number): Promise<void> {
    for (const [shard, held] of open) {
      if (open.size <= keep) return;
      if (held.users > 0) continue;
      open.delete(shard);
      await closeReader(held);
    }
  }

  return {
    open: (shard) => use(shard, async (reader) => (shard.batches ??= listBatches(shard, reader.index))),
    read: (batch, buffer) =>
      use(batch.shard, async (reader, held) => {
        held.dictionaries ??= readDictionaries(reader, schema);
        const dictionaries = await held.dictionaries;
        const bytes = await reader.readSegment(batch.segment, buffer);
        return named(batch, () => decodeBatch(schema, dictionaries, bytes, batch.rows));
      }),
    forget: () => closeOldest(0),
    async close() {
      closed = true;
      const all = [...open.values()];
      open.clear();
      await Promise.all(all.map(closeReader));
    },
    async [Symbol.asyncDispose]() {
      await this.close();
    },
  };
}

async function closeReader({ reader }: Opened): Promise<void> {
  const opened = await reader.catch(() => null); // one that failed to open has nothing to close
  await opened?.close();
}

/** Dictionary batches of a shard, in memory of their own: they are used as long as the shard is open. */
async function readDictionaries(reader: ShardReader, schema: Schema): Promise<Dictionaries> {
  const segments: Uint8Array[] = [];
  for (const [i, { kind, bytes }] of reader.index.segments.entries()) {
    if (kind === "dictionary") segments.push(await reader.readSegment(i, new Uint8Array(bytes)));
  }
  return decodeDictionaries(schema, reader.index, segments);
}

/** Adds shard and segment to what decoding says. */
function named<T>(batch: BatchSegment, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (!(error instanceof ShardpactError)) throw error;
    const place = { shard: batch.shard.entry.name, segment: batch.segment };
    throw new ShardpactError(error.code, `shard ${place.shard} segment ${place.segment}: ${error.message}`, {
      cause: error,
      hint: error.hint,
      details: { ...error.details, ...place },
    });
  }
}
