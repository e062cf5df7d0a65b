/**
 * Owns `step`: which event and which message goes to which rule. The rules are in the files beside this one:
 * election (roles), replication (leader), following (follower), membership, read-index, transfer, applied-points.
 *
 * The one thing to know: who asks need not be known here. A lagging replica follows a leader, and votes for a
 * candidate, that its own configuration does not name yet (thesis §4.1). Answers count from members only.
 */
import type { Effect, EngineEvent, Epoch, ReplicaId } from "../engine.ts";
import { comparePoint, notePoint, settleDifferences } from "../shared/applied-points.ts";
import { compact } from "./compaction.ts";
import { isMember } from "../shared/configuration.ts";
import {
  becomeFollower,
  countOwnVote,
  handleRemoved,
  handleVoteReply,
  handleVoteRequest,
  tickElection,
  tellRemoved,
  tickLeader,
} from "./election.ts";
import { invariant } from "../shared/fault.ts";
import { handleAppend, handleHalt, handleHeartbeat, handleTimeoutNow } from "./following.ts";
import { noteDurable } from "./log-view.ts";
import type { HeartbeatReply, RaftMessage } from "./messages.ts";
import { configure, settleMembership } from "./membership.ts";
import { handleLoaded, handleLoadFailed, handleSnapshotEnd, sendAppends } from "./pipeline.ts";
import type { Leadership } from "../shared/leadership.ts";
import { noteUncounted } from "../shared/progress.ts";
import { noteRound, requestRead, tellCommit } from "./read-index.ts";
import { advanceCommit, handleAppendAccepted, handleAppendRejected, propose } from "./replication.ts";
import { activeConfiguration, halt, type Raft, send, takeEffects } from "./state.ts";
import { handOver, startTransfer } from "./transfer.ts";

export function step(raft: Raft, event: EngineEvent<RaftMessage>): readonly Effect<RaftMessage>[] {
  if (raft.halted) return [];
  handleEvent(raft, event);
  settleMembership(raft);
  return takeEffects(raft);
}

function handleEvent(raft: Raft, event: EngineEvent<RaftMessage>): void {
  switch (event.kind) {
    case "tick":
      return raft.leadership === null ? tickElection(raft) : tickLeader(raft, raft.leadership);
    case "message":
      return handleMessage(raft, event.from, event.message);
    case "propose":
      return propose(raft, event.proposals);
    case "read":
      return requestRead(raft, event.ticket);
    case "persisted":
      return handlePersisted(raft, event.token);
    case "loaded":
      return handleLoaded(raft, event.token, event.entries);
    case "load_failed":
      return handleLoadFailed(raft, event.token);
    case "applied":
      invariant(event.point.index <= raft.commit, `applied ${event.point.index}, committed is ${raft.commit}`);
      return notePoint(raft.points, event.point);
    case "tell_commit":
      if (raft.leadership !== null) tellCommit(raft, raft.leadership);
      return;
    case "configure":
      return configure(raft, event);
    case "compacted":
      return compact(raft, event.index, event.epoch);
    case "snapshot_sent":
      return handleSnapshotEnd(raft, event.to, event.index);
    case "snapshot_failed":
      return handleSnapshotEnd(raft, event.to, null);
    case "transfer":
      return startTransfer(raft, event.to);
    case "step_down":
      return stepDown(raft);
    case "voting":
      raft.voting = event.allowed;
      // One that lost its promises can neither lead nor win what it asked for.
      if (!event.allowed && raft.role !== "follower") becomeFollower(raft, raft.hardState.epoch, null);
      return;
  }
}

function handleMessage(raft: Raft, from: ReplicaId, message: RaftMessage): void {
  if (from === raft.id) return;
  switch (message.kind) {
    case "vote_request":
      return handleVoteRequest(raft, from, message);
    case "vote_reply":
      return handleVoteReply(raft, from, message);
    case "append":
      return handleAppend(raft, from, message);
    case "heartbeat":
      return handleHeartbeat(raft, from, message);
    case "timeout_now":
      return handleTimeoutNow(raft, from, message);
    case "halt":
      return handleHalt(raft, from, message);
    case "removed":
      return handleRemoved(raft, message);
    case "append_accepted":
    case "append_rejected":
    case "heartbeat_reply":
    case "stale":
      if (message.epoch > raft.hardState.epoch) return answeredFromLater(raft, from, message.epoch);
      if (message.kind === "append_accepted") return handleAppendAccepted(raft, from, message);
      if (message.kind === "append_rejected") return handleAppendRejected(raft, from, message);
      if (message.kind === "heartbeat_reply") return handleHeartbeatReply(raft, from, message);
      return;
  }
}

/** A member knows a later epoch: this one is over. One that left must not end it (thesis §4.2.3). */
function answeredFromLater(raft: Raft, from: ReplicaId, epoch: Epoch): void {
  if (isMember(activeConfiguration(raft), from)) becomeFollower(raft, epoch, null);
  else tellRemoved(raft, from);
}

function handlePersisted(raft: Raft, token: number): void {
  invariant(token > raft.persistedToken && token <= raft.lastToken, `persisted ${token} of ${raft.lastToken}`);
  raft.persistedToken = token;
  noteDurable(raft.log, token);
  countOwnVote(raft);
  advanceCommit(raft);
}

function handleHeartbeatReply(raft: Raft, from: ReplicaId, message: HeartbeatReply): void {
  const { leadership } = raft;
  const progress = leadership?.progress.get(from);
  if (leadership === null || progress === undefined || message.epoch !== raft.hardState.epoch) return;
  if (message.voting) progress.heard = true;
  else noteUncounted(progress);
  if (progress.leavingAt !== null && message.commit >= progress.leavingAt) {
    leadership.progress.delete(from);
    return;
  }
  progress.probing = false;
  noteRound(raft, leadership, from, message);
  if (message.applied !== null && comparePoint(raft.points, progress, message.applied)) {
    settleDifference(raft, leadership);
  }
  // Whatever was lost on the way shows here: ask where it stands, or tell it again what is committed.
  const counted = message.voting ? progress.votingMatch : progress.match;
  const behind = counted < raft.log.lastIndex || message.commit < Math.min(progress.match, raft.commit);
  sendAppends(raft, leadership, from, progress, behind);
}

function settleDifference(raft: Raft, { progress }: Leadership): void {
  const { id, points, hardState } = raft;
  settleDifferences(points, { id, progress }, [activeConfiguration(raft)], {
    haltLeader: (index) => halt(raft, `a quorum applied another history up to index ${index}`),
    tell: (to, point) => send(raft, to, { kind: "halt", epoch: hardState.epoch, point }),
  });
}

function stepDown(raft: Raft): void {
  if (raft.leadership === null) return;
  handOver(raft, raft.leadership);
  becomeFollower(raft, raft.hardState.epoch, null);
}
