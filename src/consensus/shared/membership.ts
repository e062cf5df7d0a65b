/**
 * Owns what a change of the membership makes of a configuration, and the payload that says so: the same for both engines.
 *
 * The one thing to know: an engine decides over ids only. Whatever else belongs to a member is in the payload, which the
 * shell writes and reads; it must read back with the same ids.
 */
import type { Configuration, EngineTuning, Entry, LogIndex, MembershipChange, ReplicaId } from "../engine.ts";
import { isMember } from "./configuration.ts";
import { ConsensusError, invariant } from "./fault.ts";
import type { Progress } from "./progress.ts";

/** A configuration and where in the log it is. */
export interface Placed {
  readonly index: LogIndex;
  readonly configuration: Configuration;
}

/** The members once the change is complete; null when the change makes no sense. */
export function membersAfter(
  before: Configuration,
  change: MembershipChange,
): Pick<Configuration, "voters" | "learners"> | null {
  const { voters, learners } = before;
  const without = (ids: readonly ReplicaId[], id: ReplicaId): ReplicaId[] => ids.filter((each) => each !== id);
  const { id } = change;
  switch (change.kind) {
    case "add_learner":
      return isMember(before, id) ? null : { voters, learners: [...learners, id] };
    case "promote":
      return learners.includes(id) ? { voters: [...voters, id], learners: without(learners, id) } : null;
    case "remove":
      if (learners.includes(id)) return { voters, learners: without(learners, id) };
      return voters.includes(id) && voters.length > 1 ? { voters: without(voters, id), learners } : null;
    case "replace":
      if (!voters.includes(id) || !learners.includes(change.by)) return null;
      return { voters: [...without(voters, id), change.by], learners: without(learners, change.by) };
  }
}

/**
 * A new voter must not be what the next commit waits for: within one append of the end, by acknowledgements that count
 * (thesis §4.2.1). True for a change that makes no voter.
 */
export function newVoterCaughtUp(
  change: MembershipChange,
  progress: ReadonlyMap<ReplicaId, Progress>,
  lastIndex: LogIndex,
  { appendEntriesMax }: Pick<EngineTuning, "appendEntriesMax">,
): boolean {
  const id = change.kind === "promote" ? change.id : change.kind === "replace" ? change.by : null;
  if (id === null) return true;
  const match = progress.get(id)?.votingMatch ?? 0;
  return match > 0 && match + appendEntriesMax >= lastIndex;
}

/** The payload that says `next`; null: the change cannot be read, or this group has no way to write configurations. */
export function encodeNext(
  tuning: Pick<EngineTuning, "encodeConfiguration" | "decodeConfiguration">,
  next: Configuration,
  before: Configuration,
  change: Uint8Array,
): Uint8Array | null {
  let payload: Uint8Array | null;
  try {
    payload = tuning.encodeConfiguration?.(next, before, change) ?? null;
  } catch {
    return null;
  }
  if (payload !== null) {
    invariant(saysTheSame(tuning.decodeConfiguration(payload), next), "a configuration reads as it was written");
  }
  return payload;
}

/** Reads the configurations out of entries before anything is changed; null when one cannot be read. */
export function configurationsIn(
  { decodeConfiguration }: Pick<EngineTuning, "decodeConfiguration">,
  entries: readonly Entry[],
): Placed[] | null {
  const found: Placed[] = [];
  for (const { kind, index, payload } of entries) {
    if (kind !== "config") continue;
    try {
      found.push({ index, configuration: decodeConfiguration(payload) });
    } catch (error) {
      if (error instanceof ConsensusError) throw error;
      return null;
    }
  }
  return found;
}

function saysTheSame(a: Configuration, b: Configuration): boolean {
  const same = (x: readonly ReplicaId[], y: readonly ReplicaId[]): boolean =>
    x.length === y.length && x.every((id) => y.includes(id));
  const members = [...a.voters, ...a.votersOutgoing, ...a.learners];
  return (
    same(a.voters, b.voters) &&
    same(a.votersOutgoing, b.votersOutgoing) &&
    same(a.learners, b.learners) &&
    a.ordinals?.last === b.ordinals?.last &&
    members.every((id) => a.ordinals?.of[id] === b.ordinals?.of[id])
  );
}
