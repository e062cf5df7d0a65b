/**
 * Owns the proposer's half of phase 1: who campaigns, what a quorum has accepted, and the first proposals of a leader
 * ("Paxos Made Simple" §2.2 and §3; Howard and Mortier 2020 §3).
 *
 * The one thing to know: a leader proposes for every slot that phase 1 found the value accepted in the highest ballot,
 * its own report included. If a value was chosen, every quorum has seen it, and no later ballot holds another one.
 */
import type { Entry, LogIndex, ReplicaId } from "../engine.ts";
import { hasQuorum, isVoter, voteOutcome } from "../shared/configuration.ts";
import { invariant } from "../shared/fault.ts";
import { createLeadership } from "../shared/leadership.ts";
import { configurationsIn, type Placed } from "../shared/membership.ts";
import { rollElectionTimeout } from "../shared/timer.ts";
import { nextBallot } from "./ballot.ts";
import { answeredFromLater } from "./membership.ts";
import type { Prepare, Promised } from "./messages.ts";
import { acceptOwn, syncMembers } from "./proposing.ts";
import { configurationsFrom, hasOpenQuorum, openConfigurations, provenIndex } from "./quorums.ts";
import { broadcastHeartbeat, settleSuffix, tellCommit } from "./reads.ts";
import { readSuffix } from "./reporting.ts";
import { becomeFollower } from "./roles.ts";
import {
  halt,
  isPromiseDurable,
  isPromotable,
  type Leading,
  type Paxos,
  type Preparation,
  type Report,
  promiseBallot,
  send,
  setCommit,
} from "./state.ts";
import { tickTransfer } from "./transfer.ts";

export function tickElection(paxos: Paxos): void {
  paxos.electionElapsed += 1;
  if (paxos.electionElapsed >= paxos.electionTimeout) {
    becomeFollower(paxos, paxos.hardState.epoch, null);
    if (isPromotable(paxos)) preCampaign(paxos);
    return;
  }
  const { preparation } = paxos;
  if (preparation === null) return;
  preparation.elapsed += 1;
  if (preparation.elapsed % paxos.tuning.heartbeatTicks === 0) askAll(paxos, preparation);
}

export function tickLeader(paxos: Paxos, leadership: Leading): void {
  const { tuning } = paxos;
  leadership.heartbeatElapsed += 1;
  leadership.quorumElapsed += 1;
  tickTransfer(paxos, leadership);
  if (leadership.quorumElapsed >= tuning.electionTicksMin) {
    leadership.quorumElapsed = 0;
    // A leader that hears no quorum must not look like one.
    const heard = (id: ReplicaId): boolean =>
      id === paxos.id ? paxos.voting : leadership.progress.get(id)?.heard === true;
    if (!hasOpenQuorum(paxos, heard)) return becomeFollower(paxos, paxos.hardState.epoch, null, "no_quorum");
    for (const [id, progress] of leadership.progress) {
      // It left and is silent: should it come back, what it asks is answered.
      if (progress.leavingAt !== null && !progress.heard) leadership.progress.delete(id);
      progress.heard = false;
    }
  }
  if (leadership.heartbeatElapsed >= tuning.heartbeatTicks) broadcastHeartbeat(paxos, leadership);
  leadership.toldInTick = false;
  tellCommit(paxos, leadership);
}

/** Phase 1a at once, without asking first: a higher ballot than any that was seen here. */
export function campaign(paxos: Paxos, handOver: boolean): void {
  noteProven(paxos);
  if (!isPromotable(paxos)) return;
  promiseBallot(paxos, wanted(paxos));
  paxos.role = "candidate";
  paxos.leader = null;
  paxos.votes.clear();
  paxos.preparation = { base: paxos.commit, reports: new Map(), found: [], elapsed: 0, handOver };
  rollElectionTimeout(paxos);
  askAll(paxos, paxos.preparation);
}

/** The own promise counts, like any other, once it is durable: then the own suffix is read. */
export function reportOwn(paxos: Paxos): void {
  const { preparation } = paxos;
  if (preparation === null || !isPromiseDurable(paxos)) return;
  const from = preparation.reports.get(paxos.id)?.next ?? preparation.base + 1;
  const entries = readSuffix(paxos, paxos.id, from);
  if (entries !== null) noteReport(paxos, preparation, paxos.id, { from, entries, ...ownEnd(paxos) });
}

