/**
 * Owns roles: who campaigns, who votes, who steps down (Raft §5.2, §5.4.1; thesis §4.2.3, §9.6).
 *
 *   follower ──timeout──► pre_candidate ──quorum would vote──► candidate ──quorum voted──► leader
 *      ▲                       │                                  │                          │
 *      └───── a leader, a higher epoch, a lost vote, or (leader) no quorum heard ────────────┘
 *
 * The one thing to know: a vote is given once per epoch, and it counts (the own one too) only when it is durable.
 */
import type { Epoch, ReplicaId } from "../engine.ts";
import { hasQuorum, isMember, isVoter, membersOf, voteOutcome } from "../shared/configuration.ts";
import { epochAt, lastEpoch } from "./log-view.ts";
import type { Removed, VoteReply, VoteRequest } from "./messages.ts";
import { broadcastHeartbeat, failReads, tellCommit } from "./read-index.ts";
import { appendOwn, syncMembers } from "./replication.ts";
import { createLeadership, type Leadership } from "../shared/leadership.ts";
import { rollElectionTimeout } from "../shared/timer.ts";
import {
  activeConfiguration,
  configurationIsCommitted,
  draftToken,
  isPromotable,
  type Raft,
  send,
  setCommit,
  setHardState,
} from "./state.ts";
import { tickTransfer } from "./transfer.ts";

/** Enters `epoch` (the same or a later one) as a follower of `leader`, if that is known. */
export function becomeFollower(
  raft: Raft,
  epoch: Epoch,
  leader: ReplicaId | null,
  readsFail: "not_leader" | "no_quorum" = "not_leader",
): void {
  if (epoch > raft.hardState.epoch) {
    setHardState(raft, epoch, null);
    raft.matched = raft.commit;
  }
  const { leadership } = raft;
  raft.role = "follower";
  raft.leader = leader;
  raft.leadership = null;
  raft.votes.clear();
  raft.selfVoteToken = null;
  rollElectionTimeout(raft);
  if (leadership === null) return;
  raft.matched = raft.commit;
  failReads(raft, leadership, readsFail);
}

export function tickElection(raft: Raft): void {
  raft.electionElapsed += 1;
  if (raft.electionElapsed < raft.electionTimeout) return;
  rollElectionTimeout(raft);
  raft.leader = null;
  if (isPromotable(raft)) preCampaign(raft);
}

export function tickLeader(raft: Raft, leadership: Leadership): void {
  const { tuning } = raft;
  leadership.heartbeatElapsed += 1;
  leadership.quorumElapsed += 1;
  tickTransfer(raft, leadership);
  if (leadership.quorumElapsed >= tuning.electionTicksMin) {
    leadership.quorumElapsed = 0;
    // Check-quorum (thesis §6.2): a leader that hears no quorum must not look like one.
    const heard = (id: ReplicaId): boolean =>
      id === raft.id ? raft.voting : leadership.progress.get(id)?.heard === true;
    if (!hasQuorum(activeConfiguration(raft), heard)) {
      becomeFollower(raft, raft.hardState.epoch, null, "no_quorum");
      return;
    }
    for (const [id, progress] of leadership.progress) {
      // It left and is silent: should it come back, its request for votes is answered.
      if (progress.leavingAt !== null && !progress.heard) leadership.progress.delete(id);
      progress.heard = false;
    }
  }
  if (leadership.heartbeatElapsed >= tuning.heartbeatTicks) broadcastHeartbeat(raft, leadership);
  leadership.toldInTick = false;
  tellCommit(raft, leadership);
}

/** Campaigns at once, without a pre-vote: the leader asked for it (thesis §3.10). */
export function campaign(raft: Raft, transfer: boolean): void {
  const epoch = raft.hardState.epoch + 1;
  setHardState(raft, epoch, raft.id);
  raft.role = "candidate";
  raft.leader = null;
  raft.matched = raft.commit;
  raft.votes.clear();
  raft.selfVoteToken = draftToken(raft);
  rollElectionTimeout(raft);
  requestVotes(raft, { epoch, pre: false, transfer });
}

export function handleVoteRequest(raft: Raft, from: ReplicaId, message: VoteRequest): void {
  const { log } = raft;
  const reply = (granted: boolean): void =>
    send(raft, from, {
      kind: "vote_reply",
      epoch: raft.hardState.epoch,
      requestEpoch: message.epoch,
      pre: message.pre,
      granted,
    });
  tellRemoved(raft, from);
  if (message.epoch < raft.hardState.epoch) return reply(false);
  if (!message.transfer && hearsLeader(raft)) return;
  if (!message.pre && message.epoch > raft.hardState.epoch) becomeFollower(raft, message.epoch, null);
  const { epoch, votedFor } = raft.hardState;
  const free = votedFor === from || (votedFor === null && raft.leader === null);
  const mayVote = free || (message.pre && message.epoch > epoch);
  const newest = lastEpoch(log);
  const upToDate = message.lastEpoch > newest || (message.lastEpoch === newest && message.lastIndex >= log.lastIndex);
  const granted = raft.voting && mayVote && upToDate;
  if (granted && !message.pre) {
    setHardState(raft, epoch, from);
    rollElectionTimeout(raft);
  }
  reply(granted);
}

