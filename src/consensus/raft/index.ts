/**
 * Owns the door of the Raft engine: the only file of this folder that others import.
 */
import type { EngineKind } from "../engine.ts";
import { decodeMessage, encodeMessage } from "./codec.ts";
import type { RaftMessage } from "./messages.ts";
import { step } from "./raft.ts";
import { createRaft, statusOf } from "./state.ts";

export { ConsensusError } from "../shared/fault.ts";
export type { RaftMessage } from "./messages.ts";

/** Raft with pre-vote, check-quorum, leader transfer, joint configurations, ReadIndex and pipelined appends. */
export const raftEngine: EngineKind<RaftMessage> = {
  name: "raft",
  create(start, tuning) {
    const raft = createRaft(start, tuning);
    return { step: (event) => step(raft, event), status: () => statusOf(raft) };
  },
  encodeMessage,
  decodeMessage,
};
