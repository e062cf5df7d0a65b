/**
 * Hostile versions: valid files, changed below verification. The leaves of the changed bytes are hashed again, so every check of a digest
 * passes, and only the decoder stands between those bytes and a tensor. What a malicious publisher could agree on with a group.
 */
import type { ConfirmedVersion, ShardEntry } from "../../../src/client/types.ts";
import { hashBytes } from "../../../src/merkle/hash.ts";
import type { Rng } from "../../../src/merkle/rng.ts";
import {
  decodeSegmentIndex,
  encodeSegmentIndex,
  leafDigest,
  leafLength,
  segmentIndexDigest,
  tileSegments,
  type Segment,
  type SegmentIndex,
} from "../../../src/merkle/segment-index.ts";
import { concatBytes, formatDigest, type Digest } from "../../../src/model/bytes.ts";
import { ShardpactError } from "../../../src/model/errors.ts";
import type { ReadableStore } from "../../../src/shards/port.ts";
import { metadataLength } from "../../../src/shards/message.ts";
import type { TestVersion } from "./version.ts";

export interface SpecimenShard {
  readonly entry: ShardEntry;
  readonly bytes: Uint8Array;
  readonly index: SegmentIndex;
}

/** A published version in memory, all of one split. */
export interface Specimen {
  readonly version: ConfirmedVersion;
  readonly shards: readonly SpecimenShard[];
}

export async function specimenOf({ version }: TestVersion): Promise<Specimen> {
  const [store] = version.stores;
  if (!store) throw new Error("no store");
  const read = async (digest: Digest): Promise<Uint8Array> => {
    await using handle = await store.open(digest);
    const bytes = new Uint8Array(handle.bytes);
    await handle.readInto(bytes, 0);
    return bytes;
  };
  const shards: SpecimenShard[] = [];
  for (const entry of await version.page(0)) {
    shards.push({ entry, bytes: await read(entry.digest), index: decodeSegmentIndex(await read(entry.segmentIndex)) });
  }
  return { version, shards };
}

/** A changed shard: other bytes, and perhaps other sizes and rows of its segments. */
export interface Mutant {
  readonly bytes: Uint8Array;
  readonly segments: readonly Segment[];
  /** What was done, for messages. */
  readonly said: string;
}

/** The version with its first shard changed: it opens, and all its digests are right. */
export function hostileVersion({ version, shards }: Specimen, mutant: Mutant): ConfirmedVersion {
  const objects = new Map<Digest, Uint8Array>();
  const entries = shards.map(({ entry, bytes, index }, i) => {
    const changed = i === 0 ? rehash(bytes, index, mutant) : index;
    const encoded = encodeSegmentIndex(changed);
    const segmentIndex = formatDigest(segmentIndexDigest(encoded));
    const own = i === 0 ? mutant.bytes : bytes;
    objects.set(segmentIndex, encoded).set(entry.digest, own);
    const rows = changed.segments.reduce((sum, { kind, rows: n }) => (kind === "batch" ? sum + n : sum), 0);
    return { ...entry, segmentIndex, bytes: own.byteLength, rows };
  });
  const [split] = version.splits;
  if (!split) throw new Error("no split");
  const total = (of: (entry: ShardEntry) => number): number => entries.reduce((sum, entry) => sum + of(entry), 0);
  const [rows, bytes] = [total((e) => e.rows), total((e) => e.bytes)];
  return {
    ...version,
    rows,
    bytes,
    splits: [{ ...split, rows, bytes }],
    stores: [storeOf(objects)] as unknown as ConfirmedVersion["stores"],
    manifest: async (signal) =>
      (await version.manifest(signal)).map((page) => ({
        ...page,
        totals: page.totals.map((t) => ({ ...t, rows, bytes })),
      })),
    page: async () => entries,
  };
}

/** Digests of the leaves that changed; the file's own digest, which no reader computes, stays. */
function rehash(bytes: Uint8Array, index: SegmentIndex, mutant: Mutant): SegmentIndex {
  const leaves: Uint8Array[] = [];
  mutant.segments.forEach((segment, s) => {
    const old = index.segments[s];
    for (let leaf = 0; leaf < segment.leafCount; leaf++) {
      const from = segment.offset + leaf * 131_072;
      const to = from + leafLength(segment, leaf);
      const isSame = old?.offset === segment.offset && old.bytes === segment.bytes;
      const known = isSame && Buffer.compare(bytes.subarray(from, to), mutant.bytes.subarray(from, to)) === 0;
      leaves.push(known ? leafDigest(index, old.firstLeaf + leaf) : hashBytes(mutant.bytes.subarray(from, to)));
    }
  });
  return { ...index, fileBytes: mutant.bytes.byteLength, segments: mutant.segments, leaves: concatBytes(leaves) };
}

export function storeOf(objects: ReadonlyMap<Digest, Uint8Array>): ReadableStore {
  return {
    url: "memory:hostile",
    async open(digest) {
      const bytes = objects.get(digest);
      if (!bytes) throw new ShardpactError("not_found", `${digest} is not there`);
      const close = (): Promise<void> => Promise.resolve();
      return {
        bytes: bytes.byteLength,
        async readInto(target, position) {
          const part = bytes.subarray(position, position + target.byteLength);
          target.set(part);
          return part.byteLength;
        },
        close,
        [Symbol.asyncDispose]: close,
      };
    },
    quarantine: async (digest, reason) => {
      throw new Error(`nothing here fails its digest, but ${digest}: ${reason}`);
    },
  };
}

const below = (rng: Rng, n: number): number => Math.floor(rng.uniform() * n);
const pick = <T>(rng: Rng, all: readonly T[]): T => all[below(rng, all.length)] as T;

