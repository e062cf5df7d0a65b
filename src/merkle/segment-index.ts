/**
 * Owns the segment index: what a shard is made of, and the digest of every 128 KiB leaf of it.
 *
 * Segments (head, schema, dictionary, batch, footer) tile the file, so whatever is read of a shard is covered by a leaf.
 * A leaf is `LIMITS.leafBytes` of one segment, counted from the segment's first byte, the last one short; its digest is
 * plain BLAKE3. The index is an object beside the shards; its digest (`segmentIndexDigest`) stands in the page entry.
 *
 * Bytes, version 1; every integer is little-endian, S segments, D dictionary columns, L leaves in all:
 *
 *   offset        size   what
 *   0             4      magic "SPSI"
 *   4             4      u32 version = 1
 *   8             8      u64 bytes of the file
 *   16            32     plain BLAKE3 of the file
 *   48            4      u32 leaf bytes = 131072
 *   52            4      u32 S
 *   56            4      u32 D
 *   60            4      u32 L
 *   64            8·D    u64 each: the id by which this file's dictionary batches name the dictionary of the k-th
 *                        dictionary column of the schema (fields in depth-first order)
 *   …             8·S    u64 each: bytes of the segment (offsets are the running sum)
 *   …             8·S    u64 each: rows of a batch, values of a dictionary, 0 otherwise
 *   …             S      u8 each: kind: 0 head, 1 schema, 2 dictionary, 3 batch, 4 footer
 *   …             P      zero bytes up to the next multiple of 8
 *   …             32·L   leaf digests, segment after segment
 *
 * The first segment is the head, the only one; the last is the footer, the only one; a schema, if there is one, is the
 * second. No segment is empty. L is the sum over segments of ⌈bytes ÷ 131072⌉. Nothing follows the leaves.
 */
import { ShardpactError, invariant } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { hashAs } from "./hash.ts";

export const SEGMENT_KINDS = ["head", "schema", "dictionary", "batch", "footer"] as const;
export type SegmentKind = (typeof SEGMENT_KINDS)[number];

export interface Segment {
  readonly kind: SegmentKind;
  readonly offset: number;
  readonly bytes: number;
  /** Rows of a batch; values of a dictionary; 0 of anything else. */
  readonly rows: number;
  readonly leafCount: number;
  /** Position of the segment's first leaf in `SegmentIndex.leaves`. */
  readonly firstLeaf: number;
}

export interface SegmentIndex {
  readonly fileBytes: number;
  readonly fileDigest: Uint8Array;
  readonly segments: readonly Segment[];
  /** 32 bytes a leaf. */
  readonly leaves: Uint8Array;
  /** Per dictionary column of the schema, depth first: the id of its dictionary in this file. */
  readonly dictionaryIds: readonly number[];
}

/** A segment before its leaves are counted. */
export interface SegmentPart {
  readonly kind: SegmentKind;
  readonly bytes: number;
  readonly rows: number;
}

const MAGIC = 0x4953_5053; // "SPSI"
const VERSION = 1;
const HEADER_BYTES = 64;
const DIGEST_BYTES = 32;

/** Lays segments end to end: gives each its offset and its leaves. */
export function tileSegments(parts: Iterable<SegmentPart>): readonly Segment[] {
  const segments: Segment[] = [];
  let offset = 0;
  let firstLeaf = 0;
  for (const { kind, bytes, rows } of parts) {
    const leafCount = Math.ceil(bytes / LIMITS.leafBytes);
    segments.push({ kind, offset, bytes, rows, leafCount, firstLeaf });
    offset += bytes;
    firstLeaf += leafCount;
  }
  return segments;
}

/** The agreed digest of leaf `leaf` (counted from 0 in the whole file). A view into the index. */
export function leafDigest(index: SegmentIndex, leaf: number): Uint8Array {
  return index.leaves.subarray(leaf * DIGEST_BYTES, (leaf + 1) * DIGEST_BYTES);
}

/** Bytes of leaf `leaf` of a segment (counted from 0 in that segment). */
export function leafLength(segment: Segment, leaf: number): number {
  return Math.min(LIMITS.leafBytes, segment.bytes - leaf * LIMITS.leafBytes);
}

