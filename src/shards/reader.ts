/**
 * Owns verified reading of one shard: no byte leaves `readSegment` or `readLeaves` before its leaf matched the agreed index.
 *
 * A copy that does not match is quarantined in its store, and the read goes on with the next store; only when no store
 * has a good copy does it throw, naming shard, segment, leaf and byte range. A store that merely fails keeps its copy and
 * is asked again by the next read.
 */
import { formatDigest } from "../model/bytes.ts";
import { ShardpactError, invariant } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { DIGEST_BYTES, hashBytesInto } from "../merkle/hash.ts";
import { leafDigest, leafLength, type SegmentIndex } from "../merkle/segment-index.ts";
import { fetchSegmentIndex } from "./fetch-index.ts";
import { openCopies, type CopiesOptions } from "./copies.ts";
import type { ObjectHandle } from "./port.ts";
import type { ShardRef } from "./shard-ref.ts";
import { untilAborted } from "./until-aborted.ts";

/** Digest of one leaf, good until the next call; null takes the leaf unseen (benchmarks only: no public option leads here). */
export type LeafHasher = (leaf: Uint8Array) => Uint8Array | null;

export interface OpenShardOptions extends CopiesOptions {
  readonly hasher?: LeafHasher;
}

export interface ShardReader extends AsyncDisposable {
  readonly entry: ShardRef;
  readonly index: SegmentIndex;
  /**
   * Reads a whole segment into `buffer` (at least `segment.bytes` long) and resolves with the view of it.
   * Reads into different buffers may overlap. @throws `shard_corrupt`, `store_failed`, `not_found`, `aborted`, `closed`
   */
  readSegment(segment: number, buffer: Uint8Array): Promise<Uint8Array>;
  /** Reads leaves [firstLeaf, endLeaf) of a segment, counted in that segment, to the start of `buffer`. Errors as above. */
  readLeaves(segment: number, firstLeaf: number, endLeaf: number, buffer: Uint8Array): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** Bytes asked of a store at once: the next piece is on its way while this one is hashed. A multiple of a leaf. */
const PIECE_BYTES = 8 * LIMITS.leafBytes;

/**
 * Fetches and checks the segment index, then opens the shard for verified reads.
 * @throws `shard_corrupt` when no store has a good index, `not_found`, `store_failed`, `aborted`
 */
export async function openShard(options: OpenShardOptions): Promise<ShardReader> {
  const { entry, signal } = options;
  const index = await fetchSegmentIndex(options);
  const copies = openCopies(options);
  const lastDigest = Buffer.alloc(DIGEST_BYTES);
  const hasher = options.hasher ?? ((leaf) => hashBytesInto(leaf, lastDigest, 0));
  let closed = false;

  async function readLeaves(segment: number, firstLeaf: number, endLeaf: number, buffer: Uint8Array) {
    if (closed) throw new ShardpactError("closed", `the reader of shard ${entry.name} is closed`);
    const { offset, bytes } = rangeOf(index, segment, firstLeaf, endLeaf, buffer);
    const read: LeafRead = { segment, offset, bytes, firstLeaf, buffer, hasher, index, signal, verified: 0 };
    const tried = new Set<number>();
    while (read.verified < read.bytes) {
      const copy = await copies.next(tried);
      try {
        await readVerified(copy.handle, read);
      } catch (error) {
        tried.add(copy.store);
        await copies.failed(copy.store, error instanceof BadLeaf ? corrupt(options, index, error, copy.url) : error);
      }
    }
    copies.tellPassedOver();
    return buffer.subarray(0, bytes);
  }

  async function close(): Promise<void> {
    closed = true;
    await copies.close();
  }
  return {
    entry,
    index,
    readLeaves,
    readSegment: (segment, buffer) => readLeaves(segment, 0, index.segments[segment]?.leafCount ?? 0, buffer),
    close,
    [Symbol.asyncDispose]: close,
  };
}

interface LeafRange {
  readonly segment: number;
  readonly offset: number;
  readonly bytes: number;
  readonly firstLeaf: number;
}

function rangeOf(index: SegmentIndex, at: number, firstLeaf: number, endLeaf: number, buffer: Uint8Array): LeafRange {
  const segment = index.segments[at];
  if (!segment || !(firstLeaf >= 0 && firstLeaf < endLeaf && endLeaf <= segment.leafCount)) {
    throw new ShardpactError("invalid_argument", `segment ${at} has no leaves [${firstLeaf}, ${endLeaf})`);
  }
  const from = firstLeaf * LIMITS.leafBytes;
  const bytes = Math.min(endLeaf * LIMITS.leafBytes, segment.bytes) - from;
  if (buffer.byteLength < bytes) {
    throw new ShardpactError("invalid_argument", `a buffer of ${buffer.byteLength} bytes is short for ${bytes}`);
  }
  return { segment: at, offset: segment.offset + from, bytes, firstLeaf };
}

/** A leaf that is not what was agreed (`got`), or that is not there to its end (`got` null). */
class BadLeaf extends Error {
  readonly segment: number;
  readonly leaf: number;
  readonly got: Uint8Array | null;
  constructor(segment: number, leaf: number, got: Uint8Array | null) {
    super("bad leaf");
    this.segment = segment;
    this.leaf = leaf;
    this.got = got;
  }
}

/** One call of `readLeaves`: what is wanted, and how many bytes of it are good so far. */
interface LeafRead extends LeafRange {
  readonly buffer: Uint8Array;
  readonly hasher: LeafHasher;
  readonly index: SegmentIndex;
  readonly signal: AbortSignal | undefined;
  verified: number;
}

/** Reads and hashes piece by piece from where an earlier copy turned bad. @throws BadLeaf, `store_failed`, `aborted` */
async function readVerified(handle: ObjectHandle, read: LeafRead): Promise<void> {
  const start = (at: number) => {
    const target = read.buffer.subarray(at, Math.min(at + PIECE_BYTES, read.bytes));
    return untilAborted(read.signal, readFully(handle, target, read.offset + at));
  };
  let inFlight = start(read.verified);
  while (read.verified < read.bytes) {
    const at = read.verified;
    const end = Math.min(at + PIECE_BYTES, read.bytes);
    const got = await inFlight;
    if (end < read.bytes && got === end - at) {
      inFlight = start(end);
      inFlight.catch(() => undefined); // awaited in the next round, unless this piece turns out bad
    }
    try {
      verifyPiece(read, at, end, at + got);
    } catch (error) {
      await inFlight.catch(() => undefined); // it still writes into the caller's buffer
      throw error;
    }
    read.verified = end;
  }
}

/** A store may give less than it was asked for; only nothing at all is the end. */
async function readFully(handle: ObjectHandle, target: Uint8Array, position: number): Promise<number> {
  for (let at = 0; ;) {
    const got = await handle.readInto(at === 0 ? target : target.subarray(at), position + at);
    at += got;
    if (got <= 0 || at >= target.byteLength) return Math.min(at, target.byteLength);
  }
}

/** Checks the leaves in bytes [from, to) of the range, of which those before `readTo` were read. */
function verifyPiece(read: LeafRead, from: number, to: number, readTo: number): void {
  const segment = read.index.segments[read.segment];
  invariant(segment, "the range lies in a segment");
  for (let at = from; at < to; at += LIMITS.leafBytes) {
    const leaf = read.firstLeaf + at / LIMITS.leafBytes;
    const length = leafLength(segment, leaf);
    if (at + length > readTo) throw new BadLeaf(read.segment, leaf, null);
    const digest = read.hasher(read.buffer.subarray(at, at + length));
    if (digest === null) continue;
    if (Buffer.compare(digest, leafDigest(read.index, segment.firstLeaf + leaf)) !== 0) {
      throw new BadLeaf(read.segment, leaf, new Uint8Array(digest));
    }
  }
}

function corrupt(options: OpenShardOptions, index: SegmentIndex, bad: BadLeaf, store: string): ShardpactError {
  const { entry, where } = options;
  const segment = index.segments[bad.segment];
  invariant(segment, "a bad leaf lies in a segment");
  const offset = segment.offset + bad.leaf * LIMITS.leafBytes;
  const bytes = leafLength(segment, bad.leaf);
  const expected = formatDigest(leafDigest(index, segment.firstLeaf + bad.leaf));
  const got = bad.got === null ? null : formatDigest(bad.got);
  return new ShardpactError(
    "shard_corrupt",
    `${where.dataset}@v${where.version}: shard ${entry.name} segment ${bad.segment} (${segment.kind}) leaf ${bad.leaf} ` +
      `(bytes ${offset}–${offset + bytes}) in ${store}: ` +
      (got === null ? "ends early" : `expected ${expected.slice(0, 11)}… got ${got.slice(0, 11)}…`),
    {
      details: {
        ...where,
        shard: entry.name,
        digest: entry.digest,
        segment: bad.segment,
        segmentKind: segment.kind,
        leaf: bad.leaf,
        offset,
        bytes,
        expected,
        got,
        store,
      },
      hint: "The copy was quarantined. Run `shardpact verify` on the store and fetch the shard again from a good one.",
    },
  );
}
