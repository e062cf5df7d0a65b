/**
 * Owns the messages of Raft between replicas. Every message carries the sender's epoch (Raft's term).
 *
 * The one thing to know: acknowledgements speak of durable state. The engine gates `append_reply` and `vote_reply`
 * on the write that they promise (`afterToken`), so a message that was received is a promise that was kept.
 */
import type { Entry, Epoch, LogIndex } from "../engine.ts";
import type { Halt, Heartbeat, HeartbeatReply } from "../shared/messages.ts";

export type { Halt, Heartbeat, HeartbeatReply };

/** RequestVote (Raft §5.2) and its pre-vote (thesis §9.6). */
export interface VoteRequest {
  readonly kind: "vote_request";
  /** The epoch asked for; for a pre-vote the sender's own epoch + 1, which it has not entered. */
  readonly epoch: Epoch;
  readonly pre: boolean;
  /** The leader itself asked for this election: stickiness does not apply (thesis §4.2.3). */
  readonly transfer: boolean;
  readonly lastIndex: LogIndex;
  readonly lastEpoch: Epoch;
}

export interface VoteReply {
  readonly kind: "vote_reply";
  readonly epoch: Epoch;
  /** The epoch of the request that this answers. */
  readonly requestEpoch: Epoch;
  readonly pre: boolean;
  readonly granted: boolean;
}

/** AppendEntries (Raft §5.3). `entries` start at previousIndex + 1; empty is a probe. */
export interface Append {
  readonly kind: "append";
  readonly epoch: Epoch;
  readonly previousIndex: LogIndex;
  readonly previousEpoch: Epoch;
  readonly commit: LogIndex;
  readonly entries: readonly Entry[];
}

export interface AppendAccepted {
  readonly kind: "append_accepted";
  readonly epoch: Epoch;
  /** The sender's log up to here is durable and equal to the leader's. */
  readonly match: LogIndex;
  /** False: the sender replicates, but must not be counted. */
  readonly voting: boolean;
}

/** The log does not hold (previousIndex, previousEpoch). The hint lets the leader skip a whole epoch (Raft §5.3, end). */
export interface AppendRejected {
  readonly kind: "append_rejected";
  readonly epoch: Epoch;
  /** The previousIndex that was refused. */
  readonly previousIndex: LogIndex;
  /** The highest index at or below it where the sender's epoch is no later than previousEpoch, and that epoch. */
  readonly hintIndex: LogIndex;
  readonly hintEpoch: Epoch;
  readonly voting: boolean;
}

/** The receiver leads in an epoch that is over. */
export interface Stale {
  readonly kind: "stale";
  readonly epoch: Epoch;
}

/** Start an election now (thesis §3.10). */
export interface TimeoutNow {
  readonly kind: "timeout_now";
  readonly epoch: Epoch;
}

/**
 * The receiver asked as a member, and the sender's committed configuration does not hold it (thesis §4.2.3). Names the
 * last entry that the sender knows to be committed.
 */
export interface Removed {
  readonly kind: "removed";
  readonly epoch: Epoch;
  readonly committedIndex: LogIndex;
  readonly committedEpoch: Epoch;
}

export type RaftMessage =
  | VoteRequest
  | VoteReply
  | Append
  | AppendAccepted
  | AppendRejected
  | Heartbeat
  | HeartbeatReply
  | Stale
  | TimeoutNow
  | Halt
  | Removed;

export type MessageKind = RaftMessage["kind"];
