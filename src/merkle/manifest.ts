/**
 * Owns the manifest of a version: its pages in order, each with what it totals, as leaves of the root's tree.
 *
 * Totals stand in the leaf beside the page's digest, so a reader proves rows and bytes per split of every page, and
 * with them which pages it needs, before it fetches one. Leaves travel packed, as the bytes that are hashed
 * (docs/spec.md, Leaves on the wire): they come from strangers, so every count is checked before it is used.
 */
import { createByteWriter } from "../model/byte-writer.ts";
import { formatDigest, parseDigest } from "../model/bytes.ts";
import type { Digest } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { DIGEST_BYTES, hashAs } from "./hash.ts";
import { decodeTotals, encodeTotals, sumTotals, TOTALS_BYTES } from "./totals.ts";
import type { SplitTotals } from "./totals.ts";
import { treeHash } from "./tree.ts";
import type { Hash } from "./tree.ts";

export interface ManifestEntry {
  readonly page: Digest;
  /** Sorted by split ordinal. */
  readonly totals: readonly SplitTotals[];
}

/** A packed leaf takes this much at most. */
export const PACKED_LEAF_BYTES_MAX = 1 + DIGEST_BYTES + TOTALS_BYTES * LIMITS.splitsMax;

const writer = createByteWriter();

/** `leaf` context over page digest ‖ totals (24 bytes for each split). */
export function manifestLeaf({ page, totals }: ManifestEntry): Hash {
  return hashAs("leaf", parseDigest(page), encodeTotals(totals));
}

/** Tree hash and totals of a whole manifest: what a reader compares with the root's. */
export function summarizeManifest(entries: readonly ManifestEntry[]): { treeHash: Hash; totals: SplitTotals[] } {
  return { treeHash: treeHash(entries.map(manifestLeaf)), totals: sumTotals(entries.map((entry) => entry.totals)) };
}

/** For each entry: u8 count of its totals ‖ what its leaf hashes. */
export function packLeaves(entries: readonly ManifestEntry[]): Uint8Array {
  writer.start();
  for (const { page, totals } of entries) {
    writer.u8(totals.length).bytes(parseDigest(page)).bytes(encodeTotals(totals));
  }
  return new Uint8Array(writer.view());
}

export interface UnpackedLeaf extends ManifestEntry {
  readonly hash: Hash;
}

/** Inverse of `packLeaves`, with the hash of each leaf. @throws ShardpactError `damaged` on anything else */
export function unpackLeaves(bytes: Uint8Array): UnpackedLeaf[] {
  const leaves: UnpackedLeaf[] = [];
  for (let at = 0; at < bytes.byteLength;) {
    const count = bytes[at] as number;
    const end = at + 1 + DIGEST_BYTES + count * TOTALS_BYTES;
    if (count > LIMITS.splitsMax || end > bytes.byteLength) throw damaged(leaves.length);
    const leaf = bytes.subarray(at + 1, end);
    const totals = decodeTotals(leaf.subarray(DIGEST_BYTES));
    if (totals === null) throw damaged(leaves.length);
    leaves.push({ page: formatDigest(leaf.subarray(0, DIGEST_BYTES)), totals, hash: hashAs("leaf", leaf) });
    at = end;
  }
  return leaves;
}

function damaged(leaf: number): ShardpactError {
  return new ShardpactError("damaged", `packed manifest leaves do not decode: leaf ${leaf}`, { details: { leaf } });
}
