/**
 * Owns the messages of Multi-Paxos between replicas. Every message carries a ballot as its `epoch`.
 *
 * The one thing to know: a promise and an acceptance speak of durable state. The engine gates both on the write that
 * holds what they say (`afterToken`), so a message that was received is a promise that is kept.
 */
import type { Entry, Epoch, LogIndex } from "../engine.ts";
import type { Halt, Heartbeat, HeartbeatReply } from "../shared/messages.ts";

export type { Halt, Heartbeat, HeartbeatReply };

/** Phase 1a, for every slot from `from` on. Sent again with a higher `from` to fetch the rest of an acceptor's suffix. */
export interface Prepare {
  readonly kind: "prepare";
  /** The ballot asked for; with `pre` it is not entered yet. */
  readonly epoch: Epoch;
  /** Only asks who would promise: a replica that cannot win must not disturb a leader (as Raft's pre-vote). */
  readonly pre: boolean;
  /** The leader itself asked for this campaign: acceptors need not stand by it any more. */
  readonly handOver: boolean;
  readonly from: LogIndex;
  /** Last slot of the sender: one that lags far behind is not helped to lead. */
  readonly lastIndex: LogIndex;
}

/** Phase 1b. A part of the acceptor's suffix: `entries` start at `from`, with the ballots in which they were accepted. */
export interface Promised {
  readonly kind: "promise";
  /** The sender's promised ballot. */
  readonly epoch: Epoch;
  /** The ballot of the prepare that this answers. */
  readonly asked: Epoch;
  readonly pre: boolean;
  readonly granted: boolean;
  readonly from: LogIndex;
  readonly lastIndex: LogIndex;
  /** Every slot up to here is chosen, and is what the sender holds. */
  readonly commit: LogIndex;
  readonly entries: readonly Entry[];
}

/** Phase 2a for consecutive slots from previousIndex + 1 on; every value is proposed in `epoch`. Empty is a probe. */
export interface Accept {
  readonly kind: "accept";
  readonly epoch: Epoch;
  readonly previousIndex: LogIndex;
  readonly commit: LogIndex;
  readonly entries: readonly Entry[];
}

/** Phase 2b: every slot up to `match` is chosen or accepted in `epoch`, durably. */
export interface Accepted {
  readonly kind: "accepted";
  readonly epoch: Epoch;
  readonly match: LogIndex;
  /** False: the sender replicates, but must not be counted. */
  readonly voting: boolean;
}

/** The accept would leave a hole. `match` is what the sender could continue from. */
export interface Gap {
  readonly kind: "gap";
  readonly epoch: Epoch;
  /** The previousIndex that was refused. */
  readonly previousIndex: LogIndex;
  readonly match: LogIndex;
  readonly voting: boolean;
}

/** The receiver leads in a ballot below what the sender has promised. */
export interface Refused {
  readonly kind: "refused";
  readonly epoch: Epoch;
}

/** Prepare now: the leader of `epoch` gives up. */
export interface HandOver {
  readonly kind: "hand_over";
  readonly epoch: Epoch;
}

/** The receiver asked as a member, and the configuration in force at `index`, a chosen slot, does not hold it. */
export interface Removed {
  readonly kind: "removed";
  readonly epoch: Epoch;
  readonly index: LogIndex;
}

export type PaxosMessage =
  | Prepare
  | Promised
  | Accept
  | Accepted
  | Gap
  | Heartbeat
  | HeartbeatReply
  | Refused
  | HandOver
  | Halt
  | Removed;

export type MessageKind = PaxosMessage["kind"];
