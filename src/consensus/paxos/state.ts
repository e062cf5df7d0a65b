/**
 * Owns the mutable state of one Multi-Paxos engine and the only ways to change what must survive a crash or leave the engine.
 *
 * The one thing to know: `matched` is the heart of it. Every slot up to `matched` is chosen, or accepted here in the
 * promised ballot. It alone is acknowledged and counted; what lies above was accepted in older ballots and is only told
 * to whoever prepares.
 */
import type {
  Effect,
  EngineStart,
  EngineStatus,
  EngineTuning,
  Entry,
  Epoch,
  HardState,
  LogIndex,
  Proposal,
  ReplicaId,
  Role,
} from "../engine.ts";
import { createPoints, type Points } from "../shared/applied-points.ts";
import { isMember } from "../shared/configuration.ts";
import { invariant } from "../shared/fault.ts";
import type { Leadership } from "../shared/leadership.ts";
import type { Placed } from "../shared/membership.ts";
import { checkStart, isNews } from "../shared/start.ts";
import { rollElectionTimeout } from "../shared/timer.ts";
import { proposerOf, proposersOf } from "./ballot.ts";
import type { PaxosMessage } from "./messages.ts";
import { ALPHA, inForce, isServedVoter } from "./quorums.ts";
import { createSlots, evict, noteWrite, putSlots, type Slots } from "./slots.ts";

interface Draft {
  readonly token: number;
  hardState: boolean;
  put: readonly Entry[];
}

/** What one acceptor has told of its suffix. */
export interface Report {
  /** Where it began. */
  readonly first: LogIndex;
  /** First slot that it has not told yet. */
  next: LogIndex;
  done: boolean;
  commit: LogIndex;
}

/** Phase 1 under way. */
export interface Preparation {
  /** Chosen when it began: phase 1 is about every slot after it. */
  readonly base: LogIndex;
  readonly reports: Map<ReplicaId, Report>;
  /** `found[i]` is for slot base + 1 + i: of all reports, the one accepted in the highest ballot. */
  readonly found: Entry[];
  elapsed: number;
  /** The leader before asked for this campaign. */
  readonly handOver: boolean;
}

/** What exists only while this replica leads. */
export interface Leading extends Leadership {
  /** Last slot that phase 1 found: once it is chosen in this ballot, the commit index is the group's. */
  readonly suffixEnd: LogIndex;
  /** The configuration in force that `progress` was made for. */
  inForceIndex: LogIndex;
  /** A change that waits until all that was proposed is chosen. */
  change: { readonly ticket: number; readonly payload: Uint8Array } | null;
  /** Proposals that wait for room in the pipeline, oldest first. */
  held: readonly Proposal[];
}

export interface Paxos {
  readonly id: ReplicaId;
  readonly tuning: EngineTuning;
  readonly genesis: Uint8Array;
  role: Role;
  leader: ReplicaId | null;
  hardState: HardState;
  readonly slots: Slots;
  commit: LogIndex;
  matched: LogIndex;
  readonly points: Points;
  readonly alpha: number;
  /** By index; the first is in force where the log begins. */
  configurations: readonly Placed[];
  /** Who draws which ballots, as far as it is chosen. */
  proposers: ReadonlyMap<number, ReplicaId>;
  voting: boolean;
  /** A configuration in force left this replica out, and none that holds it was accepted since. */
  removed: boolean;
  electionElapsed: number;
  electionTimeout: number;
  /** Who would promise; while a pre-candidate. */
  readonly votes: Map<ReplicaId, boolean>;
  preparation: Preparation | null;
  leadership: Leading | null;
  /** A part of the own suffix that is read from the store for whoever prepares. */
  reporting: {
    readonly token: number;
    readonly to: ReplicaId;
    readonly epoch: Epoch;
    readonly from: LogIndex;
  } | null;
  lastToken: number;
  persistedToken: number;
  /** The newest write that holds a promise. */
  hardStateToken: number;
  lastLoadToken: number;
  draft: Draft | null;
  out: Effect<PaxosMessage>[];
  lastStatus: EngineStatus | null;
  halted: boolean;
}

export function createPaxos(start: EngineStart, tuning: EngineTuning): Paxos {
  checkStart(start, tuning);
  for (const { epoch } of start.epochRuns) {
    invariant(epoch <= start.hardState.epoch, `a value of ballot ${epoch}, promised is ${start.hardState.epoch}`);
  }
  const paxos: Paxos = {
    id: start.id,
    tuning,
    genesis: start.genesis,
    role: "follower",
    leader: null,
    hardState: start.hardState,
    slots: createSlots(start.base?.index ?? 0, start.lastIndex),
    commit: start.applied.index,
    matched: matchedAtStart(start),
    points: createPoints(start.applied),
    alpha: tuning.alpha ?? ALPHA,
    configurations: start.configurations.filter(({ index }, i) => i === 0 || index > 1),
    proposers: new Map(),
    voting: start.voting,
    removed: false,
    electionElapsed: 0,
    electionTimeout: 0,
    votes: new Map(),
    preparation: null,
    leadership: null,
    reporting: null,
    lastToken: 0,
    persistedToken: 0,
    hardStateToken: 0,
    lastLoadToken: 0,
    draft: null,
    out: [],
    lastStatus: null,
    halted: false,
  };
  noteProposers(paxos);
  rollElectionTimeout(paxos);
  paxos.lastStatus = statusOf(paxos);
  return paxos;
}

/**
 * May campaign: a voter of the configuration in force or of one that may follow. One that is out as soon as the next slot
 * is chosen may be the only one that knows all slots before it, though it will not count itself.
 */
export function isPromotable(paxos: Paxos): boolean {
  return paxos.voting && !paxos.removed && isServedVoter(paxos, paxos.id);
}

