/**
 * Owns linearizable reads without a slot, and the heartbeat rounds that carry them.
 *
 * A read takes the commit index when its round starts and is answered when a quorum has acknowledged that round or a
 * later one in this ballot: until then no quorum had promised a higher one, so nothing was chosen elsewhere. The one thing
 * to know: no round carries reads before all that phase 1 found is chosen; until then the commit index may be behind.
 */
import type { ReplicaId } from "../engine.ts";
import type { Progress } from "../shared/progress.ts";
import type { HeartbeatReply } from "./messages.ts";
import { openQuorumValue } from "./quorums.ts";
import { type Leading, type Paxos, send } from "./state.ts";

export function requestRead(paxos: Paxos, ticket: number): void {
  const { leadership } = paxos;
  if (leadership === null) {
    paxos.out.push({ kind: "read_failed", ticket, reason: "not_leader", leader: paxos.leader });
    return;
  }
  const { reads } = leadership;
  if (reads.pendingCount >= paxos.tuning.proposalsInFlightMax) {
    // Reads pile up only when no quorum answers.
    paxos.out.push({ kind: "read_failed", ticket, reason: "no_quorum", leader: paxos.leader });
    return;
  }
  reads.waiting.push(ticket);
  reads.pendingCount += 1;
  startWaitingReads(paxos, leadership);
}

/** Once the suffix that phase 1 found is chosen, the commit index is the group's. */
export function settleSuffix(paxos: Paxos, leadership: Leading): void {
  if (leadership.committedInEpoch || paxos.commit < leadership.suffixEnd) return;
  leadership.committedInEpoch = true;
  startWaitingReads(paxos, leadership);
}

/** A heartbeat to every member; a new round that also carries the waiting reads. */
export function broadcastHeartbeat(paxos: Paxos, leadership: Leading): void {
  const { reads } = leadership;
  leadership.heartbeatElapsed = 0;
  reads.lastRound += 1;
  if (reads.waiting.length > 0 && leadership.committedInEpoch) {
    reads.rounds.push({ round: reads.lastRound, index: paxos.commit, tickets: reads.waiting });
    reads.waiting = [];
  }
  for (const [id, progress] of leadership.progress) sendHeartbeat(paxos, id, progress, reads.lastRound);
  confirmReads(paxos, leadership);
}

/**
 * The commit index rose: followers that were not told learn of it at once, but only once a tick. Under load the next
 * accept tells it, and a message of its own for each commit would wake every follower twice.
 */
export function noteCommit(paxos: Paxos, leadership: Leading): void {
  if (!leadership.toldInTick) tellCommit(paxos, leadership);
}

/** Tells the commit index to whom no message has told it yet. */
export function tellCommit(paxos: Paxos, leadership: Leading): void {
  for (const [id, progress] of leadership.progress) {
    if (progress.commitTold >= paxos.commit) continue;
    leadership.toldInTick = true;
    sendHeartbeat(paxos, id, progress, 0);
  }
}

/** Takes in which round a follower has answered. */
export function noteRound(paxos: Paxos, leadership: Leading, from: ReplicaId, message: HeartbeatReply): void {
  const progress = leadership.progress.get(from);
  if (progress === undefined || !message.voting || message.round > leadership.reads.lastRound) return;
  if (message.round <= progress.ackedRound) return;
  progress.ackedRound = message.round;
  confirmReads(paxos, leadership);
  startWaitingReads(paxos, leadership);
}

/** Every read of this leadership fails: it ended, or its quorum is lost. */
export function failReads(paxos: Paxos, leadership: Leading, reason: "not_leader" | "no_quorum"): void {
  const { reads } = leadership;
  const tickets = [...reads.rounds.flatMap((round) => round.tickets), ...reads.waiting];
  for (const ticket of tickets) paxos.out.push({ kind: "read_failed", ticket, reason, leader: paxos.leader });
  reads.rounds.length = 0;
  reads.waiting = [];
  reads.pendingCount = 0;
}

/** Starts a round for waiting reads unless one is out. */
function startWaitingReads(paxos: Paxos, leadership: Leading): void {
  const { reads } = leadership;
  if (reads.waiting.length === 0 || reads.rounds.length > 0 || !leadership.committedInEpoch) return;
  broadcastHeartbeat(paxos, leadership);
}

function confirmReads(paxos: Paxos, leadership: Leading): void {
  const { reads, progress } = leadership;
  if (reads.rounds.length === 0) return;
  const confirmed = openQuorumValue(paxos, (id) => {
    if (id === paxos.id) return paxos.voting ? reads.lastRound : 0;
    return progress.get(id)?.ackedRound ?? 0;
  });
  while ((reads.rounds[0]?.round ?? Infinity) <= confirmed) {
    const done = reads.rounds.shift();
    if (done === undefined) break;
    reads.pendingCount -= done.tickets.length;
    for (const ticket of done.tickets) paxos.out.push({ kind: "read_ready", ticket, index: done.index });
  }
}

function sendHeartbeat(paxos: Paxos, id: ReplicaId, progress: Progress, round: number): void {
  const { epoch } = paxos.hardState;
  progress.commitTold = paxos.commit;
  send(paxos, id, { kind: "heartbeat", epoch, commit: paxos.commit, round, applied: paxos.points.latest });
}
