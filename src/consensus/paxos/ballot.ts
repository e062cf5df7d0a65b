/**
 * Owns ballots: (round, proposer) in one safe integer, round × 2¹⁶ + ordinal. Higher is later, and no two replicas share
 * one ("Paxos Made Simple" §2.2: proposers draw their numbers from disjoint sets).
 *
 * The one thing to know: a member's ordinal is part of the configuration and never given twice, not even to an id that
 * comes back: the machine behind it may have forgotten what it proposed. Only a voter draws ballots, and a voter was
 * a learner of a chosen configuration first, or is of the group's first: so its ordinal is agreed.
 */
import type { Configuration, Epoch, Ordinals, ReplicaId } from "../engine.ts";
import { membersOf } from "../shared/configuration.ts";
import type { Placed } from "../shared/membership.ts";

const ORDINALS = 2 ** 16;

/** Every member of the group's first configuration by its position, of later ones as they say. */
export function ordinalsOf(configuration: Configuration): Ordinals {
  if (configuration.ordinals !== undefined) return configuration.ordinals;
  const members = membersOf(configuration);
  return { of: Object.fromEntries(members.map((id, i) => [id, i + 1])), last: members.length };
}

/** `next` with the numbers of `before`, and new ones for who joins; null when there are no more. */
export function withOrdinals(next: Configuration, before: Configuration): Configuration | null {
  const known = ordinalsOf(before);
  let { last } = known;
  const numberOf = (id: ReplicaId): number => (Object.hasOwn(known.of, id) ? (known.of[id] as number) : (last += 1));
  const of = Object.fromEntries(membersOf(next).map((id) => [id, numberOf(id)]));
  return last < ORDINALS ? { ...next, ordinals: { of, last } } : null;
}

/** Who draws which ballots, by ordinal; members that left too, as far as `configurations` knows them. */
export function proposersOf(configurations: readonly Placed[]): ReadonlyMap<number, ReplicaId> {
  const pairs = configurations.flatMap(({ configuration }) => Object.entries(ordinalsOf(configuration).of));
  return new Map(pairs.map(([id, ordinal]) => [ordinal, id]));
}

/** The lowest ballot of `id` above `ballot`; 0 when it is no member of any of the configurations. */
export function nextBallot(configurations: readonly Placed[], id: ReplicaId, ballot: Epoch): Epoch {
  const newest = configurations.findLast(({ configuration }) => membersOf(configuration).includes(id));
  return newest === undefined ? 0 : ballotOf(roundOf(ballot) + 1, ordinalsOf(newest.configuration).of[id] ?? 0);
}

/** Whose ballot this is; null for 0 and for one that nobody who is known here can have drawn. */
export function proposerOf(proposers: ReadonlyMap<number, ReplicaId>, ballot: Epoch): ReplicaId | null {
  return proposers.get(ballot % ORDINALS) ?? null;
}

export function ballotOf(round: number, ordinal: number): Epoch {
  return round * ORDINALS + ordinal;
}

export function roundOf(ballot: Epoch): number {
  return Math.floor(ballot / ORDINALS);
}
