/**
 * Owns leadership transfer (thesis §3.10): stop taking proposals, bring the target up to date, tell it to campaign now.
 * If it has not taken over within an election timeout, the leader goes on as before.
 */
import type { ReplicaId } from "../engine.ts";
import { isVoter } from "../shared/configuration.ts";
import { sendAppends } from "./pipeline.ts";
import type { Leadership } from "../shared/leadership.ts";
import { activeConfiguration, type Raft, send } from "./state.ts";

export function startTransfer(raft: Raft, to: ReplicaId): void {
  const { leadership } = raft;
  const progress = leadership?.progress.get(to);
  if (leadership === null || progress === undefined || !isVoter(activeConfiguration(raft), to)) return;
  if (leadership.transfer?.to === to) return;
  leadership.transfer = { to, elapsed: 0, told: false };
  advanceTransfer(raft, leadership);
  if (leadership.transfer.told) return;
  sendAppends(raft, leadership, to, progress, true);
}

/** Tells the target once it holds the whole log, durably and countably. */
export function advanceTransfer(raft: Raft, leadership: Leadership): void {
  const { transfer, progress } = leadership;
  if (transfer === null || transfer.told) return;
  if (progress.get(transfer.to)?.votingMatch !== raft.log.lastIndex) return;
  transfer.told = true;
  send(raft, transfer.to, { kind: "timeout_now", epoch: raft.hardState.epoch });
}

export function tickTransfer(raft: Raft, leadership: Leadership): void {
  if (leadership.transfer === null) return;
  leadership.transfer.elapsed += 1;
  if (leadership.transfer.elapsed >= raft.tuning.electionTicksMin) leadership.transfer = null;
}

/** A leader that gives up hands over to a follower that holds everything, so that nobody waits for a timeout. */
export function handOver(raft: Raft, leadership: Leadership): void {
  for (const [id, progress] of leadership.progress) {
    if (!progress.heard || progress.votingMatch !== raft.log.lastIndex) continue;
    if (!isVoter(activeConfiguration(raft), id)) continue;
    send(raft, id, { kind: "timeout_now", epoch: raft.hardState.epoch });
    return;
  }
}
