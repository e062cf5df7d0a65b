/**
 * Owns which configuration decides which slot: one chosen at slot i decides from slot i + α on ("Paxos Made Simple" §3).
 *
 * The one thing to know: α also bounds the pipeline. Who proposes slot s has applied s − α, so it knows who decides s; and
 * nobody proposes slot i + α before every slot below is chosen. So a log that reaches i + α proves that the configuration
 * before is needed no more: a quorum of the new one, which holds such logs, can go on alone.
 */
import type { Configuration, LogIndex, ReplicaId } from "../engine.ts";
import { hasQuorum, isVoter, membersOf, quorumValue } from "../shared/configuration.ts";
import type { Placed } from "../shared/membership.ts";

/**
 * Part of the protocol, no setting: all replicas of a group count with the same α, for ever. Large enough that nobody
 * waits for it, small enough that filling α slots with no-ops costs nothing.
 */
export const ALPHA = 256;

/** What of the engine's state says who decides. */
export interface Deciding {
  readonly commit: LogIndex;
  /** By index; the first is in force where the log begins. */
  readonly configurations: readonly Placed[];
  readonly alpha: number;
}

/** The configuration that decides `slot`, and those that decide later ones, oldest first. */
export function configurationsFrom({ configurations, alpha }: Deciding, slot: LogIndex): readonly Placed[] {
  const at = configurations.findLastIndex(({ index }) => index + alpha <= slot);
  return at <= 0 ? configurations : configurations.slice(at);
}

/** The configuration that decided the last chosen slot: it has the group's history to itself. */
export function inForce(paxos: Deciding): Placed {
  return configurationsFrom(paxos, paxos.commit)[0] as Placed;
}

/** The newest configuration is in force: nothing of a change is open. */
export function isSettled(paxos: Deciding): boolean {
  return configurationsFrom(paxos, paxos.commit).length === 1;
}

/** First slot that the newest configuration decides; 1 when there is only one. */
export function newestFrom({ configurations, alpha }: Deciding): LogIndex {
  return configurations.length === 1 ? 1 : (configurations.at(-1) as Placed).index + alpha;
}

/** The last slot that a log which ends at `lastIndex` proves to be chosen; 0 when it proves nothing. */
export function provenIndex({ configurations, alpha }: Deciding, lastIndex: LogIndex): LogIndex {
  const reached = configurations.slice(1).findLast(({ index }) => index + alpha <= lastIndex);
  return reached === undefined ? 0 : reached.index + alpha - 1;
}

/** Those that decide what is not chosen yet: a campaign, a round and check-quorum need a quorum of each. */
export function openConfigurations(paxos: Deciding): readonly Configuration[] {
  return configurationsFrom(paxos, paxos.commit + 1).map(({ configuration }) => configuration);
}

export function hasOpenQuorum(paxos: Deciding, counts: (id: ReplicaId) => boolean): boolean {
  return openConfigurations(paxos).every((configuration) => hasQuorum(configuration, counts));
}

/** The highest value that a quorum of every open configuration has reached. */
export function openQuorumValue(paxos: Deciding, valueOf: (id: ReplicaId) => number): number {
  return Math.min(...openConfigurations(paxos).map((configuration) => quorumValue(configuration, valueOf)));
}

export function isOpenVoter(paxos: Deciding, id: ReplicaId): boolean {
  return openConfigurations(paxos).some((configuration) => isVoter(configuration, id));
}

/** A voter of the configuration in force, or of one that may follow. */
export function isServedVoter(paxos: Deciding, id: ReplicaId): boolean {
  return configurationsFrom(paxos, paxos.commit).some(({ configuration }) => isVoter(configuration, id));
}

/** Members of the configuration in force and of what may follow it, each once. */
export function servedMembers(paxos: Deciding): readonly ReplicaId[] {
  const served = configurationsFrom(paxos, paxos.commit);
  return [...new Set(served.flatMap(({ configuration }) => membersOf(configuration)))];
}

/** The last slot up to which every one has a quorum of its own configuration; at least `paxos.commit`. */
export function chosenIndex(paxos: Deciding, acceptedOn: (id: ReplicaId) => LogIndex): LogIndex {
  const placed = configurationsFrom(paxos, paxos.commit + 1);
  let chosen = paxos.commit;
  for (const [i, { configuration }] of placed.entries()) {
    const next = placed[i + 1];
    const lastSlot = next === undefined ? Infinity : next.index + paxos.alpha - 1;
    chosen = Math.max(chosen, Math.min(lastSlot, quorumValue(configuration, acceptedOn)));
    if (chosen < lastSlot) break;
  }
  return chosen;
}
