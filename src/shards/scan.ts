/**
 * Owns looking at an Arrow IPC file before it is published: one pass that digests every leaf and the whole, and checks
 * the structure of every batch.
 *
 * Memory is bounded by the read buffers, one message's metadata and the index, whatever the file declares.
 */
import { formatDigest, type Digest } from "../model/bytes.ts";
import { ShardpactError, invariant } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { hashBytes, Hasher, DIGEST_BYTES } from "../merkle/hash.ts";
import { encodeSegmentIndex, leafLength, segmentIndexDigest, tileSegments } from "../merkle/segment-index.ts";
import type { Segment } from "../merkle/segment-index.ts";
import { createBatchValidator } from "./batch-validator.ts";
import { openFile, type FileReads, type ReadKind } from "./file-reads.ts";
import { readFrame, type Frame } from "./frame.ts";
import { malformed } from "./malformed.ts";
import { describeSchema } from "./schema.ts";

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
  /** Canonical schema, and a line for each column. */
  readonly schema: Uint8Array;
  readonly schemaReadable: readonly string[];
}

const UNIT_BYTES = 8 * LIMITS.leafBytes;

/**
 * Scans an uncompressed Arrow IPC file as arrow-js, pyarrow and polars write it.
 * @throws `shard_malformed` (file, offset, reason), `not_found`, `store_failed`, `limit_exceeded`, `aborted`
 */
export async function scanShard(path: string, options: ScanOptions = {}): Promise<ScannedShard> {
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
  { signal, onBytes }: ScanOptions,
): Promise<ScannedShard> {
  const segments = tileSegments(frame.segments.map((segment) => ({ ...segment, rows: 0 })));
  const leaves = new Uint8Array(leafBytesOf(path, segments));
  const whole = new Hasher();
  const validator = createBatchValidator(path, frame, (position, length) =>
    readExactly(path, file, position, new Uint8Array(length)),
  );
  for await (const { unit, bytes } of readUnits(path, file, fileBytes, segments, signal)) {
    whole.update(bytes);
    for (const part of unit.parts) {
      const segment = segments[part.segment];
      invariant(segment, "a part lies in a segment");
      const partBytes = bytes.subarray(part.at, part.at + part.bytes);
      hashLeaves(segment, part.from, partBytes, leaves);
      if (segment.kind === "batch" || segment.kind === "dictionary") {
        await validator.feed(part.segment, segment.offset, part.from, partBytes);
      }
    }
    onBytes?.(unit.bytes);
  }
  const rowsOf = validator.finish();
  const fileDigest = whole.digest();
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
    schemaReadable: describeSchema(frame.schema),
  };
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

function hashLeaves(segment: Segment, from: number, bytes: Uint8Array, leaves: Uint8Array): void {
  for (let at = 0; at < bytes.byteLength; at += LIMITS.leafBytes) {
    const leaf = (from + at) / LIMITS.leafBytes;
    const digest = hashBytes(bytes.subarray(at, at + leafLength(segment, leaf)));
    leaves.set(digest, (segment.firstLeaf + leaf) * DIGEST_BYTES);
  }
}

/** Bytes of one segment within one read. */
interface UnitPart {
  readonly segment: number;
  /** First byte, counted in the segment: a multiple of a leaf. */
  readonly from: number;
  /** First byte, counted in the unit. */
  readonly at: number;
  readonly bytes: number;
}

/** One read: whole small segments, or a piece of a large one, so that leaves never straddle reads. */
interface ReadUnit {
  readonly offset: number;
  readonly bytes: number;
  readonly parts: readonly UnitPart[];
}

function* planUnits(segments: readonly Segment[]): Generator<ReadUnit> {
  let parts: UnitPart[] = [];
  let offset = 0;
  let bytes = 0;
  for (const [i, segment] of segments.entries()) {
    for (let from = 0; from < segment.bytes; from += UNIT_BYTES) {
      const length = Math.min(UNIT_BYTES, segment.bytes - from);
      if (bytes + length > UNIT_BYTES) {
        yield { offset, bytes, parts };
        offset += bytes;
        [parts, bytes] = [[], 0];
      }
      parts.push({ segment: i, from, at: bytes, bytes: length });
      bytes += length;
    }
  }
  if (bytes > 0) yield { offset, bytes, parts };
}

/** Reads unit by unit into two buffers in turn: the next read is under way while a unit is worked on. Of blocking reads, one. */
async function* readUnits(
  path: string,
  file: FileReads,
  fileBytes: number,
  segments: readonly Segment[],
  signal: AbortSignal | undefined,
): AsyncGenerator<{ readonly unit: ReadUnit; readonly bytes: Uint8Array }> {
  const units = planUnits(segments);
  const count = file.isBlocking ? 1 : 2;
  const buffers = Array.from({ length: count }, () => new Uint8Array(Math.min(UNIT_BYTES, fileBytes)));
  let turn = 0;
  const start = () => {
    const next = units.next();
    if (next.done) return null;
    const buffer = buffers[turn++ % count];
    invariant(buffer, "there is a buffer for each turn");
    const bytes = readExactly(path, file, next.value.offset, buffer.subarray(0, next.value.bytes));
    bytes.catch(() => undefined); // awaited below, unless the consumer stops first
    return { unit: next.value, bytes };
  };
  let ahead = start();
  try {
    while (ahead) {
      if (signal?.aborted)
        throw new ShardpactError("aborted", `scanning ${path} was aborted`, { cause: signal.reason });
      const { unit, bytes } = ahead;
      const ready = await bytes;
      ahead = file.isBlocking ? null : start();
      yield { unit, bytes: ready };
      ahead ??= start();
    }
  } finally {
    await ahead?.bytes.catch(() => undefined);
  }
}

async function readExactly(path: string, file: FileReads, position: number, target: Uint8Array): Promise<Uint8Array> {
  for (let at = 0; at < target.byteLength;) {
    const bytes = await file.read(target.subarray(at), position + at);
    if (bytes === 0) throw malformed(path, position + at, "the file became shorter while it was read");
    at += bytes;
  }
  return target;
}