/** A part of the own suffix has come from the store. */
export function takeOwnReport(paxos: Paxos, from: LogIndex, entries: readonly Entry[]): void {
  const { preparation } = paxos;
  if (preparation !== null) noteReport(paxos, preparation, paxos.id, { from, entries, ...ownEnd(paxos) });
}

export function handlePromise(paxos: Paxos, from: ReplicaId, message: Promised): void {
  const { epoch } = paxos.hardState;
  const { preparation } = paxos;
  if (message.pre && paxos.role === "pre_candidate" && message.asked === wanted(paxos)) {
    if (message.granted) return countVote(paxos, from, true);
    if (message.epoch <= epoch) return countVote(paxos, from, false);
  }
  if (message.epoch > epoch) return answeredFromLater(paxos, from, message.epoch);
  if (message.pre || !message.granted || preparation === null || message.asked !== epoch) return;
  if (mustPromise(paxos, preparation).some(({ configuration }) => isVoter(configuration, from)))
    noteReport(paxos, preparation, from, message);
}

function preCampaign(paxos: Paxos): void {
  noteProven(paxos);
  if (!isPromotable(paxos)) return;
  paxos.role = "pre_candidate";
  const question = { epoch: wanted(paxos), pre: true, handOver: false };
  const placed = configurationsFrom(paxos, paxos.commit + 1);
  askVoters(paxos, placed, question, (id) => firstSlotOf(paxos, placed, paxos.commit, id));
  countVote(paxos, paxos.id, true);
}

/** The ballot that a campaign would take now. */
function wanted(paxos: Paxos): number {
  return nextBallot(paxos.configurations, paxos.id, paxos.hardState.epoch);
}

/** What the own log proves to be chosen need not be asked of a configuration that may be gone. */
function noteProven(paxos: Paxos): void {
  const proven = provenIndex(paxos, paxos.slots.lastIndex);
  paxos.matched = Math.max(paxos.matched, proven);
  setCommit(paxos, proven);
}

/** A quorum of each must promise: those that decide a slot from the first that is asked about on, as phase 1 found them. */
function mustPromise(paxos: Paxos, { base, found }: Preparation): readonly Placed[] {
  // Until all have told, slots may be missing.
  const told = configurationsIn(paxos.tuning, Object.values(found));
  if (told === null) halt(paxos, "a configuration entry that an acceptor told cannot be read");
  const known = paxos.configurations.filter(({ index }, i) => i === 0 || index <= base);
  const configurations = [...known, ...(told ?? []).filter(({ index }) => index > 1)];
  return configurationsFrom({ ...paxos, configurations }, base + 1);
}

/** The first slot after `base` that `id` decides: what it holds below is no concern of this campaign, and may be compacted. */
function firstSlotOf(paxos: Paxos, placed: readonly Placed[], base: LogIndex, id: ReplicaId): LogIndex {
  const at = placed.findIndex(({ configuration }) => isVoter(configuration, id));
  return at <= 0 ? base + 1 : Math.max(base + 1, (placed[at] as Placed).index + paxos.alpha);
}

function countVote(paxos: Paxos, from: ReplicaId, granted: boolean): void {
  if (!paxos.votes.has(from)) paxos.votes.set(from, granted);
  const outcomes = openConfigurations(paxos).map((configuration) => voteOutcome(configuration, paxos.votes));
  if (outcomes.includes("lost")) return becomeFollower(paxos, paxos.hardState.epoch, null);
  if (outcomes.every((outcome) => outcome === "won")) campaign(paxos, false);
}

/** Asks every acceptor for what it has not told yet: the first time, and again as long as something may be lost. */
function askAll(paxos: Paxos, preparation: Preparation): void {
  const { epoch } = paxos.hardState;
  const { handOver, base, reports } = preparation;
  const placed = mustPromise(paxos, preparation);
  askVoters(paxos, placed, { epoch, pre: false, handOver }, (id) => {
    const report = reports.get(id);
    const first = firstSlotOf(paxos, placed, base, id);
    // A configuration that was found since may ask for more of it.
    if (report === undefined || report.first > first) return first;
    return report.done ? null : report.next;
  });
  reportOwn(paxos);
}

