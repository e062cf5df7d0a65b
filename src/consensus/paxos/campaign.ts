/**
 * Owns the proposer's half of phase 1: who campaigns, what a quorum has accepted, and the first proposals of a leader
 * ("Paxos Made Simple" §2.2 and §3; Howard and Mortier 2020 §3).
 *
 * The one thing to know: a leader proposes for every slot that phase 1 found the value accepted in the highest ballot,
 * its own report included. If a value was chosen, every quorum has seen it, and no later ballot holds another one.
 */
import type { Entry, LogIndex, ReplicaId } from "../engine.ts";
import { voteOutcome } from "../shared/configuration.ts";
import { invariant } from "../shared/fault.ts";
import { createLeadership } from "../shared/leadership.ts";
import { nextBallot } from "./ballot.ts";
import type { Prepare, Promised } from "./messages.ts";
import { acceptOwn, syncMembers } from "./proposing.ts";
import { hasOpenQuorum, isOpenVoter, openConfigurations, openMembers } from "./quorums.ts";
import { broadcastHeartbeat, settleSuffix } from "./reads.ts";
import { readSuffix } from "./reporting.ts";
import { becomeFollower } from "./roles.ts";
import {
  isPromiseDurable,
  isPromotable,
  type Leading,
  type Paxos,
  type Preparation,
  promiseBallot,
  rollElectionTimeout,
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
    for (const progress of leadership.progress.values()) progress.heard = false;
  }
  if (leadership.heartbeatElapsed >= tuning.heartbeatTicks) broadcastHeartbeat(paxos, leadership);
}

/** Phase 1a at once, without asking first: a higher ballot than any that was seen here. */
export function campaign(paxos: Paxos, handOver: boolean): void {
  promiseBallot(paxos, nextBallot(paxos.proposers, paxos.id, paxos.hardState.epoch));
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
  if (message.epoch > epoch) return becomeFollower(paxos, message.epoch, null);
  if (message.pre || !message.granted || preparation === null || message.asked !== epoch) return;
  noteReport(paxos, preparation, from, message);
}

function preCampaign(paxos: Paxos): void {
  paxos.role = "pre_candidate";
  askVoters(paxos, { epoch: wanted(paxos), pre: true, handOver: false }, () => paxos.commit + 1);
  countVote(paxos, paxos.id, true);
}

/** The ballot that a campaign would take now. */
function wanted(paxos: Paxos): number {
  return nextBallot(paxos.proposers, paxos.id, paxos.hardState.epoch);
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
  askVoters(paxos, { epoch, pre: false, handOver }, (id) => {
    const report = reports.get(id);
    return report?.done === true ? null : (report?.next ?? base + 1);
  });
  reportOwn(paxos);
}

function askVoters(
  paxos: Paxos,
  question: Pick<Prepare, "epoch" | "pre" | "handOver">,
  fromOf: (id: ReplicaId) => LogIndex | null,
): void {
  const { lastIndex } = paxos.slots;
  for (const id of openMembers(paxos)) {
    const from = id === paxos.id || !isOpenVoter(paxos, id) ? null : fromOf(id);
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
  const report = reports.get(from) ?? { next: base + 1, done: false, commit: 0 };
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
  const done = (id: ReplicaId): boolean => preparation.reports.get(id)?.done === true;
  if (done(paxos.id) && hasOpenQuorum(paxos, done)) becomeLeader(paxos, preparation);
}

/**
 * Proposes again what was found. Every report is contiguous from the same slot on, so what was found has no hole that a
 * no-op would have to fill. What some acceptor knew to be chosen is chosen: a leader that lagged has caught up.
 */
function becomeLeader(paxos: Paxos, { base, reports, found }: Preparation): void {
  const { epoch } = paxos.hardState;
  const entries: Entry[] = found.map(({ kind, payload }, i) => ({ index: base + 1 + i, epoch, kind, payload }));
  invariant(base === paxos.commit, `phase 1 began after ${base}, chosen is ${paxos.commit}`);
  invariant(Object.keys(found).length === found.length, "contiguous reports leave no hole");
  if (base + entries.length === 0) entries.push({ index: 1, epoch, kind: "config", payload: paxos.genesis });
  const suffixEnd = base + entries.length;
  invariant(suffixEnd >= paxos.slots.lastIndex, `found up to ${suffixEnd}, the own end is ${paxos.slots.lastIndex}`);
  const leadership: Leading = { ...createLeadership(), suffixEnd };
  paxos.role = "leader";
  paxos.leader = paxos.id;
  paxos.leadership = leadership;
  paxos.preparation = null;
  syncMembers(paxos, leadership, base);
  const known = [...reports].filter(([, { done }]) => done).map(([, { commit }]) => commit);
  acceptOwn(paxos, leadership, entries);
  setCommit(paxos, Math.min(suffixEnd, Math.max(...known)));
  settleSuffix(paxos, leadership);
  broadcastHeartbeat(paxos, leadership);
}