export function encodeSegmentIndex(index: SegmentIndex): Uint8Array {
  const { segments, leaves, dictionaryIds } = index;
  const kindsAt = HEADER_BYTES + 8 * dictionaryIds.length + 16 * segments.length;
  const leavesAt = Math.ceil((kindsAt + segments.length) / 8) * 8;
  const out = new Uint8Array(leavesAt + leaves.byteLength);
  const view = new DataView(out.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setBigUint64(8, BigInt(index.fileBytes), true);
  out.set(index.fileDigest, 16);
  view.setUint32(48, LIMITS.leafBytes, true);
  view.setUint32(52, segments.length, true);
  view.setUint32(56, dictionaryIds.length, true);
  view.setUint32(60, leaves.byteLength / DIGEST_BYTES, true);
  let at = HEADER_BYTES;
  for (const id of dictionaryIds) {
    view.setBigUint64(at, BigInt(id), true);
    at += 8;
  }
  segments.forEach((segment, i) => {
    view.setBigUint64(at + 8 * i, BigInt(segment.bytes), true);
    view.setBigUint64(at + 8 * (segments.length + i), BigInt(segment.rows), true);
    out[kindsAt + i] = SEGMENT_KINDS.indexOf(segment.kind);
  });
  out.set(leaves, leavesAt);
  invariant(problemOf(index) === null, `a segment index that its own rules refuse: ${problemOf(index)}`);
  return out;
}

/**
 * Decodes and checks every rule above; the result keeps a copy, never the caller's memory.
 * @throws ShardpactError `damaged`
 */
export function decodeSegmentIndex(bytes: Uint8Array): SegmentIndex {
  if (bytes.byteLength < HEADER_BYTES) throw damaged(`${bytes.byteLength} bytes are too few`);
  if (bytes.byteLength > LIMITS.segmentIndexBytesMax) throw damaged(`${bytes.byteLength} bytes are too many`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) throw damaged("the magic is not SPSI");
  if (view.getUint32(4, true) !== VERSION) throw damaged(`version ${view.getUint32(4, true)} is not known`);
  if (view.getUint32(48, true) !== LIMITS.leafBytes) throw damaged("the leaf size is not 128 KiB");
  const segmentCount = view.getUint32(52, true);
  const dictionaryCount = view.getUint32(56, true);
  const leafCount = view.getUint32(60, true);
  const kindsAt = HEADER_BYTES + 8 * dictionaryCount + 16 * segmentCount;
  const leavesAt = Math.ceil((kindsAt + segmentCount) / 8) * 8;
  if (leavesAt + DIGEST_BYTES * leafCount !== bytes.byteLength) throw damaged("its counts do not fit its length");
  const dictionaryIds = Array.from({ length: dictionaryCount }, (_, k) => safeU64(view, HEADER_BYTES + 8 * k));
  const bytesAt = HEADER_BYTES + 8 * dictionaryCount;
  const parts = Array.from({ length: segmentCount }, (_, i): SegmentPart => {
    const kind = SEGMENT_KINDS[bytes[kindsAt + i] ?? 255];
    if (kind === undefined) throw damaged(`segment ${i} is of an unknown kind`);
    return { kind, bytes: safeU64(view, bytesAt + 8 * i), rows: safeU64(view, bytesAt + 8 * (segmentCount + i)) };
  });
  if (bytes.subarray(kindsAt + segmentCount, leavesAt).some((b) => b !== 0)) throw damaged("its padding is not zero");
  const index: SegmentIndex = {
    fileBytes: safeU64(view, 8),
    fileDigest: bytes.slice(16, 48),
    segments: tileSegments(parts),
    leaves: bytes.slice(leavesAt),
    dictionaryIds,
  };
  const problem = problemOf(index);
  if (problem !== null) throw damaged(problem);
  return index;
}

/** Domain-separated digest of an encoded segment index. */
export function segmentIndexDigest(bytes: Uint8Array): Uint8Array {
  return hashAs("segmentIndex", bytes);
}

/** The rule that an index breaks, or null. */
function problemOf({ segments, leaves, fileBytes, fileDigest }: SegmentIndex): string | null {
  const last = segments.length - 1;
  if (fileDigest.byteLength !== DIGEST_BYTES) return "its file digest is not 32 bytes";
  if (segments.length > LIMITS.segmentsPerShardMax) return "too many segments";
  if (segments[0]?.kind !== "head" || segments[last]?.kind !== "footer") return "no head first or no footer last";
  let end = 0;
  let leafCount = 0;
  for (const [i, { kind, offset, bytes, rows }] of segments.entries()) {
    if (bytes === 0) return `segment ${i} is empty`;
    if (offset !== end) return `segment ${i} does not follow the one before it`;
    if ((kind === "head") !== (i === 0) || (kind === "footer") !== (i === last))
      return `segment ${i} is a second ${kind}`;
    if (kind === "schema" && i !== 1) return "its schema is not the second segment";
    if (rows !== 0 && kind !== "batch" && kind !== "dictionary") return `segment ${i} is a ${kind} with rows`;
    end += bytes;
    leafCount += Math.ceil(bytes / LIMITS.leafBytes);
  }
  if (end !== fileBytes) return `its segments cover ${end} of ${fileBytes} bytes`;
  if (leafCount * DIGEST_BYTES !== leaves.byteLength) return `it has not ${leafCount} leaves`;
  return null;
}

function safeU64(view: DataView, at: number): number {
  const value = view.getBigUint64(at, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged(`a number at byte ${at} is beyond 2^53`);
  return Number(value);
}

function damaged(reason: string): ShardpactError {
  return new ShardpactError("damaged", `a segment index does not decode: ${reason}`, {
    hint: "Fetch it again from another store, or publish the shard again.",
  });
}
