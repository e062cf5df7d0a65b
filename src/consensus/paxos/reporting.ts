/**
 * Owns the acceptor's half of phase 1: whether to promise, and telling what was accepted, part by part
 * ("Paxos Made Simple" §2.2, phase 1b).
 *
 * The one thing to know: who prepares fetches the parts one after another. Once the ballot is promised nothing older is
 * accepted any more, so all parts belong together, however late they leave.
 */
import type { Entry, LogIndex, ReplicaId } from "../engine.ts";
import type { Prepare } from "./messages.ts";
import { rollElectionTimeout } from "../shared/timer.ts";
import { tellRemoved } from "./membership.ts";
import { becomeFollower } from "./roles.ts";
import { cachedEntries, nextCached } from "./slots.ts";
import { type Paxos, requestLoad, send } from "./state.ts";

export function handlePrepare(paxos: Paxos, from: ReplicaId, message: Prepare): void {
  tellRemoved(paxos, from);
  if (message.epoch < paxos.hardState.epoch) return answer(paxos, from, message, false, []);
  if (!message.handOver && hearsLeader(paxos)) return;
  if (message.pre) return answer(paxos, from, message, wouldPromise(paxos, message), []);
  if (message.epoch > paxos.hardState.epoch) becomeFollower(paxos, message.epoch, null);
  // Its accepts are here already: this prepare is a late copy.
  if (paxos.leader !== null) return;
  // What left the log cannot be told: who lacks it needs a snapshot.
  const tellable = message.from > paxos.slots.baseIndex;
  if (!paxos.voting || !tellable || paxos.role !== "follower") return answer(paxos, from, message, false, []);
  rollElectionTimeout(paxos);
  const entries = readSuffix(paxos, from, message.from);
  if (entries !== null) answer(paxos, from, message, true, entries);
}

/** The own suffix from `from` on, as much as fits a message; null when it is read from the store first (`takeReport`). */
export function readSuffix(paxos: Paxos, to: ReplicaId, from: LogIndex): readonly Entry[] | null {
  const { slots, tuning, reporting } = paxos;
  const { epoch } = paxos.hardState;
  if (from > slots.lastIndex) return [];
  const bounds = { entriesMax: tuning.appendEntriesMax, bytesMax: tuning.appendBytesMax };
  const entries = cachedEntries(slots, from, slots.lastIndex, bounds);
  if (entries !== null) return entries;
  if (reporting?.to === to && reporting.epoch === epoch && reporting.from === from) return null;
  const last = Math.min(from + tuning.appendEntriesMax, nextCached(slots, from)) - 1;
  paxos.reporting = { token: requestLoad(paxos, from, last), to, epoch, from };
  return null;
}

/** What a load brought for whoever prepares: for whom and from which slot on; null when nobody waits for it any more. */
export function takeReport(
  paxos: Paxos,
  token: number,
  entries: readonly Entry[],
): { readonly to: ReplicaId; readonly from: LogIndex; readonly entries: readonly Entry[] } | null {
  const { reporting } = paxos;
  if (reporting?.token !== token) return null;
  paxos.reporting = null;
  const { to, from } = reporting;
  const open = reporting.epoch === paxos.hardState.epoch && paxos.leader === null && paxos.voting;
  const usable = entries.length > 0 && entries.every(({ index }, i) => index === from + i);
  return open && usable ? { to, from, entries: entries.slice(0, paxos.tuning.appendEntriesMax) } : null;
}

/** Whoever prepares will ask again. */
export function forgetReport(paxos: Paxos, token: number): void {
  if (paxos.reporting?.token === token) paxos.reporting = null;
}

export function sendReport(paxos: Paxos, to: ReplicaId, from: LogIndex, entries: readonly Entry[]): void {
  answer(paxos, to, { epoch: paxos.hardState.epoch, from, pre: false }, true, entries);
}

/** A replica that hears a live leader stands by it. A leader hears itself: check-quorum keeps it honest. */
function hearsLeader(paxos: Paxos): boolean {
  if (paxos.role === "leader") return true;
  return paxos.leader !== null && paxos.electionElapsed < paxos.tuning.electionTicksMin;
}

/**
 * One that lacks more than a pipeline's worth of what is held here would first have to fetch it. Whoever holds most is
 * never turned away, and in every quorum somebody holds all that is chosen.
 */
function wouldPromise(paxos: Paxos, { epoch, from, lastIndex }: Prepare): boolean {
  const near = lastIndex + paxos.alpha >= paxos.slots.lastIndex;
  return paxos.voting && near && from > paxos.slots.baseIndex && epoch > paxos.hardState.epoch;
}

function answer(
  paxos: Paxos,
  to: ReplicaId,
  { epoch: asked, from, pre }: Pick<Prepare, "epoch" | "from" | "pre">,
  granted: boolean,
  entries: readonly Entry[],
): void {
  const { commit, slots, hardState } = paxos;
  const { lastIndex } = slots;
  const { epoch } = hardState;
  send(paxos, to, { kind: "promise", epoch, asked, pre, granted, from, lastIndex, commit, entries });
}
