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
import type { Configuration, EngineEvent, MembershipChange, RejectReason } from "../engine.ts";
import { isMember, isVoter } from "../shared/configuration.ts";
import type { Leadership } from "../shared/leadership.ts";
import { encodeNext, membersAfter, newVoterCaughtUp } from "../shared/membership.ts";
import { becomeFollower } from "./election.ts";
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
  if (!newVoterCaughtUp(change, leadership.progress, raft.log.lastIndex, raft.tuning)) return reject("not_caught_up");
  const encoded = encodeNext(raft.tuning, next, before, payload);
  if (encoded === null) return reject("invalid_change");
  const [index, { epoch }] = [raft.log.lastIndex + 1, raft.hardState];
  raft.out.push({ kind: "accepted", ticket, index, epoch });
  appendConfiguration(raft, leadership, encoded);
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
function configurationAfter(before: Configuration, change: MembershipChange): Configuration | null {
  const members = membersAfter(before, change);
  if (members === null) return null;
  const joint = members.voters !== before.voters;
  return { ...members, votersOutgoing: joint ? before.voters : [] };
}

function leaveJoint(raft: Raft, leadership: Leadership, joint: Configuration): void {
  const next = { voters: joint.voters, votersOutgoing: [], learners: joint.learners };
  const encoded = encodeNext(raft.tuning, next, joint, NO_CHANGE);
  // A group that cannot write configurations stays in the one that it was given.
  if (encoded !== null) appendConfiguration(raft, leadership, encoded);
}

function appendConfiguration(raft: Raft, leadership: Leadership, payload: Uint8Array): void {
  const { epoch } = raft.hardState;
  appendOwn(raft, leadership, [{ index: raft.log.lastIndex + 1, epoch, kind: "config", payload }]);
}
