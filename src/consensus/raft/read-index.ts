/**
 * Owns linearizable reads without a log entry (thesis §6.4), and the heartbeat rounds that carry them.
 *
 * A read takes the commit index when its round starts and is answered when a quorum has acknowledged that round or a
 * later one. Reads that come while a round is out share the next. The one thing to know: every broadcast has a fresh
 * round number, also a retry, so an old acknowledgement never confirms a read that began after it (etcd 20418).
 */
import type { ReplicaId } from "../engine.ts";
import { quorumValue } from "../shared/configuration.ts";
import type { HeartbeatReply } from "./messages.ts";
import type { Leadership } from "../shared/leadership.ts";
import { activeConfiguration, type Raft, send } from "./state.ts";

export function requestRead(raft: Raft, ticket: number): void {
  const { leadership } = raft;
  if (leadership === null) {
    raft.out.push({ kind: "read_failed", ticket, reason: "not_leader", leader: raft.leader });
    return;
  }
  const { reads } = leadership;
  if (reads.pendingCount >= raft.tuning.proposalsInFlightMax) {
    // Reads pile up only when no quorum answers.
    raft.out.push({ kind: "read_failed", ticket, reason: "no_quorum", leader: raft.leader });
    return;
  }
  reads.waiting.push(ticket);
  reads.pendingCount += 1;
  startWaitingReads(raft, leadership);
}

/** Starts a round for waiting reads unless one is out; never before the first commit of the epoch (etcd 7331). */
export function startWaitingReads(raft: Raft, leadership: Leadership): void {
  const { reads } = leadership;
  if (reads.waiting.length === 0 || reads.rounds.length > 0 || !leadership.committedInEpoch) return;
  broadcastHeartbeat(raft, leadership);
}

/** A heartbeat to every member; a new round that also carries the waiting reads. */
export function broadcastHeartbeat(raft: Raft, leadership: Leadership): void {
  const { reads } = leadership;
  leadership.heartbeatElapsed = 0;
  reads.lastRound += 1;
  if (reads.waiting.length > 0 && leadership.committedInEpoch) {
    reads.rounds.push({ round: reads.lastRound, index: raft.commit, tickets: reads.waiting });
    reads.waiting = [];
  }
  sendHeartbeats(raft, leadership, reads.lastRound);
  confirmReads(raft, leadership);
}

/** Tells the commit index at once: followers should not wait for the next append or heartbeat to apply. */
export function broadcastCommit(raft: Raft, leadership: Leadership): void {
  sendHeartbeats(raft, leadership, 0);
}

/** Takes in which round a follower has answered. */
export function noteRound(raft: Raft, leadership: Leadership, from: ReplicaId, message: HeartbeatReply): void {
  const progress = leadership.progress.get(from);
  if (progress === undefined || !message.voting || message.round > leadership.reads.lastRound) return;
  if (message.round <= progress.ackedRound) return;
  progress.ackedRound = message.round;
  confirmReads(raft, leadership);
  startWaitingReads(raft, leadership);
}

/** Every read of this leadership fails: it ended, or its quorum is lost. */
export function failReads(raft: Raft, leadership: Leadership, reason: "not_leader" | "no_quorum"): void {
  const { reads } = leadership;
  const tickets = [...reads.rounds.flatMap((round) => round.tickets), ...reads.waiting];
  for (const ticket of tickets) raft.out.push({ kind: "read_failed", ticket, reason, leader: raft.leader });
  reads.rounds.length = 0;
  reads.waiting = [];
  reads.pendingCount = 0;
}

function confirmReads(raft: Raft, leadership: Leadership): void {
  const { reads, progress } = leadership;
  if (reads.rounds.length === 0) return;
  const confirmed = quorumValue(activeConfiguration(raft), (id) => {
    if (id === raft.id) return raft.voting ? reads.lastRound : 0;
    return progress.get(id)?.ackedRound ?? 0;
  });
  while ((reads.rounds[0]?.round ?? Infinity) <= confirmed) {
    const done = reads.rounds.shift();
    if (done === undefined) break;
    reads.pendingCount -= done.tickets.length;
    for (const ticket of done.tickets) raft.out.push({ kind: "read_ready", ticket, index: done.index });
  }
}

function sendHeartbeats(raft: Raft, leadership: Leadership, round: number): void {
  const { epoch } = raft.hardState;
  const heartbeat = { kind: "heartbeat", epoch, commit: raft.commit, round, applied: raft.points.latest } as const;
  for (const id of leadership.progress.keys()) send(raft, id, heartbeat);
}
