/**
 * Owns the acceptor's half of phase 2: accept, refuse what is below the promise or would leave a hole, follow the
 * leader's commit index ("Paxos Made Simple" §2.2, phase 2b).
 *
 * The one thing to know: slots up to `matched` are chosen or accepted in the promised ballot, so an accept writes only
 * what lies above, and what the leader says is chosen counts only up to there.
 */
import type { ReplicaId } from "../engine.ts";
import { contradicts, pointToCompare } from "../shared/applied-points.ts";
import { configurationsIn } from "../shared/membership.ts";
import { campaign } from "./campaign.ts";
import type { Accept, Halt, HandOver, Heartbeat } from "./messages.ts";
import { becomeFollower } from "./roles.ts";
import { unwrittenBytes, writeCovering } from "./slots.ts";
import { acceptSlots, halt, isPromotable, type Paxos, send, setCommit } from "./state.ts";

export function handleAccept(paxos: Paxos, from: ReplicaId, message: Accept): void {
  if (!follow(paxos, from, message.epoch)) return;
  const { voting, slots } = paxos;
  const { epoch, previousIndex } = message;
  if (previousIndex > paxos.matched) {
    return send(paxos, from, { kind: "gap", epoch, previousIndex, match: paxos.matched, voting });
  }
  const fresh = message.entries.slice(paxos.matched - previousIndex);
  if (fresh.length > 0) {
    // The disk is far behind: what was not taken is sent again.
    if (unwrittenBytes(slots) > paxos.tuning.logCacheBytesMax) return;
    const configurations = configurationsIn(paxos.tuning, fresh);
    if (configurations === null) return halt(paxos, `configuration entry near ${fresh[0]?.index} cannot be read`);
    acceptSlots(paxos, fresh, configurations);
  }
  setCommit(paxos, Math.min(message.commit, paxos.matched));
  const match = Math.max(previousIndex + message.entries.length, paxos.commit);
  send(paxos, from, { kind: "accepted", epoch, match, voting }, writeCovering(slots, match));
}

export function handleHeartbeat(paxos: Paxos, from: ReplicaId, message: Heartbeat): void {
  if (!follow(paxos, from, message.epoch)) return;
  setCommit(paxos, Math.min(message.commit, paxos.matched));
  if (message.round === 0) return;
  const { commit, voting } = paxos;
  const applied = pointToCompare(paxos.points, message.applied);
  send(paxos, from, { kind: "heartbeat_reply", epoch: message.epoch, round: message.round, commit, applied, voting });
}

export function handleHandOver(paxos: Paxos, from: ReplicaId, message: HandOver): void {
  if (message.epoch !== paxos.hardState.epoch || paxos.role !== "follower" || paxos.leader !== from) return;
  if (isPromotable(paxos)) campaign(paxos, true);
}

/** The leader and a quorum agree on a point. Only a replica that sees the difference itself takes the order. */
export function handleHalt(paxos: Paxos, from: ReplicaId, { epoch, point }: Halt): void {
  if (epoch !== paxos.hardState.epoch || paxos.leader !== from || paxos.role !== "follower") return;
  if (!contradicts(paxos.points, point)) return;
  halt(paxos, `a quorum applied another history up to index ${point.index} (its chain: ${point.chain})`);
}

/** Takes `from` for the leader of ballot `epoch`; false when this replica has promised a higher one. */
function follow(paxos: Paxos, from: ReplicaId, epoch: number): boolean {
  const promised = paxos.hardState.epoch;
  if (epoch < promised) {
    // Without this answer a leader would never learn that it has to prepare above what was promised here.
    send(paxos, from, { kind: "refused", epoch: promised });
    return false;
  }
  if (epoch > promised || paxos.role !== "follower" || paxos.leader === null) becomeFollower(paxos, epoch, from);
  paxos.electionElapsed = 0;
  return true;
}