export function handleVoteReply(raft: Raft, from: ReplicaId, message: VoteReply): void {
  const { epoch } = raft.hardState;
  const asked = message.pre ? epoch + 1 : epoch;
  const open = raft.role === (message.pre ? "pre_candidate" : "candidate") && message.requestEpoch === asked;
  if (open && message.granted) return countVote(raft, from, true);
  if (message.epoch > epoch) return becomeFollower(raft, message.epoch, null);
  if (open) countVote(raft, from, false);
}

/** Answers one that takes itself for a member, when it is known to be none. */
export function tellRemoved(raft: Raft, to: ReplicaId): void {
  const { commit, log, hardState } = raft;
  if (isMember(activeConfiguration(raft), to) || !configurationIsCommitted(raft)) return;
  const committedEpoch = epochAt(log, commit);
  if (commit === 0 || committedEpoch === null) return;
  send(raft, to, { kind: "removed", epoch: hardState.epoch, committedIndex: commit, committedEpoch });
}

/**
 * Told to be out. That is news only to a replica that lacks a committed entry, and such a one could win no election
 * (leader completeness): it loses nothing by keeping quiet until a leader brings it another configuration. One that
 * holds the entry learns that it is committed, and judges by its own log.
 */
export function handleRemoved(raft: Raft, { committedIndex, committedEpoch }: Removed): void {
  if (raft.role === "leader" || committedIndex <= raft.commit) return;
  if (epochAt(raft.log, committedIndex) === committedEpoch) {
    raft.matched = Math.max(raft.matched, committedIndex);
    setCommit(raft, committedIndex);
    return;
  }
  if (raft.removed) return;
  raft.removed = true;
  raft.out.push({ kind: "removed", index: committedIndex });
  if (raft.role !== "follower") becomeFollower(raft, raft.hardState.epoch, null);
}

/** The own vote is durable: it counts from now on. */
export function countOwnVote(raft: Raft): void {
  if (raft.selfVoteToken === null || raft.selfVoteToken > raft.persistedToken) return;
  raft.selfVoteToken = null;
  if (raft.role === "candidate") countVote(raft, raft.id, true);
}

/** A follower that hears a live leader keeps out of elections (thesis §4.2.3). A leader hears itself: check-quorum keeps it honest. */
function hearsLeader(raft: Raft): boolean {
  if (raft.role === "leader") return true;
  return raft.leader !== null && raft.electionElapsed < raft.tuning.electionTicksMin;
}

function preCampaign(raft: Raft): void {
  raft.role = "pre_candidate";
  raft.leader = null;
  raft.votes.clear();
  raft.selfVoteToken = null;
  requestVotes(raft, { epoch: raft.hardState.epoch + 1, pre: true, transfer: false });
  countVote(raft, raft.id, true);
}

function requestVotes(raft: Raft, request: Pick<VoteRequest, "epoch" | "pre" | "transfer">): void {
  const configuration = activeConfiguration(raft);
  const { lastIndex } = raft.log;
  for (const id of membersOf(configuration)) {
    if (id === raft.id || !isVoter(configuration, id)) continue;
    send(raft, id, { kind: "vote_request", ...request, lastIndex, lastEpoch: lastEpoch(raft.log) });
  }
}

function countVote(raft: Raft, from: ReplicaId, granted: boolean): void {
  if (!raft.votes.has(from)) raft.votes.set(from, granted);
  const outcome = voteOutcome(activeConfiguration(raft), raft.votes);
  if (outcome === "pending") return;
  if (outcome === "lost") return becomeFollower(raft, raft.hardState.epoch, null);
  if (raft.role === "pre_candidate") campaign(raft, false);
  else becomeLeader(raft);
}

/** A new leader appends an entry of its epoch at once: only that can commit, and commits what is before it (Raft §5.4.2, §8). */
function becomeLeader(raft: Raft): void {
  const { epoch } = raft.hardState;
  const leadership = createLeadership();
  raft.role = "leader";
  raft.leader = raft.id;
  raft.leadership = leadership;
  raft.votes.clear();
  syncMembers(raft, leadership);
  const index = raft.log.lastIndex + 1;
  appendOwn(raft, leadership, [
    index === 1
      ? { index, epoch, kind: "config", payload: raft.genesis }
      : { index, epoch, kind: "noop", payload: new Uint8Array(0) },
  ]);
}
