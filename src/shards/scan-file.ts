/**
 * Owns the pass over an Arrow IPC file that digests every leaf and the whole, and checks the structure of every batch.
 *
 * Memory is bounded by the read buffers, one message's metadata and the index, whatever the file declares. A thread runs this and
 * what it imports, and no more: modules cost each thread again what they cost the first.
 */
import { formatDigest, type Digest } from "../model/bytes.ts";
import { ShardpactError, invariant } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { DIGEST_BYTES, hashBytesInto, Hasher } from "../merkle/hash.ts";
import { encodeSegmentIndex, segmentIndexDigest, tileSegments } from "../merkle/segment-index.ts";
import type { Segment } from "../merkle/segment-index.ts";
import { type BatchValidator, createBatchValidator } from "./batch-validator.ts";
import { openBlocks, readExactly } from "./file-blocks.ts";
import { openFile, type FileReads, type ReadKind } from "./file-reads.ts";
import { readFrame, type Frame } from "./frame.ts";
import { malformed } from "./malformed.ts";

export interface ScanOptions {
  readonly signal?: AbortSignal;
  /** Told after each piece how many bytes it had. */
  readonly onBytes?: (bytes: number) => void;
  /** Default `async`. */
  readonly reads?: ReadKind;
}

export interface ScannedShard {
  readonly rows: number;
  readonly bytes: number;
  /** Plain BLAKE3 of the file: what `b3sum` prints. */
  readonly digest: Digest;
  /** Encoded segment index, and its digest. */
  readonly index: Uint8Array;
  readonly indexDigest: Digest;
  /** Canonical schema, and where in the file the footer with it starts. */
  readonly schema: Uint8Array;
  readonly schemaAt: number;
}

/**
 * `scanShard` without a look at what the schema means: `checkSchema` is for the caller.
 * @throws `shard_malformed` (file, offset, reason), `not_found`, `store_failed`, `limit_exceeded`, `aborted`
 */
export async function scanFile(path: string, options: ScanOptions = {}): Promise<ScannedShard> {
  const file = await openFile(path, options.reads ?? "async");
  try {
    const before = await file.stat();
    if (!before.isFile()) throw malformed(path, 0, "it is not a regular file");
    const readAt = (position: number, length: number) => readExactly(path, file, position, new Uint8Array(length));
    const frame = await readFrame(path, before.size, readAt);
    const scanned = await scanSegments(path, file, frame, before.size, options);
    const after = await file.stat();
    if (after.size !== before.size || after.mtimeMs !== before.mtimeMs) {
      throw malformed(path, 0, "it changed while it was read", "Publish it once it is written.");
    }
    return scanned;
  } finally {
    await file.close();
  }
}

async function scanSegments(
  path: string,
  file: FileReads,
  frame: Frame,
  fileBytes: number,
  options: ScanOptions,
): Promise<ScannedShard> {
  const segments = tileSegments(frame.segments.map((segment) => ({ ...segment, rows: 0 })));
  const validator = createBatchValidator(path, frame, (position, length) =>
    readExactly(path, file, position, new Uint8Array(length)),
  );
  const { leaves, fileDigest } = await digestSegments(path, file, fileBytes, segments, validator, options);
  const rowsOf = validator.finish();
  const index = encodeSegmentIndex({
    fileBytes,
    fileDigest,
    segments: segments.map((segment, i) => ({ ...segment, rows: rowsOf(i) })),
    leaves,
    dictionaryIds: frame.dictionaryIds,
  });
  return {
    rows: segments.reduce((sum, { kind }, i) => (kind === "batch" ? sum + rowsOf(i) : sum), 0),
    bytes: fileBytes,
    digest: formatDigest(fileDigest),
    index,
    indexDigest: formatDigest(segmentIndexDigest(index)),
    schema: frame.schema,
    schemaAt: segments.at(-1)?.offset ?? 0,
  };
}

/** Goes through the file once: every byte is hashed with the file and with its leaf, and shown to the validator. */
async function digestSegments(
  path: string,
  file: FileReads,
  fileBytes: number,
  segments: readonly Segment[],
  validator: BatchValidator,
  { signal, onBytes }: ScanOptions,
): Promise<{ leaves: Uint8Array; fileDigest: Uint8Array }> {
  const leaves = Buffer.alloc(leafBytesOf(path, segments));
  const whole = new Hasher();
  const blocks = openBlocks(path, file, fileBytes, signal);
  let s = 0; // the segment
  let from = 0; // how much of it is done
  let kept = 0; // bytes of the last block that are not
  try {
    for (let block = await blocks.next(0); block; block = await blocks.next(kept)) {
      const { bytes, fresh } = block;
      whole.update(fresh);
      let at = 0;
      for (let segment = segments[s]; segment; segment = segments[s]) {
        const length = wholeLeaves(segment.bytes - from, bytes.byteLength - at);
        if (length === 0) break;
        const part = bytes.subarray(at, at + length);
        hashLeaves(part, leaves, segment.firstLeaf + from / LIMITS.leafBytes);
        if (segment.kind === "batch" || segment.kind === "dictionary") {
          const opening = validator.feed(s, segment.offset, from, part);
          if (opening) await opening;
        }
        at += length;
        from += length;
        if (from === segment.bytes) {
          s += 1;
          from = 0;
        }
      }
      kept = bytes.byteLength - at;
      onBytes?.(fresh.byteLength);
    }
  } finally {
    await blocks.close();
  }
  invariant(s === segments.length && kept === 0, "the segments tile the file");
  return { leaves, fileDigest: whole.digest() };
}

/** How many of the bytes at hand are whole leaves of a segment; its last leaf may be short. */
function wholeLeaves(segmentBytes: number, bytes: number): number {
  return segmentBytes <= bytes ? segmentBytes : bytes - (bytes % LIMITS.leafBytes);
}

function leafBytesOf(path: string, segments: readonly Segment[]): number {
  const leafCount = segments.reduce((sum, segment) => sum + segment.leafCount, 0);
  if (64 + 32 * segments.length + DIGEST_BYTES * leafCount <= LIMITS.segmentIndexBytesMax)
    return leafCount * DIGEST_BYTES;
  throw new ShardpactError("limit_exceeded", `${path}: ${leafCount} leaves do not fit a segment index`, {
    details: { file: path, leafCount, segments: segments.length },
    hint: "Write shards of up to some hundred MiB with batches of about 1 MiB.",
  });
}

function hashLeaves(bytes: Uint8Array, leaves: Buffer, firstLeaf: number): void {
  for (let at = 0, leaf = firstLeaf; at < bytes.byteLength; at += LIMITS.leafBytes, leaf += 1)
    hashBytesInto(bytes.subarray(at, at + LIMITS.leafBytes), leaves, leaf * DIGEST_BYTES);
}
