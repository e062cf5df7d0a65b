/**
 * Owns changes of the membership: what a leader takes, and how a change comes into force ("Paxos Made Simple" §3).
 *
 *   all chosen ──configure──► slot i ──chosen──► slots up to i + α − 1, no-ops when idle ──all chosen──► slot i + α, by
 *   the new configuration ──chosen──► in force: who is out learns it, a leader too
 *
 * The one thing to know: a change is proposed only when every slot before it is chosen, and the next one only when it is
 * in force. So a configuration that is chosen was always made from the one chosen before it, whoever led meanwhile.
 */
import type { EngineEvent, Entry, Epoch, RejectReason, ReplicaId } from "../engine.ts";
import { isMember } from "../shared/configuration.ts";
import { encodeNext, membersAfter, newVoterCaughtUp, type Placed } from "../shared/membership.ts";
import { withOrdinals } from "./ballot.ts";
import type { PaxosMessage, Removed } from "./messages.ts";
import { acceptOwn, proposeHeld, syncMembers } from "./proposing.ts";
import { inForce, isServedVoter, isSettled, newestFrom, servedMembers } from "./quorums.ts";
import { tellCommit } from "./reads.ts";
import { becomeFollower } from "./roles.ts";
import { type Leading, type Paxos, send } from "./state.ts";
import { handOver } from "./transfer.ts";

type Configure = Extract<EngineEvent<PaxosMessage>, { kind: "configure" }>;

const EMPTY = new Uint8Array(0);

/** Takes a change, which waits until all that was proposed is chosen; or says why not. */
export function configure(paxos: Paxos, { ticket, change, payload }: Configure): void {
  const reject = (reason: RejectReason): void =>
    void paxos.out.push({ kind: "rejected", ticket, reason, leader: paxos.leader });
  const { leadership, tuning } = paxos;
  if (leadership === null) return reject("not_leader");
  if (leadership.transfer !== null) return reject("transferring");
  if (!leadership.committedInEpoch) return reject("not_ready");
  if (leadership.change !== null || !isSettled(paxos)) return reject("change_in_progress");
  const before = inForce(paxos).configuration;
  // Only a group that was made so has joint voters: it stays as it is.
  const members = before.votersOutgoing.length > 0 ? null : membersAfter(before, change);
  const next = members === null ? null : withOrdinals({ ...members, votersOutgoing: [] }, before);
  if (next === null) return reject("invalid_change");
  if (!newVoterCaughtUp(change, leadership.progress, paxos.slots.lastIndex, tuning)) return reject("not_caught_up");
  const encoded = encodeNext(tuning, next, before, payload);
  if (encoded === null) return reject("invalid_change");
  leadership.change = { ticket, payload: encoded };
}

/** After every step: what a leader proposes by itself, and the conclusion when this replica is out. */
export function settleMembership(paxos: Paxos): void {
  if (paxos.halted) return;
  if (paxos.leadership !== null) settleLeader(paxos, paxos.leadership);
  const served = servedMembers(paxos);
  if (paxos.removed || served.includes(paxos.id)) return;
  if (!paxos.configurations.some(({ configuration }) => isMember(configuration, paxos.id))) return;
  leave(paxos, inForce(paxos).index);
}

/** Answers one that takes itself for a member, when it is known to be none. */
export function tellRemoved(paxos: Paxos, to: ReplicaId): void {
  const { commit, hardState } = paxos;
  if (commit > 0 && !servedMembers(paxos).includes(to)) {
    send(paxos, to, { kind: "removed", epoch: hardState.epoch, index: commit });
  }
}

/**
 * Told to be out: the configuration in force at `index` does not hold this replica. It keeps quiet, unless it knows
 * better: it is further itself, or a later configuration that it was sent holds it. A leader that has it as a member
 * ends that by sending one.
 */
export function handleRemoved(paxos: Paxos, { index }: Removed): void {
  if (paxos.removed || paxos.role === "leader" || index <= paxos.commit) return;
  const knowsBetter = ({ index: at, configuration }: Placed): boolean =>
    at > index && isMember(configuration, paxos.id);
  if (!paxos.configurations.some(knowsBetter)) leave(paxos, index);
}

/** A member knows a later ballot: this one is over. One that left must not end it. */
export function answeredFromLater(paxos: Paxos, from: ReplicaId, epoch: Epoch): void {
  if (servedMembers(paxos).includes(from)) becomeFollower(paxos, epoch, null);
  else tellRemoved(paxos, from);
}

function settleLeader(paxos: Paxos, leadership: Leading): void {
  if (leadership.inForceIndex !== inForce(paxos).index) syncMembers(paxos, leadership, paxos.commit);
  if (!isServedVoter(paxos, paxos.id)) {
    // It led until the configuration without it had chosen a slot by itself.
    tellCommit(paxos, leadership);
    handOver(paxos, leadership);
    return becomeFollower(paxos, paxos.hardState.epoch, null);
  }
  if (leadership.transfer !== null) return;
  const isIdle = (): boolean => paxos.commit === paxos.slots.lastIndex;
  if (leadership.change !== null && isIdle()) proposeChange(paxos, leadership, leadership.change);
  proposeHeld(paxos, leadership);
  if (isIdle() && !isSettled(paxos)) fill(paxos, leadership);
}

function proposeChange(
  paxos: Paxos,
  leadership: Leading,
  { ticket, payload }: { readonly ticket: number; readonly payload: Uint8Array },
): void {
  const [index, { epoch }] = [paxos.slots.lastIndex + 1, paxos.hardState];
  leadership.change = null;
  paxos.out.push({ kind: "accepted", ticket, index, epoch });
  acceptOwn(paxos, leadership, [{ index, epoch, kind: "config", payload }]);
}

/** No-ops up to the slot that brings the newest configuration into force: first those before it, then that one. */
function fill(paxos: Paxos, leadership: Leading): void {
  const { slots, hardState } = paxos;
  const first = slots.lastIndex + 1;
  const last = Math.min(Math.max(first, newestFrom(paxos) - 1), paxos.points.latest.index + paxos.alpha);
  const entries: Entry[] = [];
  for (let index = first; index <= last; index += 1) {
    entries.push({ index, epoch: hardState.epoch, kind: "noop", payload: EMPTY });
  }
  if (entries.length > 0) acceptOwn(paxos, leadership, entries);
}

function leave(paxos: Paxos, index: number): void {
  paxos.removed = true;
  paxos.out.push({ kind: "removed", index });
  if (paxos.role !== "follower") becomeFollower(paxos, paxos.hardState.epoch, null);
}
