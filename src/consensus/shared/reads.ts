/**
 * Owns linearizable reads without a log entry (thesis §6.4), and the heartbeat rounds that carry them.
 *
 * A read takes the commit index when its round starts and is answered when a quorum has acknowledged that round or a
 * later one in this epoch: until then nothing was chosen elsewhere. Reads that come while a round is out share the next.
 * The one thing to know: every broadcast has a fresh round number, also a retry, so an old acknowledgement never confirms
 * a read that began after it (etcd 20418); and no round carries reads before the commit index is the group's (etcd 7331).
 */
import type { Effect, EngineTuning, HardState, LogIndex, ReplicaId } from "../engine.ts";
import type { Points } from "./applied-points.ts";
import type { Leadership } from "./leadership.ts";
import type { Heartbeat, HeartbeatReply } from "./messages.ts";
import type { Progress } from "./progress.ts";

type ReadEffect = Extract<Effect<never>, { kind: "read_ready" | "read_failed" }>;

/** What of an engine's state reads depend on. */
export interface Reading {
  readonly id: ReplicaId;
  readonly tuning: Pick<EngineTuning, "proposalsInFlightMax">;
  readonly points: Points;
  readonly hardState: HardState;
  readonly leader: ReplicaId | null;
  readonly leadership: Leadership | null;
  readonly commit: LogIndex;
  readonly voting: boolean;
  readonly out: { push(effect: ReadEffect): unknown };
}

/** What differs between the engines. */
export interface ReadRules<S> {
  /** The highest value that a quorum has reached: of every configuration that has a say. */
  quorumValue(state: S, valueOf: (id: ReplicaId) => number): number;
  send(state: S, to: ReplicaId, message: Heartbeat): void;
}

export interface ReadRounds<S> {
  requestRead(state: S, ticket: number): void;
  /** Starts a round for waiting reads unless one is out; never before the commit index is the group's. */
  startWaitingReads(state: S, leadership: Leadership): void;
  /** A heartbeat to every member; a new round that also carries the waiting reads. */
  broadcastHeartbeat(state: S, leadership: Leadership): void;
  /**
   * The commit index rose: followers that were not told learn of it at once, but only once a tick. Under load the next
   * entries tell it, and a message of its own for each commit would wake every follower twice.
   */
  noteCommit(state: S, leadership: Leadership): void;
  /** Tells the commit index to whom no message has told it yet. */
  tellCommit(state: S, leadership: Leadership): void;
  /** Takes in which round a follower has answered. */
  noteRound(state: S, leadership: Leadership, from: ReplicaId, message: HeartbeatReply): void;
  /** Every read of this leadership fails: it ended, or its quorum is lost. */
  failReads(state: S, leadership: Leadership, reason: "not_leader" | "no_quorum"): void;
}

export function createReadRounds<S extends Reading>(rules: ReadRules<S>): ReadRounds<S> {
  function startWaitingReads(state: S, leadership: Leadership): void {
    const { reads } = leadership;
    if (reads.waiting.length === 0 || reads.rounds.length > 0 || !leadership.committedInEpoch) return;
    broadcastHeartbeat(state, leadership);
  }

  function broadcastHeartbeat(state: S, leadership: Leadership): void {
    const { reads } = leadership;
    leadership.heartbeatElapsed = 0;
    reads.lastRound += 1;
    if (reads.waiting.length > 0 && leadership.committedInEpoch) {
      reads.rounds.push({ round: reads.lastRound, index: state.commit, tickets: reads.waiting });
      reads.waiting = [];
    }
    for (const [id, progress] of leadership.progress) sendHeartbeat(state, id, progress, reads.lastRound);
    confirmReads(state, leadership);
  }

  function confirmReads(state: S, { reads, progress }: Leadership): void {
    if (reads.rounds.length === 0) return;
    const confirmed = rules.quorumValue(state, (id) => {
      if (id === state.id) return state.voting ? reads.lastRound : 0;
      return progress.get(id)?.ackedRound ?? 0;
    });
    while ((reads.rounds[0]?.round ?? Infinity) <= confirmed) {
      const done = reads.rounds.shift();
      if (done === undefined) break;
      reads.pendingCount -= done.tickets.length;
      for (const ticket of done.tickets) state.out.push({ kind: "read_ready", ticket, index: done.index });
    }
  }

  function tellCommit(state: S, leadership: Leadership): void {
    for (const [id, progress] of leadership.progress) {
      if (progress.commitTold >= state.commit) continue;
      leadership.toldInTick = true;
      sendHeartbeat(state, id, progress, 0);
    }
  }

  function sendHeartbeat(state: S, id: ReplicaId, progress: Progress, round: number): void {
    const { hardState, commit, points } = state;
    progress.commitTold = commit;
    rules.send(state, id, { kind: "heartbeat", epoch: hardState.epoch, commit, round, applied: points.latest });
  }

  return {
    startWaitingReads,
    broadcastHeartbeat,
    tellCommit,
    noteCommit(state, leadership) {
      if (!leadership.toldInTick) tellCommit(state, leadership);
    },
    requestRead(state, ticket) {
      const { leadership, leader } = state;
      if (leadership === null) {
        state.out.push({ kind: "read_failed", ticket, reason: "not_leader", leader });
        return;
      }
      const { reads } = leadership;
      if (reads.pendingCount >= state.tuning.proposalsInFlightMax) {
        // Reads pile up only when no quorum answers.
        state.out.push({ kind: "read_failed", ticket, reason: "no_quorum", leader });
        return;
      }
      reads.waiting.push(ticket);
      reads.pendingCount += 1;
      startWaitingReads(state, leadership);
    },
    noteRound(state, leadership, from, message) {
      const progress = leadership.progress.get(from);
      if (progress === undefined || !message.voting || message.round > leadership.reads.lastRound) return;
      if (message.round <= progress.ackedRound) return;
      progress.ackedRound = message.round;
      confirmReads(state, leadership);
      startWaitingReads(state, leadership);
    },
    failReads(state, { reads }, reason) {
      const tickets = [...reads.rounds.flatMap((round) => round.tickets), ...reads.waiting];
      for (const ticket of tickets) state.out.push({ kind: "read_failed", ticket, reason, leader: state.leader });
      reads.rounds.length = 0;
      reads.waiting = [];
      reads.pendingCount = 0;
    },
  };
}
