/**
 * Owns Raft's ReadIndex (thesis §6.4): the read rounds of both engines, with the quorum of the active configuration.
 */
import { quorumValue } from "../shared/configuration.ts";
import { createReadRounds } from "../shared/reads.ts";
import { activeConfiguration, type Raft, send } from "./state.ts";

export const { requestRead, startWaitingReads, broadcastHeartbeat, noteCommit, tellCommit, noteRound, failReads } =
  createReadRounds<Raft>({
    quorumValue: (raft, valueOf) => quorumValue(activeConfiguration(raft), valueOf),
    send,
  });
