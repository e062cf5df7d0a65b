/**
 * Owns decoding what was read: record batches under the agreed schema, and the dictionaries of their shards.
 */
import type { RecordBatch, Schema } from "apache-arrow";
import { ShardpactError } from "../../model/errors.ts";
import { decodeBatch, decodeDictionaries, type Dictionaries } from "../../shards/decode.ts";
import { listBatches, type BatchSegment, type ShardPlace } from "./layout.ts";
import { wholePart, type ShardReads } from "./reads.ts";

/** Shards whose dictionaries are kept: the longest unused go first. */
const DICTIONARY_SHARDS_MAX = 256;

export interface ShardPool {
  /** Reads the shard's index, so that its batches are known. */
  open(shard: ShardPlace): Promise<readonly BatchSegment[]>;
  /** The batch, verified; its arrays are views into `buffer`. @throws `shard_corrupt`, `shard_malformed`, `store_failed`, … */
  read(batch: BatchSegment, buffer: Uint8Array): Promise<RecordBatch>;
  /** Forgets what was read of shards; call between epochs. */
  forget(): Promise<void>;
}

/** @param allocate memory that `reads` can read into, for dictionaries: kept as long as their shard is used */
export function createShardPool(reads: ShardReads, schema: Schema, allocate: (bytes: number) => Uint8Array): ShardPool {
  const dictionaries = new Map<ShardPlace, Promise<Dictionaries>>();
  const hasDictionaries = schema.dictionaries.size > 0;

  function dictionariesOf(shard: ShardPlace): Promise<Dictionaries> {
    const known = dictionaries.get(shard);
    if (known) dictionaries.delete(shard);
    const reading = known ?? readDictionaries(shard);
    dictionaries.set(shard, reading);
    if (known) return known;
    reading.catch(() => dictionaries.delete(shard)); // so that the next read tries again
    for (const oldest of dictionaries.keys()) {
      if (dictionaries.size <= DICTIONARY_SHARDS_MAX) break;
      dictionaries.delete(oldest);
    }
    return reading;
  }

  async function readDictionaries({ entry }: ShardPlace): Promise<Dictionaries> {
    const map = await reads.map(entry);
    const segments: Uint8Array[] = [];
    for (const [i, { kind, bytes }] of map.segments.entries()) {
      if (kind !== "dictionary") continue;
      const buffer = allocate(bytes).subarray(0, bytes);
      await reads.read(entry, i, wholePart(bytes), buffer);
      segments.push(buffer);
    }
    return decodeDictionaries(schema, map, segments);
  }

  return {
    open: async (shard) => (shard.batches ??= listBatches(shard, await reads.map(shard.entry))),
    async read(batch, buffer) {
      const { shard, segment, bytes, rows } = batch;
      const known = hasDictionaries ? await dictionariesOf(shard) : new Map<number, never>();
      const into = buffer.subarray(0, bytes);
      await reads.read(shard.entry, segment, wholePart(bytes), into);
      return named(batch, () => decodeBatch(schema, known, into, rows));
    },
    async forget() {
      dictionaries.clear();
      await reads.forget();
    },
  };
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
