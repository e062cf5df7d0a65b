/**
 * Owns the leader's half of phase 2: propose, count, choose ("Paxos Made Simple" §2.2, phase 2).
 *
 * The one thing to know: a slot is chosen when a quorum has durably accepted it in one ballot, this leader's. All slots
 * up to a follower's `match` are that or were chosen before. The leader counts itself by its own durable slots.
 */
import type { Entry, LogIndex, Proposal, ReplicaId } from "../engine.ts";
import { backOff, createProgress, endSnapshot, noteAccepted, noteUncounted } from "../shared/progress.ts";
import { configurationsIn } from "../shared/membership.ts";
import type { Accepted, Gap } from "./messages.ts";
import { sendAccepts } from "./pipeline.ts";
import { chosenIndex, inForce, newestFrom, servedMembers } from "./quorums.ts";
import { noteCommit, settleSuffix } from "./reads.ts";
import { durableIndex, unwrittenBytes } from "./slots.ts";
import { acceptSlots, halt, type Leading, type Paxos, setCommit } from "./state.ts";
import { advanceTransfer } from "./transfer.ts";

/** Takes proposals in order: each gets a slot in this ballot as soon as the pipeline has room, or is rejected. */
export function propose(paxos: Paxos, proposals: readonly Proposal[]): void {
  const { leadership, slots, tuning } = paxos;
  const reject = (proposal: Proposal, reason: "not_leader" | "overloaded" | "transferring"): void => {
    paxos.out.push({ kind: "rejected", ticket: proposal.ticket, reason, leader: paxos.leader });
  };
  if (leadership === null) return proposals.forEach((proposal) => reject(proposal, "not_leader"));
  if (leadership.transfer !== null) return proposals.forEach((proposal) => reject(proposal, "transferring"));
  const inFlight = slots.lastIndex - paxos.points.latest.index + leadership.held.length;
  const full = unwrittenBytes(slots) > tuning.logCacheBytesMax;
  const room = full ? 0 : Math.max(0, tuning.proposalsInFlightMax - inFlight);
  leadership.held = [...leadership.held, ...proposals.slice(0, room)];
  for (const proposal of proposals.slice(room)) reject(proposal, "overloaded");
  proposeHeld(paxos, leadership);
}

/** Gives the proposals that wait their slots, as far as the pipeline goes now. */
export function proposeHeld(paxos: Paxos, leadership: Leading): void {
  const { lastIndex } = paxos.slots;
  const count = Math.min(leadership.held.length, lastProposable(paxos) - lastIndex);
  // A change waits until nothing is under way.
  if (count <= 0 || leadership.change !== null) return;
  const { epoch } = paxos.hardState;
  const entries: Entry[] = leadership.held.slice(0, count).map(({ payload, ticket }, i) => {
    const index = lastIndex + 1 + i;
    paxos.out.push({ kind: "accepted", ticket, index, epoch });
    return { index, epoch, kind: "command", payload };
  });
  leadership.held = leadership.held.slice(count);
  acceptOwn(paxos, leadership, entries);
}

/** α slots beyond what is applied; and none of a new configuration before all of the one before are chosen. */
function lastProposable(paxos: Paxos): LogIndex {
  const last = paxos.points.latest.index + paxos.alpha;
  const lastBefore = newestFrom(paxos) - 1;
  return paxos.commit >= lastBefore ? last : Math.min(last, lastBefore);
}

/** Accepts its own proposals and sends them at once: the leader's disk works in parallel with the network. */
export function acceptOwn(paxos: Paxos, leadership: Leading, entries: readonly Entry[]): void {
  const configurations = configurationsIn(paxos.tuning, entries);
  if (configurations === null) return halt(paxos, "its own configuration entry cannot be read");
  acceptSlots(paxos, entries, configurations);
  if (configurations.length > 0) syncMembers(paxos, leadership, paxos.commit);
  for (const [id, progress] of leadership.progress) sendAccepts(paxos, leadership, id, progress);
}

/** One progress for every other member that is served, and for those who left until they know; a new one is tried from
 * after `from` on. */
export function syncMembers(paxos: Paxos, leadership: Leading, from: LogIndex): void {
  const members = servedMembers(paxos);
  leadership.inForceIndex = inForce(paxos).index;
  for (const [id, progress] of leadership.progress) {
    if (members.includes(id)) progress.leavingAt = null;
    else progress.leavingAt ??= paxos.commit;
  }
  for (const id of members) {
    if (id === paxos.id || leadership.progress.has(id)) continue;
    leadership.progress.set(id, createProgress(from));
  }
}

export function handleAccepted(paxos: Paxos, from: ReplicaId, message: Accepted): void {
  const { leadership } = paxos;
  const progress = leadership?.progress.get(from);
  // An acceptance in another ballot says nothing about this one.
  if (leadership === null || progress === undefined || message.epoch !== paxos.hardState.epoch) return;
  if (message.voting) progress.heard = true;
  else noteUncounted(progress);
  const match = Math.min(message.match, paxos.slots.lastIndex);
  const news = noteAccepted(progress, match, message.voting);
  // A snapshot for it is under way, and it got here without.
  if (progress.mode === "snapshot" && match >= paxos.slots.baseIndex) endSnapshot(progress, match + 1);
  if (news) advanceCommit(paxos);
  advanceTransfer(paxos, leadership);
  sendAccepts(paxos, leadership, from, progress);
}

export function handleGap(paxos: Paxos, from: ReplicaId, message: Gap): void {
  const { leadership } = paxos;
  const progress = leadership?.progress.get(from);
  if (leadership === null || progress === undefined || message.epoch !== paxos.hardState.epoch) return;
  if (message.voting) progress.heard = true;
  else noteUncounted(progress);
  if (progress.mode === "snapshot") return;
  const probing = progress.mode === "probe";
  // Of several probes under way only the answer to the last one tells where to go on.
  if (probing && message.previousIndex !== progress.next - 1) return;
  // It knew some slots to be chosen, which it holds in older ballots, and has forgotten that in a restart: it takes them
  // again. What it acknowledged stays true, so `votingMatch` does not fall.
  if (probing) progress.match = Math.min(progress.match, message.match);
  backOff(progress, Math.min(message.match, paxos.slots.lastIndex) + 1);
  sendAccepts(paxos, leadership, from, progress, true);
}

/** What a quorum has accepted in this ballot is chosen, in slot order. Tells the followers when that rose. */
export function advanceCommit(paxos: Paxos): void {
  const { leadership } = paxos;
  if (leadership === null) return;
  const index = chosenIndex(paxos, (id) => {
    if (id === paxos.id) return paxos.voting ? durableIndex(paxos.slots) : 0;
    return leadership.progress.get(id)?.votingMatch ?? 0;
  });
  if (index <= paxos.commit) return;
  setCommit(paxos, index);
  noteCommit(paxos, leadership);
  settleSuffix(paxos, leadership);
}
