/**
 * Owns ballots: (round, proposer) in one safe integer, round × 2¹⁶ + ordinal. Higher is later, and no two replicas share
 * one ("Paxos Made Simple" §2.2: proposers draw their numbers from disjoint sets).
 *
 * The one thing to know: ordinals are positions in the list of all members that the group ever had, in the order in
 * which configurations named them. So a change of members never gives a ballot to somebody else.
 */
import type { Configuration, Epoch, ReplicaId } from "../engine.ts";
import { membersOf } from "../shared/configuration.ts";

const ORDINALS = 2 ** 16;

/** Every member of any of the configurations, in order of appearance; ordinal n is at position n − 1. */
export function proposersOf(
  configurations: readonly { readonly configuration: Configuration }[],
): readonly ReplicaId[] {
  return [...new Set(configurations.flatMap(({ configuration }) => membersOf(configuration)))];
}

/** The lowest ballot of `id` above `ballot`; 0 when it is no proposer. */
export function nextBallot(proposers: readonly ReplicaId[], id: ReplicaId, ballot: Epoch): Epoch {
  const ordinal = proposers.indexOf(id) + 1;
  return ordinal === 0 ? 0 : (roundOf(ballot) + 1) * ORDINALS + ordinal;
}

/** Whose ballot this is; null for 0 and for one that nobody here can have drawn. */
export function proposerOf(proposers: readonly ReplicaId[], ballot: Epoch): ReplicaId | null {
  return proposers[(ballot % ORDINALS) - 1] ?? null;
}

export function roundOf(ballot: Epoch): number {
  return Math.floor(ballot / ORDINALS);
}
