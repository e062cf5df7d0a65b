/**
 * Owns what a loader knows of shards takes of memory beside their bytes: of pages, open shards, their record batches, tiles, segment
 * indexes, metadata. Figures of one thing each, measured (`test/loader/shard-memory.test.ts` holds them to V8's heap).
 */
import { DIGEST_BYTES } from "../../merkle/hash.ts";
import type { SegmentIndex } from "../../merkle/segment-index.ts";
import { LIMITS } from "../../model/limits.ts";
import type { Dictionaries } from "../../shards/decode.ts";
import type { BatchHeader } from "../../shards/message.ts";

/** A shard of a page: its entry with two digests and its name (measured: 410). */
export const SHARD_BYTES = 512;
/** A record batch of an open shard, with one tile. */
export const BATCH_BYTES = 256;
/** A further tile of it. */
export const TILE_BYTES = 112;
/** A tile in memory: its place in the cache, its columns. */
export const BLOCK_BYTES = 1536;

/** A segment in an index, beside 32 bytes for each leaf. */
const SEGMENT_BYTES = 96;
/** What a segment is expected to have of them: half a MiB. */
const SEGMENT_LEAVES = 4;
/** An open shard, its index aside. */
const READER_BYTES = 8192;
/** Shards that are open at a time at most in a thread, unless more are being read. */
export const READERS_MAX = 256;

/** Metadata of a record batch: a column's node, a buffer with what is checked of it, an offset that was looked at. */
const TABLE_BYTES = 1536;
const NODE_BYTES = 64;
const BUFFER_BYTES = 160;
const OFFSET_ENTRY_BYTES = 80;
/** Rows of views or unions that were looked at, and each span that they point into. */
const SCAN_BYTES = 256;
const SPAN_BYTES = 64;
/** A value's place in the vocabulary. */
const VALUE_BYTES = 4;

/** What an open shard's segment index takes where it is read. */
export function indexBytes({ segments, leaves }: Pick<SegmentIndex, "segments" | "leaves">): number {
  return READER_BYTES + leaves.byteLength + segments.length * SEGMENT_BYTES;
}

/** What is known of an open shard of so many bytes: where it is read, and its record batches where they are looked for. */
export function openShardBytes(segments: number, bytes: number): number {
  const leaves = Math.ceil(bytes / LIMITS.leafBytes) + segments;
  return READER_BYTES + leaves * DIGEST_BYTES + segments * (SEGMENT_BYTES + BATCH_BYTES);
}

/** What indexes of some shards take of one size, about, before they are opened; more when their record batches are smaller than a leaf. */
export function expectedIndexBytes(shards: number, bytesEach: number): number {
  return (
    shards * (READER_BYTES + Math.ceil(bytesEach / LIMITS.leafBytes) * (DIGEST_BYTES + SEGMENT_BYTES / SEGMENT_LEAVES))
  );
}

/** What the metadata of a record batch takes, once it is decoded, with the offsets in it that were looked at. */
export function tableBytes(table: {
  readonly header: Pick<BatchHeader, "nodes" | "buffers">;
  readonly offsets: ReadonlyMap<string, number>;
  readonly scans: ReadonlyMap<string, { readonly spans: readonly unknown[] }>;
}): number {
  const { header, offsets, scans } = table;
  const { nodes, buffers } = header;
  let spans = 0;
  for (const scan of scans.values()) spans += SCAN_BYTES + scan.spans.length * SPAN_BYTES;
  return (
    TABLE_BYTES + nodes.length * NODE_BYTES + buffers.length * BUFFER_BYTES + offsets.size * OFFSET_ENTRY_BYTES + spans
  );
}

export function dictionaryBytes(dictionaries: Dictionaries): number {
  let bytes = 0;
  for (const { byteLength, length } of dictionaries.values()) bytes += byteLength + length * VALUE_BYTES;
  return bytes;
}
