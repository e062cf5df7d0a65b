/**
 * Owns the follower's half of log replication: accept, refuse with a hint, follow the leader's commit (Raft §5.3).
 *
 * The one thing to know: an acceptance is sent after the last write that touched the accepted prefix. So it always
 * speaks of this leader's entries on this replica's disk, however often the tail was rewritten before.
 */
import type { Entry, ReplicaId } from "../engine.ts";
import { contradicts, pointToCompare } from "../shared/applied-points.ts";
import { configurationsIn } from "../shared/membership.ts";
import { becomeFollower, campaign } from "./election.ts";
import { epochAt, lastIndexOfEpochUpTo, unwrittenBytes, writeCovering } from "./log-view.ts";
import type { Append, Halt, Heartbeat, TimeoutNow } from "./messages.ts";
import { draftToken, halt, isPromotable, type Raft, send, setCommit, writeEntries } from "./state.ts";

export function handleAppend(raft: Raft, from: ReplicaId, message: Append): void {
  if (!follow(raft, from, message.epoch)) return;
  const { log } = raft;
  const { previousIndex, entries } = message;
  const held = epochAt(log, previousIndex);
  if (held !== message.previousEpoch && previousIndex > raft.commit) return reject(raft, from, message);
  if (held !== message.previousEpoch && held !== null) return halt(raft, differsBelowCommit(previousIndex));
  const fresh = entries.slice(firstFresh(raft, entries));
  const first = fresh[0];
  if (first !== undefined) {
    if (first.index <= raft.commit) return halt(raft, differsBelowCommit(first.index));
    // The disk is far behind: what was not taken is sent again.
    if (unwrittenBytes(log) > raft.tuning.logCacheBytesMax) return;
    const configurations = configurationsIn(raft.tuning, fresh);
    if (configurations === null) return halt(raft, `configuration entry near ${first.index} cannot be read`);
    writeEntries(raft, fresh, configurations);
  }
  const match = previousIndex + entries.length;
  raft.matched = Math.max(raft.matched, match);
  setCommit(raft, Math.min(message.commit, raft.matched));
  const covering = first === undefined ? writeCovering(log, match) : draftToken(raft);
  const { epoch } = raft.hardState;
  send(raft, from, { kind: "append_accepted", epoch, match, voting: raft.voting }, covering);
}

export function handleHeartbeat(raft: Raft, from: ReplicaId, message: Heartbeat): void {
  if (!follow(raft, from, message.epoch)) return;
  setCommit(raft, Math.min(message.commit, raft.matched));
  if (message.round === 0) return;
  const { commit, voting, points } = raft;
  const applied = pointToCompare(points, message.applied);
  const { epoch } = raft.hardState;
  send(raft, from, { kind: "heartbeat_reply", epoch, round: message.round, commit, applied, voting });
}

export function handleTimeoutNow(raft: Raft, from: ReplicaId, message: TimeoutNow): void {
  if (message.epoch !== raft.hardState.epoch || raft.role !== "follower" || raft.leader !== from) return;
  if (isPromotable(raft)) campaign(raft, true);
}

/** The leader and a quorum agree on a point. Only a replica that sees the difference itself takes the order. */
export function handleHalt(raft: Raft, from: ReplicaId, message: Halt): void {
  if (message.epoch !== raft.hardState.epoch || raft.leader !== from || raft.role !== "follower") return;
  if (!contradicts(raft.points, message.point)) return;
  halt(raft, `a quorum applied another history up to index ${message.point.index} (its chain: ${message.point.chain})`);
}

/** Takes `from` for the leader of `epoch`; false when it is not. */
function follow(raft: Raft, from: ReplicaId, epoch: number): boolean {
  const own = raft.hardState.epoch;
  if (epoch < own) {
    // Without this answer a replica that saw a higher epoch could never be reached again by the leader it has.
    send(raft, from, { kind: "stale", epoch: own });
    return false;
  }
  if (raft.role === "leader" && epoch === own) {
    halt(raft, `${from} leads in epoch ${epoch} too: a vote was lost`);
    return false;
  }
  if (epoch > own || raft.role !== "follower" || raft.leader === null) becomeFollower(raft, epoch, from);
  if (raft.leader !== from) return false;
  raft.electionElapsed = 0;
  return true;
}

function reject(raft: Raft, from: ReplicaId, message: Append): void {
  const { log, voting } = raft;
  const hintIndex = lastIndexOfEpochUpTo(log, message.previousIndex, message.previousEpoch);
  send(raft, from, {
    kind: "append_rejected",
    epoch: raft.hardState.epoch,
    previousIndex: message.previousIndex,
    hintIndex,
    hintEpoch: epochAt(log, hintIndex) ?? 0,
    voting,
  });
}

/** Position of the first entry that the log does not hold yet, with its epoch. */
function firstFresh(raft: Raft, entries: readonly Entry[]): number {
  let at = 0;
  for (const entry of entries) {
    const held = epochAt(raft.log, entry.index);
    // Committed entries below the first that the log still holds are the leader's too (leader completeness).
    if (held !== entry.epoch && !(held === null && entry.index <= raft.commit)) break;
    at += 1;
  }
  return at;
}

function differsBelowCommit(index: number): string {
  return `the leader's entry ${index} is not the one committed here`;
}
