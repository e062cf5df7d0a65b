/**
 * Owns which configuration decides which slot: one chosen at slot i decides from slot i + α on ("Paxos Made Simple" §3).
 * α is the bound of the pipeline (`proposalsInFlightMax`): who proposes slot i + α has applied slot i, so it knows.
 *
 * The one thing to know: a ballot is about all slots that are not chosen yet, so a campaign, a heartbeat round and
 * check-quorum need a quorum of every configuration that decides any of them.
 */
import type { Configuration, EngineTuning, LogIndex, ReplicaId } from "../engine.ts";
import { hasQuorum, isVoter, membersOf, quorumValue } from "../shared/configuration.ts";

export interface Placed {
  readonly index: LogIndex;
  readonly configuration: Configuration;
}

/** What of the engine's state says who decides. */
export interface Deciding {
  readonly commit: LogIndex;
  /** By index; the first is the group's first. */
  readonly configurations: readonly Placed[];
  readonly tuning: Pick<EngineTuning, "proposalsInFlightMax">;
}

/** The configuration that decides `slot`, and those that decide later ones, oldest first. */
export function configurationsFrom(paxos: Deciding, slot: LogIndex): readonly Placed[] {
  const alpha = paxos.tuning.proposalsInFlightMax;
  let first = 0;
  paxos.configurations.forEach(({ index }, i) => {
    if (index + alpha <= slot) first = i;
  });
  return paxos.configurations.slice(first);
}

/** Those that decide what is not chosen yet. */
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

export function openMembers(paxos: Deciding): readonly ReplicaId[] {
  return [...new Set(openConfigurations(paxos).flatMap((configuration) => membersOf(configuration)))];
}

/** The last slot up to which every one has a quorum of its own configuration; at least `paxos.commit`. */
export function chosenIndex(paxos: Deciding, acceptedOn: (id: ReplicaId) => LogIndex): LogIndex {
  const alpha = paxos.tuning.proposalsInFlightMax;
  const placed = configurationsFrom(paxos, paxos.commit + 1);
  let chosen = paxos.commit;
  for (const [i, { configuration }] of placed.entries()) {
    const next = placed[i + 1];
    const lastSlot = next === undefined ? Infinity : next.index + alpha - 1;
    chosen = Math.max(chosen, Math.min(lastSlot, quorumValue(configuration, acceptedOn)));
    if (chosen < lastSlot) break;
  }
  return chosen;
}
