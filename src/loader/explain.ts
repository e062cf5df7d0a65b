/**
 * Owns what a plan is worth before any byte is read: the quality of its shuffle, and what each rank will read and hold.
 */
import { parseDigest } from "../model/bytes.ts";
import { readShare, shuffleQuality, type ReadShare, type ShuffleQuality } from "./order/quality.ts";
import type { LoaderPlan } from "./plan.ts";

export interface Explanation extends LoaderPlan {
  /** Null when the epoch has no whole step. */
  readonly quality: ShuffleQuality | null;
  /** For this plan's world, then for others at the same batch size. */
  readonly reads: readonly ReadShare[];
  /** Bytes that this rank reads in an epoch, about, of all columns. */
  readonly rankBytes: number;
}

/** Worlds that a plan is compared with. */
const WORLDS = [1, 2, 4, 8, 16, 64];

/** Counts over a prefix of the epoch: a second or so, whatever the size. Pure. */
export function explainPlan(plan: LoaderPlan, worlds: readonly number[] = [plan.world]): Explanation {
  const { rows, order, batchSize, world } = plan;
  if (rows === 0) return { ...plan, quality: null, reads: [], rankBytes: 0 };
  const input = { root: parseDigest(plan.root), selection: parseDigest(plan.selection), rows, order };
  const reads = worlds.map((w) => readShare(input, w, batchSize)).filter((share) => share !== null);
  const own = reads.find((share) => share.world === world)?.rankShare ?? 1;
  return {
    ...plan,
    quality: shuffleQuality(input, world, batchSize),
    reads,
    rankBytes: Math.round(own * plan.bytes),
  };
}

/** The plan's own world first, then the usual ones. */
export function worldsToCompare(world: number): readonly number[] {
  return [world, ...WORLDS.filter((w) => w !== world)];
}
