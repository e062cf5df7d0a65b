/**
 * Owns the mutable state of one Raft engine and the only ways to change what must survive a crash or leave the engine.
 *
 * The one thing to know: a step has one draft of a write. Term, vote, truncation and entries that change in the same
 * step are persisted together (hashicorp/raft 661: never vote and term in two writes), and whatever is sent in the
 * step can be gated on the draft's token.
 */
import type {
  Configuration,
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
import { isMember, isVoter } from "../shared/configuration.ts";
import { invariant } from "../shared/fault.ts";
import type { Leadership } from "../shared/leadership.ts";
import type { Placed } from "../shared/membership.ts";
import { checkStart, isNews } from "../shared/start.ts";
import { rollElectionTimeout } from "../shared/timer.ts";
import { appendToView, createLogView, evict, lastEpoch, type LogView, noteWrite, truncateView } from "./log-view.ts";
import type { RaftMessage } from "./messages.ts";

interface Draft {
  readonly token: number;
  hardState: boolean;
  removeFrom: LogIndex | null;
  put: Entry[];
}

export interface Raft {
  readonly id: ReplicaId;
  readonly tuning: EngineTuning;
  readonly genesis: Uint8Array;
  role: Role;
  leader: ReplicaId | null;
  hardState: HardState;
  readonly log: LogView;
  commit: LogIndex;
  /** Own log up to here is known to equal that of the leader of this epoch: what it says is committed stops here. */
  matched: LogIndex;
  readonly points: Points;
  readonly configurations: Placed[];
  voting: boolean;
  /** A committed configuration left this replica out, and none that holds it came since. */
  removed: boolean;
  electionElapsed: number;
  electionTimeout: number;
  /** Votes of the campaign under way; the own vote joins once it is durable. */
  readonly votes: Map<ReplicaId, boolean>;
  selfVoteToken: number | null;
  leadership: Leadership | null;
  lastToken: number;
  persistedToken: number;
  /** The newest write that holds a hard state. */
  hardStateToken: number;
  lastLoadToken: number;
  draft: Draft | null;
  out: Effect<RaftMessage>[];
  lastStatus: EngineStatus | null;
  halted: boolean;
}

export function createRaft(start: EngineStart, tuning: EngineTuning): Raft {
  checkStart(start, tuning);
  const raft: Raft = {
    id: start.id,
    tuning,
    genesis: start.genesis,
    role: "follower",
    leader: null,
    hardState: start.hardState,
    log: createLogView(start.lastIndex, start.epochRuns, start.base),
    commit: start.applied.index,
    matched: start.applied.index,
    points: createPoints(start.applied),
    configurations: [...start.configurations],
    voting: start.voting,
    removed: false,
    electionElapsed: 0,
    electionTimeout: 0,
    votes: new Map(),
    selfVoteToken: null,
    leadership: null,
    lastToken: 0,
    persistedToken: 0,
    hardStateToken: 0,
    lastLoadToken: 0,
    draft: null,
    out: [],
    lastStatus: null,
    halted: false,
  };
  invariant(start.hardState.epoch >= lastEpoch(raft.log), "the epoch is no earlier than the log's last");
  rollElectionTimeout(raft);
  raft.lastStatus = statusOf(raft);
  return raft;
}

export function activeConfiguration(raft: Raft): Configuration {
  return (raft.configurations.at(-1) as { configuration: Configuration }).configuration;
}

/** A configuration change of the log's tail may still be undone. */
export function configurationIsCommitted(raft: Raft): boolean {
  return (raft.configurations.at(-1)?.index ?? 0) <= raft.commit;
}

/**
 * May start elections: a voter of the active configuration or, while that is not known to be committed, of the one
 * before. Such a replica may be the only one whose log can win, though it will not count itself (thesis §4.2.2).
 */
export function isPromotable(raft: Raft): boolean {
  if (!raft.voting || raft.removed) return false;
  for (const { index, configuration } of raft.configurations.toReversed()) {
    if (isVoter(configuration, raft.id)) return true;
    if (index <= raft.commit) return false;
  }
  return false;
}

/** Epoch and vote, in one write with whatever else this step writes. A vote is write-once within its epoch (Raft §5.2). */
export function setHardState(raft: Raft, epoch: Epoch, votedFor: ReplicaId | null): void {
  const before = raft.hardState;
  invariant(epoch >= before.epoch, `epoch ${epoch} after ${before.epoch}`);
  invariant(
    epoch > before.epoch || before.votedFor === null || before.votedFor === votedFor,
    `a second vote in epoch ${epoch}`,
  );
  if (epoch === before.epoch && votedFor === before.votedFor) return;
  raft.hardState = { epoch, votedFor };
  draftOf(raft).hardState = true;
}

/**
 * Writes entries at their index and removes what was there and after. Configurations take effect here, and go back
 * with a truncation (thesis §4.1).
 */
export function writeEntries(raft: Raft, entries: readonly Entry[], configurations: readonly Placed[]): void {
  const first = entries[0];
  if (first === undefined) return;
  const draft = draftOf(raft);
  if (first.index <= raft.log.lastIndex) {
    invariant(first.index > raft.commit, `removing ${first.index}, committed is ${raft.commit}`);
    invariant(raft.role !== "leader", "a leader never removes from its log (Raft §5.3)");
    invariant(draft.put.length === 0, "a step removes before it writes");
    truncateView(raft.log, first.index);
    draft.removeFrom = first.index;
    while (raft.configurations.length > 1 && (raft.configurations.at(-1)?.index ?? 0) >= first.index) {
      raft.configurations.pop();
    }
  }
  appendToView(raft.log, entries);
  raft.configurations.push(...configurations);
  if (configurations.some(({ configuration }) => isMember(configuration, raft.id))) raft.removed = false;
  draft.put = draft.put.length === 0 ? [...entries] : draft.put.concat(entries);
}

/** Everything up to `index` is chosen. */
export function setCommit(raft: Raft, index: LogIndex): boolean {
  if (index <= raft.commit) return false;
  invariant(index <= raft.log.lastIndex, `commit ${index} is beyond the log's end ${raft.log.lastIndex}`);
  raft.commit = index;
  raft.out.push({ kind: "commit", index });
  return true;
}

/** Sends after the given write, and never before the epoch that the message speaks for is durable. */
export function send(raft: Raft, to: ReplicaId, message: RaftMessage, afterToken: number | null = null): void {
  const token = Math.max(afterToken ?? 0, raft.hardStateToken, raft.draft?.hardState === true ? raft.draft.token : 0);
  raft.out.push({ kind: "send", to, message, afterToken: token > raft.persistedToken ? token : null });
}

/** Stops for good: what this replica holds contradicts the group. */
export function halt(raft: Raft, reason: string): void {
  if (raft.halted) return;
  raft.halted = true;
  raft.out.push({ kind: "halt", reason });
}

/** The token of the write that this step's changes go into. */
export function draftToken(raft: Raft): number {
  return draftOf(raft).token;
}

/** Closes the step: the write first, then what was decided in its order, then a change of status. */
export function takeEffects(raft: Raft): readonly Effect<RaftMessage>[] {
  let effects = raft.out;
  // Nothing of the step that found the contradiction leaves.
  if (raft.halted) return effects.filter((effect) => effect.kind === "halt");
  const draft = raft.draft;
  if (draft !== null) {
    closeDraft(raft, draft);
    effects = [
      {
        kind: "persist",
        token: draft.token,
        hardState: draft.hardState ? raft.hardState : null,
        removeFrom: draft.removeFrom,
        put: draft.put,
      },
      ...effects,
    ];
  }
  evict(raft.log, raft.tuning.logCacheBytesMax);
  const status = statusOf(raft);
  if (isNews(raft.lastStatus, status)) {
    raft.lastStatus = status;
    effects.push({ kind: "status", status });
  }
  raft.out = [];
  raft.draft = null;
  return effects;
}

export function statusOf(raft: Raft): EngineStatus {
  return {
    role: raft.role,
    leader: raft.leader,
    epoch: raft.hardState.epoch,
    commit: raft.commit,
    lastIndex: raft.log.lastIndex,
    committedInEpoch: raft.leadership?.committedInEpoch ?? false,
    configuration: activeConfiguration(raft),
    voting: raft.voting,
  };
}

function draftOf(raft: Raft): Draft {
  raft.draft ??= { token: raft.lastToken + 1, hardState: false, removeFrom: null, put: [] };
  raft.lastToken = raft.draft.token;
  return raft.draft;
}

function closeDraft(raft: Raft, draft: Draft): void {
  if (draft.hardState) raft.hardStateToken = draft.token;
  const first = draft.removeFrom ?? draft.put[0]?.index;
  if (first !== undefined) noteWrite(raft.log, draft.token, first);
}