const HOSTILE = [
  0n,
  1n,
  -1n,
  7n,
  8n,
  0x7fn,
  0x80n,
  0xffffn,
  2n ** 24n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 62n,
  -(2n ** 63n),
];

/** @param body ranges of the first shard's segments' bodies that matter: most changes of values fall there */
export function mutate({ shards }: Specimen, rng: Rng, isFiller: (at: number) => boolean): Mutant {
  const [shard] = shards;
  if (!shard) throw new Error("no shard");
  const bytes = shard.bytes.slice();
  const said: string[] = [];
  const wanted = shard.index.segments.filter(({ kind }) => kind === "batch" || kind === "dictionary");
  let segments: readonly Segment[] = shard.index.segments;
  for (let n = 1 + below(rng, 3); n > 0; n--) {
    const at = shard.index.segments.indexOf(pick(rng, wanted));
    if (rng.uniform() < 0.05) {
      const cut = cutOff(bytes, segments, at, rng);
      segments = cut.segments;
      return { bytes: cut.bytes, segments, said: [...said, cut.said].join("; ") };
    }
    if (rng.uniform() < 0.05) {
      const lied = lieOfRows(bytes, segments, at, rng);
      segments = lied.segments;
      said.push(lied.said);
    } else said.push(change(bytes, segments[at] as Segment, rng, isFiller));
  }
  return { bytes, segments, said: said.join("; ") };
}

/** One change of some bytes in a segment; metadata as often as values. */
function change(
  bytes: Uint8Array,
  { offset, bytes: size, kind }: Segment,
  rng: Rng,
  isFiller: (at: number) => boolean,
): string {
  const metadata = Math.min(size, metadataLength(bytes.subarray(offset, offset + size)) ?? 8);
  const isHead = rng.uniform() < 0.3 || metadata === size;
  let at = isHead ? below(rng, metadata) : metadata + below(rng, size - metadata);
  for (let tries = 0; tries < 200 && !isHead && isFiller(offset + at); tries++)
    at = metadata + below(rng, size - metadata);
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, size);
  const align = (width: number): number => Math.max(0, Math.min(at - (at % width), size - width));
  switch (below(rng, 7)) {
    case 0:
      bytes[offset + at] = (bytes[offset + at] as number) ^ (1 << below(rng, 8));
      return `${kind} bit in byte ${at}`;
    case 1: {
      const value = Number(BigInt.asIntN(32, pick(rng, HOSTILE)));
      view.setInt32(align(4), value, true);
      return `${kind} i32 ${align(4)} = ${value}`;
    }
    case 2: {
      const value = BigInt.asIntN(64, pick(rng, HOSTILE));
      view.setBigInt64(align(8), value, true);
      return `${kind} i64 ${align(8)} = ${value}`;
    }
    case 3: {
      const by = pick(rng, [-1n, 1n, 8n, -8n, 64n, 1n << 20n]);
      view.setBigInt64(align(8), BigInt.asIntN(64, view.getBigInt64(align(8), true) + by), true);
      return `${kind} i64 ${align(8)} += ${by}`;
    }
    case 4: {
      const to = Math.min(size, at + 1 + below(rng, 64));
      const value = pick(rng, [0, 0xff, 0x80, 0x41]);
      bytes.fill(value, offset + at, offset + to);
      return `${kind} [${at}, ${to}) = ${value}`;
    }
    case 5: {
      const length = 1 + below(rng, 64);
      const from = below(rng, Math.max(1, size - length));
      bytes.copyWithin(
        offset + Math.min(at, size - Math.min(size, length)),
        offset + from,
        offset + Math.min(size, from + length),
      );
      return `${kind} ${length} bytes from ${from} to ${at}`;
    }
    default:
      bytes[offset + at] = below(rng, 256);
      return `${kind} byte ${at}`;
  }
}

/** The segment loses its end, and the file what it lost. */
function cutOff(bytes: Uint8Array, segments: readonly Segment[], at: number, rng: Rng): Mutant {
  const { offset, bytes: size, kind } = segments[at] as Segment;
  const kept = Math.max(8, below(rng, size) & ~7);
  const parts = segments.map((segment, s) => ({ ...segment, bytes: s === at ? kept : segment.bytes }));
  const rest = concatBytes([bytes.subarray(0, offset + kept), bytes.subarray(offset + size)]);
  return { bytes: rest, segments: tileSegments(parts), said: `${kind} cut to ${kept} bytes` };
}

/** Index and metadata agree on a count of rows that is not the data's. */
function lieOfRows(bytes: Uint8Array, segments: readonly Segment[], at: number, rng: Rng): Mutant {
  const { offset, bytes: size, rows, kind } = segments[at] as Segment;
  const lie = pick(rng, [1, rows + 1, rows + 8, rows * 2, 65_536, 2 ** 24, 2 ** 31 - 1, 2 ** 31, 2 ** 40]);
  const metadata = metadataLength(bytes.subarray(offset, offset + size)) ?? 8;
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, size);
  const [all, ahead] = [rng.uniform() < 0.5, rng.uniform() < 0.8];
  for (let i = 8, found = 0; i + 8 <= Math.min(metadata, size); i += 8) {
    if (view.getBigInt64(i, true) !== BigInt(rows)) continue;
    if (all || found++ === 0) view.setBigInt64(i, BigInt(lie), true);
  }
  const parts = segments.map((segment, s) => ({ ...segment, rows: s === at && ahead ? lie : segment.rows }));
  return {
    bytes,
    segments: tileSegments(parts),
    said: `${kind} of ${lie} rows (${all ? "all counts" : "the first"}, index ${ahead})`,
  };
}