function askVoters(
  paxos: Paxos,
  placed: readonly Placed[],
  question: Pick<Prepare, "epoch" | "pre" | "handOver">,
  fromOf: (id: ReplicaId) => LogIndex | null,
): void {
  const { lastIndex } = paxos.slots;
  const voters = placed.flatMap(({ configuration: each }) => [...each.voters, ...each.votersOutgoing]);
  for (const id of new Set(voters)) {
    const from = id === paxos.id ? null : fromOf(id);
    if (from !== null) send(paxos, id, { kind: "prepare", ...question, from, lastIndex });
  }
}

function ownEnd({ slots, commit }: Paxos): { lastIndex: LogIndex; commit: LogIndex } {
  return { lastIndex: slots.lastIndex, commit };
}

/** Takes in a part of an acceptor's suffix: of each slot, the value of the highest ballot stays. */
function noteReport(
  paxos: Paxos,
  preparation: Preparation,
  from: ReplicaId,
  { from: first, entries, lastIndex, commit }: Pick<Promised, "from" | "entries" | "lastIndex" | "commit">,
): void {
  const { base, reports, found } = preparation;
  const known = reports.get(from);
  const begins = known === undefined || first < known.first;
  const report: Report = begins ? { first, next: first, done: false, commit: 0 } : known;
  if (report.done || first !== report.next) return;
  reports.set(from, report);
  for (const entry of entries) {
    const at = entry.index - base - 1;
    const known = found[at];
    if (known === undefined || entry.epoch > known.epoch) found[at] = entry;
  }
  report.next = first + entries.length;
  report.commit = commit;
  report.done = report.next > lastIndex;
  if (entries.length > 0) rollElectionTimeout(paxos);
  if (report.done) return finish(paxos, preparation);
  if (from === paxos.id) return reportOwn(paxos);
  if (entries.length === 0) return;
  const { epoch } = paxos.hardState;
  const question = { epoch, pre: false, handOver: preparation.handOver, from: report.next };
  send(paxos, from, { kind: "prepare", ...question, lastIndex: paxos.slots.lastIndex });
}

function finish(paxos: Paxos, preparation: Preparation): void {
  const placed = mustPromise(paxos, preparation);
  const done = (id: ReplicaId): boolean => {
    const report = preparation.reports.get(id);
    return report?.done === true && report.first <= firstSlotOf(paxos, placed, preparation.base, id);
  };
  if (preparation.reports.get(paxos.id)?.done !== true) return;
  const promised = placed.every(({ configuration }) => hasQuorum(configuration, done));
  if (promised && !paxos.halted) becomeLeader(paxos, preparation);
}

/**
 * Proposes again what was found. Every report is contiguous from the same slot on, so what was found has no hole that a
 * no-op would have to fill. What some acceptor knew to be chosen is chosen: a leader that lagged has caught up.
 */
function becomeLeader(paxos: Paxos, { base, reports, found }: Preparation): void {
  const { epoch } = paxos.hardState;
  const entries: Entry[] = found.map(({ kind, payload }, i) => ({
    index: base + 1 + i,
    epoch,
    kind,
    payload,
  }));
  invariant(base === paxos.commit, `phase 1 began after ${base}, chosen is ${paxos.commit}`);
  invariant(Object.keys(found).length === found.length, "contiguous reports leave no hole");
  if (base + entries.length === 0) entries.push({ index: 1, epoch, kind: "config", payload: paxos.genesis });
  const suffixEnd = base + entries.length;
  invariant(suffixEnd >= paxos.slots.lastIndex, `found up to ${suffixEnd}, the own end is ${paxos.slots.lastIndex}`);
  const leadership: Leading = {
    ...createLeadership(),
    suffixEnd,
    inForceIndex: 0,
    change: null,
    held: [],
  };
  paxos.role = "leader";
  paxos.leader = paxos.id;
  paxos.leadership = leadership;
  paxos.preparation = null;
  syncMembers(paxos, leadership, base);
  const known = [...reports].filter(([, { done }]) => done).map(([, { commit }]) => commit);
  acceptOwn(paxos, leadership, entries);
  setCommit(paxos, Math.min(suffixEnd, Math.max(provenIndex(paxos, suffixEnd), ...known)));
  settleSuffix(paxos, leadership);
  broadcastHeartbeat(paxos, leadership);
}
