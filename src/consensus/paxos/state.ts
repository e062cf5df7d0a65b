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
  ReplicaId,
  Role,
} from "../engine.ts";
import { createPoints, type Points } from "../shared/applied-points.ts";
import { ConsensusError, invariant } from "../shared/fault.ts";
import type { Leadership } from "../shared/leadership.ts";
import { proposerOf, proposersOf } from "./ballot.ts";
import type { PaxosMessage } from "./messages.ts";
import { configurationsFrom, isOpenVoter, type Placed } from "./quorums.ts";
import { createSlots, evict, noteWrite, putSlots, type Slots } from "./slots.ts";

interface Draft {
  readonly token: number;
  hardState: boolean;
  put: readonly Entry[];
}

/** What one acceptor has told of its suffix. */
export interface Report {
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
  /** By index; the first is the group's first. */
  configurations: readonly Placed[];
  /** Who may have drawn a ballot. */
  proposers: readonly ReplicaId[];
  voting: boolean;
  electionElapsed: number;
  electionTimeout: number;
  /** Who would promise; while a pre-candidate. */
  readonly votes: Map<ReplicaId, boolean>;
  preparation: Preparation | null;
  leadership: Leading | null;
  /** A part of the own suffix that is read from the store for whoever prepares. */
  reporting: { readonly token: number; readonly to: ReplicaId; readonly epoch: Epoch; readonly from: LogIndex } | null;
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
  invariant(tuning.electionTicksMin > tuning.heartbeatTicks && tuning.heartbeatTicks >= 1, "heartbeats beat elections");
  invariant(tuning.electionTicksMax > tuning.electionTicksMin, "election timeouts are a range");
  invariant(start.configurations.length > 0, "a replica knows the group's first configuration");
  invariant(start.applied.index <= start.lastIndex, "what is applied is in the log");
  invariant((start.base?.index ?? 0) <= start.applied.index, "what left the log is applied");
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
    configurations: [...start.configurations],
    proposers: proposersOf(start.configurations),
    voting: start.voting,
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
  rollElectionTimeout(paxos);
  paxos.lastStatus = statusOf(paxos);
  return paxos;
}

/** May campaign. */
export function isPromotable(paxos: Paxos): boolean {
  return paxos.voting && isOpenVoter(paxos, paxos.id);
}

/** Restarts the election timer with a new timeout in [min, max) ticks: duelling proposers part ("Paxos Made Simple" §2.4). */
export function rollElectionTimeout(paxos: Paxos): void {
  const { electionTicksMin: min, electionTicksMax: max, randomU32 } = paxos.tuning;
  paxos.electionElapsed = 0;
  paxos.electionTimeout = min + Math.floor((randomU32() / 2 ** 32) * (max - min));
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
  const kept = paxos.configurations.filter(({ index }) => index < first.index || index > last.index);
  if (kept.length === paxos.configurations.length && configurations.length === 0) return;
  paxos.configurations = [...kept, ...configurations].toSorted((a, b) => a.index - b.index);
  paxos.proposers = proposersOf(paxos.configurations);
}

/** Everything up to `index` is chosen. */
export function setCommit(paxos: Paxos, index: LogIndex): void {
  if (index <= paxos.commit) return;
  invariant(index <= paxos.matched, `commit ${index} is beyond what is held in this ballot, ${paxos.matched}`);
  paxos.commit = index;
  paxos.out.push({ kind: "commit", index });
}

/** Sends after the given write, and never before the ballot that the message speaks for is durable. */
export function send(paxos: Paxos, to: ReplicaId, message: PaxosMessage, afterToken: number | null = null): void {
  const token = Math.max(afterToken ?? 0, paxos.hardStateToken);
  paxos.out.push({ kind: "send", to, message, afterToken: token > paxos.persistedToken ? token : null });
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
  if (paxos.lastStatus === null || differs(paxos.lastStatus, status)) {
    paxos.lastStatus = status;
    effects.push({ kind: "status", status });
  }
  paxos.out = [];
  paxos.draft = null;
  return effects;
}

export function statusOf(paxos: Paxos): EngineStatus {
  const [deciding] = configurationsFrom(paxos, paxos.commit + 1);
  invariant(deciding, "some configuration decides the next slot");
  return {
    role: paxos.role,
    leader: paxos.leader,
    epoch: paxos.hardState.epoch,
    commit: paxos.commit,
    lastIndex: paxos.slots.lastIndex,
    committedInEpoch: paxos.leadership?.committedInEpoch ?? false,
    configuration: deciding.configuration,
    voting: paxos.voting,
  };
}

/** Reads the configurations out of entries before anything is changed; null when one cannot be read. */
export function configurationsIn(paxos: Paxos, entries: readonly Entry[]): Placed[] | null {
  const found: Placed[] = [];
  for (const { kind, index, payload } of entries) {
    if (kind !== "config") continue;
    try {
      found.push({ index, configuration: paxos.tuning.decodeConfiguration(payload) });
    } catch (error) {
      if (error instanceof ConsensusError) throw error;
      return null;
    }
  }
  return found;
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

function differs(before: EngineStatus, after: EngineStatus): boolean {
  return (
    before.role !== after.role ||
    before.leader !== after.leader ||
    before.epoch !== after.epoch ||
    before.committedInEpoch !== after.committedInEpoch ||
    before.voting !== after.voting ||
    before.configuration !== after.configuration
  );
}
