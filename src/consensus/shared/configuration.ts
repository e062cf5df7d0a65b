/**
 * Owns quorums: majorities of one set of voters, or of both sets during a joint change (Raft §6, thesis §4.3).
 * Learners never count. All functions are pure; voters are few (≤ 7), so nothing here is clever (see openraft 1802).
 */
import type { Configuration, ReplicaId } from "../engine.ts";

export function isVoter(configuration: Configuration, id: ReplicaId): boolean {
  return configuration.voters.includes(id) || configuration.votersOutgoing.includes(id);
}

export function isMember(configuration: Configuration, id: ReplicaId): boolean {
  return isVoter(configuration, id) || configuration.learners.includes(id);
}

/** Every member once: voters, outgoing voters, learners. */
export function membersOf(configuration: Configuration): readonly ReplicaId[] {
  return [...new Set([...configuration.voters, ...configuration.votersOutgoing, ...configuration.learners])];
}

/** The highest value that a quorum has reached: 0 when there are no voters at all. */
export function quorumValue(configuration: Configuration, valueOf: (id: ReplicaId) => number): number {
  const incoming = majorityValue(configuration.voters, valueOf);
  if (configuration.votersOutgoing.length === 0) return incoming;
  return Math.min(incoming, majorityValue(configuration.votersOutgoing, valueOf));
}

export function hasQuorum(configuration: Configuration, counts: (id: ReplicaId) => boolean): boolean {
  return quorumValue(configuration, (id) => (counts(id) ? 1 : 0)) === 1;
}

/** What the votes given so far decide. */
export function voteOutcome(
  configuration: Configuration,
  votes: ReadonlyMap<ReplicaId, boolean>,
): "won" | "lost" | "pending" {
  if (hasQuorum(configuration, (id) => votes.get(id) === true)) return "won";
  // Lost as soon as those who have not refused are no quorum any more.
  return hasQuorum(configuration, (id) => votes.get(id) !== false) ? "pending" : "lost";
}

function majorityValue(voters: readonly ReplicaId[], valueOf: (id: ReplicaId) => number): number {
  if (voters.length === 0) return 0;
  const values = voters.map(valueOf).sort((a, b) => b - a);
  return values[Math.floor(voters.length / 2)] ?? 0;
}
