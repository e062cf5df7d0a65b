/**
 * Owns the messages that both engines have: heartbeats, their answers, and the order to halt.
 */
import type { AppliedPoint, Epoch, LogIndex } from "../engine.ts";

export interface Heartbeat {
  readonly kind: "heartbeat";
  readonly epoch: Epoch;
  readonly commit: LogIndex;
  /** Rises with every round of this leader; 0 only tells the commit index and wants no reply. */
  readonly round: number;
  readonly applied: AppliedPoint | null;
}

export interface HeartbeatReply {
  readonly kind: "heartbeat_reply";
  readonly epoch: Epoch;
  readonly round: number;
  readonly commit: LogIndex;
  /** The sender's point at the index of the heartbeat's, or else its latest. */
  readonly applied: AppliedPoint | null;
  readonly voting: boolean;
}

/** A quorum agrees with the leader on this point, the receiver does not. */
export interface Halt {
  readonly kind: "halt";
  readonly epoch: Epoch;
  readonly point: AppliedPoint;
}

export type SharedMessage = Heartbeat | HeartbeatReply | Halt;
