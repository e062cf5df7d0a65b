/**
 * Owns the manifest of a version: its pages in order, each with what it totals, as leaves of the root's tree.
 *
 * Totals stand in the leaf beside the page's digest, so a reader proves rows and bytes per split of every page, and
 * with them which pages it needs, before it fetches one.
 */
import { parseDigest } from "../model/bytes.ts";
import type { Digest } from "../model/bytes.ts";
import { hashAs } from "./hash.ts";
import { encodeTotals, sumTotals } from "./totals.ts";
import type { SplitTotals } from "./totals.ts";
import { treeHash } from "./tree.ts";
import type { Hash } from "./tree.ts";

export interface ManifestEntry {
  readonly page: Digest;
  /** Sorted by split ordinal. */
  readonly totals: readonly SplitTotals[];
}

/** `leaf` context over page digest ‖ totals (24 bytes for each split). */
export function manifestLeaf({ page, totals }: ManifestEntry): Hash {
  return hashAs("leaf", parseDigest(page), encodeTotals(totals));
}

/** Tree hash and totals of a whole manifest: what a reader compares with the root's. */
export function summarizeManifest(entries: readonly ManifestEntry[]): { treeHash: Hash; totals: SplitTotals[] } {
  return { treeHash: treeHash(entries.map(manifestLeaf)), totals: sumTotals(entries.map((entry) => entry.totals)) };
}