/** Promises a ballot: nothing below it is promised or accepted any more, and what was accepted below counts no more. */
export function promiseBallot(paxos: Paxos, ballot: Epoch): void {
  invariant(ballot > paxos.hardState.epoch, `ballot ${ballot} after ${paxos.hardState.epoch}`);
  paxos.hardState = { epoch: ballot, votedFor: proposerOf(paxos.proposers, ballot) };
  paxos.matched = paxos.commit;
  const draft = draftOf(paxos);
  draft.hardState = true;
  paxos.hardStateToken = draft.token;
}

/** The promised ballot has reached the disk. */
export function isPromiseDurable({ hardStateToken, persistedToken }: Paxos): boolean {
  return hardStateToken <= persistedToken;
}

/** Accepts consecutive slots in the promised ballot, in place of whatever was there. */
export function acceptSlots(paxos: Paxos, entries: readonly Entry[], configurations: readonly Placed[]): void {
  const first = entries[0];
  const last = entries.at(-1);
  if (first === undefined || last === undefined) return;
  invariant(first.index === paxos.matched + 1, `slot ${first.index} accepted after ${paxos.matched}`);
  invariant(
    entries.every(({ epoch }) => epoch === paxos.hardState.epoch),
    `slots of another ballot than ${paxos.hardState.epoch}`,
  );
  const draft = draftOf(paxos);
  draft.put = draft.put.length === 0 ? entries : [...draft.put, ...entries];
  putSlots(paxos.slots, entries);
  noteWrite(paxos.slots, draft.token, entries);
  paxos.matched = last.index;
  const kept = paxos.configurations.filter(({ index }, i) => i === 0 || index < first.index || index > last.index);
  // Slot 1 repeats the group's first configuration.
  const placed = configurations.filter(({ index }) => index > 1);
  if (kept.length === paxos.configurations.length && placed.length === 0) return;
  paxos.configurations = [...kept, ...placed].toSorted((a, b) => a.index - b.index);
  if (placed.some(({ configuration }) => isMember(configuration, paxos.id))) paxos.removed = false;
}

/** Everything up to `index` is chosen. */
export function setCommit(paxos: Paxos, index: LogIndex): void {
  if (index <= paxos.commit) return;
  invariant(index <= paxos.matched, `commit ${index} is beyond what is held in this ballot, ${paxos.matched}`);
  paxos.commit = index;
  paxos.out.push({ kind: "commit", index });
  if (paxos.configurations.length > 1) noteProposers(paxos);
}

/** Sends after the given write, and never before the ballot that the message speaks for is durable. */
export function send(paxos: Paxos, to: ReplicaId, message: PaxosMessage, afterToken: number | null = null): void {
  const token = Math.max(afterToken ?? 0, paxos.hardStateToken);
  paxos.out.push({
    kind: "send",
    to,
    message,
    afterToken: token > paxos.persistedToken ? token : null,
  });
}

export function requestLoad(paxos: Paxos, from: LogIndex, to: LogIndex): number {
  paxos.lastLoadToken += 1;
  const token = paxos.lastLoadToken;
  paxos.out.push({ kind: "load", token, from, to, bytesMax: paxos.tuning.appendBytesMax });
  return token;
}

/** Stops for good: what this replica holds contradicts the group. */
export function halt(paxos: Paxos, reason: string): void {
  if (paxos.halted) return;
  paxos.halted = true;
  paxos.out.push({ kind: "halt", reason });
}

/** Closes the step: the write first, then what was decided in its order, then a change of status. */
export function takeEffects(paxos: Paxos): readonly Effect<PaxosMessage>[] {
  let effects = paxos.out;
  // Nothing of the step that found the contradiction leaves.
  if (paxos.halted) return effects.filter((effect) => effect.kind === "halt");
  const { draft } = paxos;
  if (draft !== null) {
    const { token, put } = draft;
    const hardState = draft.hardState ? paxos.hardState : null;
    effects = [{ kind: "persist", token, hardState, removeFrom: null, put }, ...effects];
  }
  evict(paxos.slots, paxos.tuning.logCacheBytesMax);
  const status = statusOf(paxos);
  if (isNews(paxos.lastStatus, status)) {
    paxos.lastStatus = status;
    effects.push({ kind: "status", status });
  }
  paxos.out = [];
  paxos.draft = null;
  return effects;
}

export function statusOf(paxos: Paxos): EngineStatus {
  return {
    role: paxos.role,
    leader: paxos.leader,
    epoch: paxos.hardState.epoch,
    commit: paxos.commit,
    lastIndex: paxos.slots.lastIndex,
    committedInEpoch: paxos.leadership?.committedInEpoch ?? false,
    configuration: inForce(paxos).configuration,
    voting: paxos.voting,
  };
}

/** What is applied is chosen; the slots that follow it count as far as they were accepted in the promised ballot. */
function matchedAtStart({ applied, hardState, lastIndex, epochRuns }: EngineStart): LogIndex {
  let matched = applied.index;
  for (const [i, { epoch }] of epochRuns.entries()) {
    const last = (epochRuns[i + 1]?.first ?? lastIndex + 1) - 1;
    if (last <= matched) continue;
    if (epoch !== hardState.epoch) break;
    matched = last;
  }
  return matched;
}

function draftOf(paxos: Paxos): Draft {
  paxos.draft ??= { token: paxos.lastToken + 1, hardState: false, put: [] };
  paxos.lastToken = paxos.draft.token;
  return paxos.draft;
}

/** An ordinal of a configuration that may still be overwritten says nothing of who speaks. */
function noteProposers(paxos: Paxos): void {
  paxos.proposers = proposersOf(paxos.configurations.filter(({ index }, i) => i === 0 || index <= paxos.commit));
}
