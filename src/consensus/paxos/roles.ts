/**
 * Owns giving up a role, and the answer to a leader that is over.
 *
 *   follower ──timeout──► pre_candidate ──quorum would promise──► candidate ──quorum promised──► leader
 *      ▲                       │                                     │                             │
 *      └──── a leader, a higher ballot, no answer in time, or (leader) no quorum heard ────────────┘
 */
import type { Epoch, ReplicaId } from "../engine.ts";
import { rollElectionTimeout } from "../shared/timer.ts";
import { failReads } from "./reads.ts";
import { type Paxos, promiseBallot } from "./state.ts";
import { rejectWaiting } from "./waiting.ts";

/** Enters `epoch` (the same or a later ballot) as an acceptor that follows `leader`, if that is known. */
export function becomeFollower(
  paxos: Paxos,
  epoch: Epoch,
  leader: ReplicaId | null,
  readsFail: "not_leader" | "no_quorum" = "not_leader",
): void {
  if (epoch > paxos.hardState.epoch) promiseBallot(paxos, epoch);
  const { leadership } = paxos;
  paxos.role = "follower";
  paxos.leader = leader;
  paxos.leadership = null;
  paxos.preparation = null;
  paxos.votes.clear();
  rollElectionTimeout(paxos);
  if (leadership === null) return;
  failReads(paxos, leadership, readsFail);
  rejectWaiting(paxos, leadership, "not_leader");
}
