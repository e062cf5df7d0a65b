/**
 * Owns fetching a shard's segment index from untrusted stores: its digest is checked before it is decoded.
 */
import { formatDigest, type Digest } from "../model/bytes.ts";
import { ShardpactError, isShardpactError, toShardpactError, type ErrorCode } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { decodeSegmentIndex, segmentIndexDigest, type SegmentIndex } from "../merkle/segment-index.ts";
import type { ObjectHandle, ReadableStore } from "./port.ts";
import type { CopiesOptions } from "./copies.ts";
import { quarantine, type PassedOver, type ShardRef, type ShardWhere } from "./shard-ref.ts";
import { untilAborted } from "./until-aborted.ts";

/** What is not about the store that was asked: another one would not help. */
const ENDS: ReadonlySet<ErrorCode> = new Set(["aborted", "closed", "internal", "damaged", "shard_malformed"]);

/**
 * The segment index that the page entry names, from the first store with a good copy; bad copies are quarantined.
 * @throws `shard_corrupt`, `not_found`, `store_failed`, `aborted`, and `shard_malformed` when index and entry disagree
 */
export async function fetchSegmentIndex(options: CopiesOptions): Promise<SegmentIndex> {
  const { entry, where, stores, signal } = options;
  let corruption: ShardpactError | null = null;
  let failure: ShardpactError | null = null;
  const passed: PassedOver[] = [];
  for (const store of stores) {
    try {
      const found = await checkIndexObject(store, entry, signal);
      if (found.kind === "good") {
        for (const why of passed) options.onPassedOver?.(why);
        return agreeing(found.index, entry, where);
      }
      if (found.kind === "missing") continue;
      const error = corruptIndex(options, found.got, store);
      corruption ??= error;
      passed.push({ store: store.url, error });
      await quarantine(store, entry.segmentIndex, error);
    } catch (error) {
      const typed = toShardpactError(error, "store_failed");
      if (ENDS.has(typed.code)) throw typed;
      failure = typed;
      passed.push({ store: store.url, error: typed });
    }
  }
  throw corruption ?? failure ?? missing(options);
}

export type IndexObject =
  | { readonly kind: "good"; readonly index: SegmentIndex }
  | { readonly kind: "missing" }
  | { readonly kind: "corrupt"; readonly got: Digest };

/** A store's copy of a segment index, decoded only once its digest is right. @throws `store_failed`, `aborted`, `damaged` */
export async function checkIndexObject(
  store: ReadableStore,
  entry: Pick<ShardRef, "segmentIndex">,
  signal?: AbortSignal,
): Promise<IndexObject> {
  const bytes = await readObject(store, entry.segmentIndex, signal);
  if (!bytes) return { kind: "missing" };
  const got = formatDigest(segmentIndexDigest(bytes));
  return got === entry.segmentIndex ? { kind: "good", index: decodeSegmentIndex(bytes) } : { kind: "corrupt", got };
}

async function readObject(store: ReadableStore, digest: Digest, signal?: AbortSignal): Promise<Uint8Array | null> {
  let handle: ObjectHandle;
  try {
    handle = await untilAborted(signal, store.open(digest, signal), (late) => late.close());
  } catch (error) {
    if (isShardpactError(error, "not_found")) return null;
    throw error;
  }
  try {
    return await untilAborted(signal, readWhole(handle));
  } finally {
    await handle.close();
  }
}

async function readWhole(handle: ObjectHandle): Promise<Uint8Array> {
  if (handle.bytes > LIMITS.segmentIndexBytesMax) return new Uint8Array(0); // no index: its digest will not match
  const bytes = new Uint8Array(handle.bytes);
  let at = 0;
  while (at < bytes.byteLength) {
    const read = await handle.readInto(bytes.subarray(at), at);
    if (read === 0) return bytes.subarray(0, at);
    at += read;
  }
  return bytes;
}

function agreeing(index: SegmentIndex, entry: ShardRef, where: ShardWhere): SegmentIndex {
  let rows = 0;
  for (const segment of index.segments) if (segment.kind === "batch") rows += segment.rows;
  const digest = formatDigest(index.fileDigest);
  if (index.fileBytes === entry.bytes && rows === entry.rows && digest === entry.digest) return index;
  throw new ShardpactError(
    "shard_malformed",
    `${where.dataset}@v${where.version}: shard ${entry.name}: its segment index describes another file than its page`,
    {
      details: { ...where, shard: entry.name, bytes: [entry.bytes, index.fileBytes], rows: [entry.rows, rows] },
      hint: "It was published by something that is not shardpact; publish it again.",
    },
  );
}

function corruptIndex({ entry, where }: CopiesOptions, got: string, store: ReadableStore): ShardpactError {
  return new ShardpactError(
    "shard_corrupt",
    `${where.dataset}@v${where.version}: segment index of shard ${entry.name} in ${store.url}: ` +
      `expected ${entry.segmentIndex.slice(0, 11)}… got ${got.slice(0, 11)}…`,
    {
      details: {
        ...where,
        shard: entry.name,
        digest: entry.segmentIndex,
        segmentKind: "index",
        expected: entry.segmentIndex,
        got,
        store: store.url,
      },
      hint: "The copy was quarantined; fetch the segment index again from a good store.",
    },
  );
}

function missing({ entry, where, stores }: CopiesOptions): ShardpactError {
  return new ShardpactError(
    "not_found",
    `${where.dataset}@v${where.version}: the segment index of shard ${entry.name} is in none of ${stores.length} stores: ` +
      stores.map((s) => s.url).join(", "),
    {
      details: { ...where, shard: entry.name, digest: entry.segmentIndex, stores: stores.map((s) => s.url) },
      hint: "Name a store that holds the shard and its segment index.",
    },
  );
}
