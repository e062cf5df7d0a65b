/**
 * Owns changes of the membership: what a leader takes, and how a change comes to its end (Raft §6; thesis §4.1–§4.3).
 *
 *   C ──configure──► C,new (both majorities) ──committed──► C new ──committed──► who is out learns it, a leader too
 *
 * The one thing to know: voters change through a joint configuration, always, so the quorums of neighbouring
 * configurations meet, whatever the change. A configuration is in force from the moment it is in the log, and one more
 * is taken only when the last is committed, under a leader that has committed an entry of its own epoch (the 2015
 * correction to the single-server algorithm).
 */
import type { Configuration, EngineEvent, MembershipChange, RejectReason, ReplicaId } from "../engine.ts";
import { isMember, isVoter } from "../shared/configuration.ts";
import { becomeFollower } from "./election.ts";
import { invariant } from "../shared/fault.ts";
import type { Leadership } from "../shared/leadership.ts";
import type { RaftMessage } from "./messages.ts";
import { appendOwn } from "./replication.ts";
import { activeConfiguration, configurationIsCommitted, type Raft } from "./state.ts";
import { handOver } from "./transfer.ts";

type Configure = Extract<EngineEvent<RaftMessage>, { kind: "configure" }>;

const NO_CHANGE = new Uint8Array(0);

/** Appends the change's first configuration, or says why not. */
export function configure(raft: Raft, { ticket, change, payload }: Configure): void {
  const reject = (reason: RejectReason): void =>
    void raft.out.push({ kind: "rejected", ticket, reason, leader: raft.leader });
  const { leadership } = raft;
  if (leadership === null) return reject("not_leader");
  if (leadership.transfer !== null) return reject("transferring");
  if (!leadership.committedInEpoch) return reject("not_ready");
  const before = activeConfiguration(raft);
  if (!configurationIsCommitted(raft) || before.votersOutgoing.length > 0) return reject("change_in_progress");
  const next = configurationAfter(before, change);
  if (next === null) return reject("invalid_change");
  const newVoter = change.kind === "promote" ? change.id : change.kind === "replace" ? change.by : null;
  if (newVoter !== null && !hasCaughtUp(raft, leadership, newVoter)) return reject("not_caught_up");
  const encoded = encode(raft, next, before, payload);
  if (encoded === null) return reject("invalid_change");
  const [index, { epoch }] = [raft.log.lastIndex + 1, raft.hardState];
  raft.out.push({ kind: "accepted", ticket, index, epoch });
  appendConfiguration(raft, leadership, next, encoded);
}

/** After every step: ends a joint change that is committed, and draws the conclusion when this replica is out. */
export function settleMembership(raft: Raft): void {
  const configuration = activeConfiguration(raft);
  if (raft.halted || !configurationIsCommitted(raft)) return;
  const { leadership } = raft;
  if (configuration.votersOutgoing.length > 0) {
    if (leadership?.committedInEpoch === true) leaveJoint(raft, leadership, configuration);
    return;
  }
  if (leadership !== null && !isVoter(configuration, raft.id)) {
    // It led the group until the configuration without it was committed (thesis §4.2.2).
    handOver(raft, leadership);
    becomeFollower(raft, raft.hardState.epoch, null);
  }
  if (isMember(configuration, raft.id) || raft.removed) return;
  if (!raft.configurations.some((each) => isMember(each.configuration, raft.id))) return;
  raft.removed = true;
  raft.out.push({ kind: "removed", index: raft.configurations.at(-1)?.index ?? 0 });
}

/** The first configuration of a change: joint when the voters change. Null when the change makes no sense. */
export function configurationAfter(before: Configuration, change: MembershipChange): Configuration | null {
  const { voters, learners } = before;
  const without = (ids: readonly ReplicaId[], id: ReplicaId): ReplicaId[] => ids.filter((each) => each !== id);
  const { id } = change;
  switch (change.kind) {
    case "add_learner":
      return isMember(before, id) ? null : { ...plain(voters), learners: [...learners, id] };
    case "promote":
      if (!learners.includes(id)) return null;
      return { voters: [...voters, id], votersOutgoing: voters, learners: without(learners, id) };
    case "remove":
      if (learners.includes(id)) return { ...plain(voters), learners: without(learners, id) };
      if (!voters.includes(id) || voters.length === 1) return null;
      return { voters: without(voters, id), votersOutgoing: voters, learners };
    case "replace":
      if (!voters.includes(id) || !learners.includes(change.by)) return null;
      return {
        voters: [...without(voters, id), change.by],
        votersOutgoing: voters,
        learners: without(learners, change.by),
      };
  }
}

/** A new voter must not be what the next commit waits for: within one append of the end, by acknowledgements that count. */
function hasCaughtUp(raft: Raft, leadership: Leadership, id: ReplicaId): boolean {
  const match = leadership.progress.get(id)?.votingMatch ?? 0;
  return match > 0 && match + raft.tuning.appendEntriesMax >= raft.log.lastIndex;
}

function leaveJoint(raft: Raft, leadership: Leadership, joint: Configuration): void {
  const next = { ...plain(joint.voters), learners: joint.learners };
  const encoded = encode(raft, next, joint, NO_CHANGE);
  // A group that cannot write configurations stays in the one that it was given.
  if (encoded !== null) appendConfiguration(raft, leadership, next, encoded);
}

function appendConfiguration(raft: Raft, leadership: Leadership, next: Configuration, payload: Uint8Array): void {
  const { epoch } = raft.hardState;
  appendOwn(raft, leadership, [{ index: raft.log.lastIndex + 1, epoch, kind: "config", payload }]);
  if (!raft.halted) invariant(sameMembers(activeConfiguration(raft), next), "a configuration reads as it was written");
}

/** Null: the payload cannot be read, or this group has no way to write configurations. */
function encode(raft: Raft, next: Configuration, before: Configuration, change: Uint8Array): Uint8Array | null {
  try {
    return raft.tuning.encodeConfiguration?.(next, before, change) ?? null;
  } catch {
    return null;
  }
}

function plain(voters: readonly ReplicaId[]): Pick<Configuration, "voters" | "votersOutgoing"> {
  return { voters, votersOutgoing: [] };
}

function sameMembers(a: Configuration, b: Configuration): boolean {
  const same = (x: readonly ReplicaId[], y: readonly ReplicaId[]): boolean =>
    x.length === y.length && x.every((id) => y.includes(id));
  return same(a.voters, b.voters) && same(a.votersOutgoing, b.votersOutgoing) && same(a.learners, b.learners);
}
