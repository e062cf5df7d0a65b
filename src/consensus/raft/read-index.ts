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
import type { Progress } from "../shared/progress.ts";
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
  for (const [id, progress] of leadership.progress) sendHeartbeat(raft, id, progress, reads.lastRound);
  confirmReads(raft, leadership);
}

/**
 * The commit index rose: followers that were not told learn of it at once, but only once a tick. Under load the next
 * append tells it, and a message of its own for each commit would wake every follower twice.
 */
export function noteCommit(raft: Raft, leadership: Leadership): void {
  if (!leadership.toldInTick) tellCommit(raft, leadership);
}

/** Tells the commit index to whom no message has told it yet. */
export function tellCommit(raft: Raft, leadership: Leadership): void {
  for (const [id, progress] of leadership.progress) {
    if (progress.commitTold >= raft.commit) continue;
    leadership.toldInTick = true;
    sendHeartbeat(raft, id, progress, 0);
  }
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

function sendHeartbeat(raft: Raft, id: ReplicaId, progress: Progress, round: number): void {
  const { epoch } = raft.hardState;
  progress.commitTold = raft.commit;
  send(raft, id, { kind: "heartbeat", epoch, commit: raft.commit, round, applied: raft.points.latest });
}
