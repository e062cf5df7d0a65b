/**
 * Owns handing over: stop taking proposals, bring the target up to date, tell it to prepare now. If it has not taken over
 * within an election timeout, the leader goes on as before.
 */
import type { ReplicaId } from "../engine.ts";
import { sendAccepts } from "./pipeline.ts";
import { isOpenVoter } from "./quorums.ts";
import { type Leading, type Paxos, send } from "./state.ts";
import { rejectWaiting } from "./waiting.ts";

export function startTransfer(paxos: Paxos, to: ReplicaId): void {
  const { leadership } = paxos;
  const progress = leadership?.progress.get(to);
  if (leadership === null || progress === undefined || !isOpenVoter(paxos, to)) return;
  if (leadership.transfer?.to === to) return;
  leadership.transfer = { to, elapsed: 0, told: false };
  rejectWaiting(paxos, leadership, "transferring");
  advanceTransfer(paxos, leadership);
  if (leadership.transfer.told) return;
  sendAccepts(paxos, leadership, to, progress, true);
}

/** Tells the target once it holds all slots, durably and countably. */
export function advanceTransfer(paxos: Paxos, leadership: Leading): void {
  const { transfer, progress } = leadership;
  if (transfer === null || transfer.told) return;
  if (progress.get(transfer.to)?.votingMatch !== paxos.slots.lastIndex) return;
  transfer.told = true;
  send(paxos, transfer.to, { kind: "hand_over", epoch: paxos.hardState.epoch });
}

export function tickTransfer(paxos: Paxos, leadership: Leading): void {
  if (leadership.transfer === null) return;
  leadership.transfer.elapsed += 1;
  if (leadership.transfer.elapsed >= paxos.tuning.electionTicksMin) leadership.transfer = null;
}

/** A leader that gives up tells a follower that holds everything, so that nobody waits for a timeout. */
export function handOver(paxos: Paxos, leadership: Leading): void {
  for (const [id, progress] of leadership.progress) {
    if (!progress.heard || progress.votingMatch !== paxos.slots.lastIndex || !isOpenVoter(paxos, id)) continue;
    send(paxos, id, { kind: "hand_over", epoch: paxos.hardState.epoch });
    return;
  }
}
