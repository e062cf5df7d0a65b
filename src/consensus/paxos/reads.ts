/**
 * Owns linearizable reads of Multi-Paxos: the read rounds of both engines, with a quorum of every open configuration. Until
 * a round is acknowledged no quorum had promised a higher ballot, so nothing was chosen elsewhere.
 *
 * The one thing to know: no round carries reads before all that phase 1 found is chosen; until then the commit index may
 * be behind.
 */
import { createReadRounds } from "../shared/reads.ts";
import { openQuorumValue } from "./quorums.ts";
import { type Leading, type Paxos, send } from "./state.ts";

const rounds = createReadRounds<Paxos>({ quorumValue: openQuorumValue, send });

export const { requestRead, broadcastHeartbeat, noteCommit, tellCommit, noteRound, failReads } = rounds;

/** Once the suffix that phase 1 found is chosen, the commit index is the group's. */
export function settleSuffix(paxos: Paxos, leadership: Leading): void {
  if (leadership.committedInEpoch || paxos.commit < leadership.suffixEnd) return;
  leadership.committedInEpoch = true;
  rounds.startWaitingReads(paxos, leadership);
}
