/**
 * Owns checking one copy of a shard, whole: segment index, size, every leaf, the file's digest. Finds, and changes nothing unless asked.
 */
import { formatDigest, type Digest } from "../model/bytes.ts";
import { ShardpactError, isShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { hashBytes, Hasher } from "../merkle/hash.ts";
import { leafDigest, leafLength, type SegmentIndex, type SegmentKind } from "../merkle/segment-index.ts";
import { checkIndexObject } from "./fetch-index.ts";
import type { ObjectHandle, ShardStore } from "./port.ts";
import type { ShardRef } from "./shard-ref.ts";

/** One thing that is wrong with a copy. */
export type Finding =
  | { readonly kind: "missing"; readonly object: "shard" | "index"; readonly shard: string; readonly store: string }
  | {
      readonly kind: "index";
      readonly shard: string;
      readonly store: string;
      readonly expected: Digest;
      readonly got: Digest;
    }
  | {
      readonly kind: "size";
      readonly shard: string;
      readonly store: string;
      readonly expected: number;
      readonly got: number;
    }
  | {
      readonly kind: "leaf";
      readonly shard: string;
      readonly store: string;
      readonly segment: number;
      readonly segmentKind: SegmentKind;
      /** Counted in its segment. */
      readonly leaf: number;
      /** Place in the file. */
      readonly offset: number;
      readonly bytes: number;
      readonly expected: Digest;
      /** Null when the file ends before the leaf does. */
      readonly got: Digest | null;
    }
  /** Every leaf is right and the whole is not: the index itself describes another file. */
  | {
      readonly kind: "file";
      readonly shard: string;
      readonly store: string;
      readonly expected: Digest;
      readonly got: Digest;
    };

export interface VerifyShardOptions {
  readonly entry: ShardRef;
  readonly store: ShardStore;
  /** The agreed index, when another store's copy was fetched already; else this store's own is checked and used. */
  readonly index?: SegmentIndex;
  readonly signal?: AbortSignal;
  readonly onBytes?: (bytes: number) => void;
  /** Bad objects go to quarantine, with the reason that this gives for the first thing that is wrong with each. */
  readonly setAside?: (finding: Finding) => string;
}

const PIECE_BYTES = 8 * LIMITS.leafBytes;

/** What is wrong with a store's copy of a shard; nothing when it is as agreed. @throws `store_failed`, `aborted` */
export async function* verifyShard(options: VerifyShardOptions): AsyncGenerator<Finding> {
  const { entry, store, setAside } = options;
  const bad = new Map<Digest, string>();
  for await (const finding of findAll(options)) {
    const digest = finding.kind === "index" ? entry.segmentIndex : entry.digest;
    if (setAside && finding.kind !== "missing" && !bad.has(digest)) bad.set(digest, setAside(finding));
    yield finding;
  }
  // Not before all of it was read: in a bucket nothing can be read any more that has another name.
  for (const [digest, reason] of bad) await store.quarantine(digest, reason);
}

async function* findAll(options: VerifyShardOptions): AsyncGenerator<Finding> {
  const { entry, store, signal } = options;
  const place = { shard: entry.name, store: store.url };
  const found = await checkIndexObject(store, entry, signal);
  if (found.kind === "missing") yield { ...found, object: "index", ...place };
  if (found.kind === "corrupt") yield { kind: "index", ...place, expected: entry.segmentIndex, got: found.got };
  const index = options.index ?? (found.kind === "good" ? found.index : null);
  const handle = await openOrNull(store, entry.digest, signal);
  if (!handle) {
    yield { kind: "missing", object: "shard", ...place };
    return;
  }
  try {
    if (handle.bytes !== entry.bytes) yield { kind: "size", ...place, expected: entry.bytes, got: handle.bytes };
    if (index) yield* verifyLeaves(options, index, handle);
    else yield* verifyWhole(options, handle);
  } finally {
    await handle.close();
  }
}

async function openOrNull(store: ShardStore, digest: Digest, signal?: AbortSignal): Promise<ObjectHandle | null> {
  try {
    return await store.open(digest, signal);
  } catch (error) {
    if (isShardpactError(error, "not_found")) return null;
    throw error;
  }
}

async function* verifyLeaves(
  { entry, store, signal, onBytes }: VerifyShardOptions,
  index: SegmentIndex,
  handle: ObjectHandle,
): AsyncGenerator<Finding> {
  const place = { shard: entry.name, store: store.url };
  const buffer = new Uint8Array(PIECE_BYTES);
  const whole = new Hasher();
  let findings = 0;
  for (const [i, segment] of index.segments.entries()) {
    for (let from = 0; from < segment.bytes; from += PIECE_BYTES) {
      throwIfAborted(signal, entry.name);
      const want = Math.min(PIECE_BYTES, segment.bytes - from);
      const got = await handle.readInto(buffer.subarray(0, want), segment.offset + from);
      whole.update(buffer.subarray(0, got));
      for (let at = 0; at < want; at += LIMITS.leafBytes) {
        const leaf = (from + at) / LIMITS.leafBytes;
        const bytes = leafLength(segment, leaf);
        const expected = formatDigest(leafDigest(index, segment.firstLeaf + leaf));
        const digest = at + bytes > got ? null : formatDigest(hashBytes(buffer.subarray(at, at + bytes)));
        if (digest === expected) continue;
        findings += 1;
        const offset = segment.offset + from + at;
        yield {
          kind: "leaf",
          ...place,
          segment: i,
          segmentKind: segment.kind,
          leaf,
          offset,
          bytes,
          expected,
          got: digest,
        };
      }
      onBytes?.(got);
    }
  }
  const got = formatDigest(whole.digest());
  if (findings === 0 && got !== entry.digest) yield { kind: "file", ...place, expected: entry.digest, got };
}

/** Without an index only the whole can be checked. */
async function* verifyWhole(
  { entry, store, signal, onBytes }: VerifyShardOptions,
  handle: ObjectHandle,
): AsyncGenerator<Finding> {
  const buffer = new Uint8Array(PIECE_BYTES);
  const whole = new Hasher();
  for (let at = 0; at < handle.bytes;) {
    throwIfAborted(signal, entry.name);
    const read = await handle.readInto(buffer, at);
    if (read === 0) break;
    whole.update(buffer.subarray(0, read));
    onBytes?.(read);
    at += read;
  }
  const got = formatDigest(whole.digest());
  if (got !== entry.digest) yield { kind: "file", shard: entry.name, store: store.url, expected: entry.digest, got };
}

function throwIfAborted(signal: AbortSignal | undefined, shard: string): void {
  if (signal?.aborted)
    throw new ShardpactError("aborted", `verifying shard ${shard} was aborted`, { cause: signal.reason });
}
