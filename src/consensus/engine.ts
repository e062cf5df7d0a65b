/**
 * Owns the interface between a consensus engine (pure) and the replica shell (which does the I/O).
 *
 * An engine is a state machine: `step(event)` returns effects, in order. It has no clock, no randomness of its own,
 * no I/O and no Promise. It orders opaque payloads and knows nothing of datasets.
 *
 * The order of effects is the contract. The shell must run them literally:
 *  E1  `persist` writes are durable in the order of their tokens; after a write is durable the shell feeds `persisted`.
 *      One write may be outstanding while later ones queue; the shell may merge queued writes into one transaction
 *      and then reports the highest token.
 *  E2  `send` with `afterToken` leaves only after that token is durable (it promises what the write holds: a vote,
 *      an acknowledgement, a term). `afterToken: null` may leave at once: it promises nothing new.
 *  E3  The shell applies entries up to min(latest `commit` index, own durable last index), contiguously, in order,
 *      and feeds `applied` after the rows and the applied index are in one transaction. An entry that a write under way
 *      removes or overwrites does not count as durable, and neither does what follows it.
 *  E4  `load` asks for entries at or below the durable last index; the shell answers with `loaded` (or `load_failed`).
 *  E5  After any failed or unknown write the engine is thrown away and rebuilt from the store: no event after it. The
 *      same after a snapshot was installed: the store is the truth, the engine starts from it.
 *  E6  `read_ready` may be answered from the catalog once applied ≥ its index.
 * `docs/engine.md` maps every Raft and Multi-Paxos message onto these events and effects.
 */

export type ReplicaId = string;
/** 1-based position in the log; 0 is before the first entry. A safe integer. */
export type LogIndex = number;
/** Raft: the term. Multi-Paxos: the ballot (round, node) packed into one safe integer, higher is later. */
export type Epoch = number;

export type EntryKind = "noop" | "config" | "command";

export interface Entry {
  readonly index: LogIndex;
  readonly epoch: Epoch;
  readonly kind: EntryKind;
  /** Owned by the entry: nobody writes into it. Empty for `noop`. */
  readonly payload: Uint8Array;
}

/** What must survive a crash besides the entries. Raft: current term and vote; Paxos: promised ballot (votedFor = its node). */
export interface HardState {
  readonly epoch: Epoch;
  readonly votedFor: ReplicaId | null;
}

/**
 * Voters decide; `votersOutgoing` is non-empty only during a joint change; learners receive and never count.
 * The engine keeps the very object that `decodeConfiguration` returned: it may carry more (keys, addresses), and comes
 * back in `status` and in `encodeConfiguration`.
 */
export interface Configuration {
  readonly voters: readonly ReplicaId[];
  readonly votersOutgoing: readonly ReplicaId[];
  readonly learners: readonly ReplicaId[];
  /** Multi-Paxos only; absent in the group's first configuration, where members are numbered in their order. */
  readonly ordinals?: Ordinals;
}

/**
 * The numbers of the members in ballots. The engine gives every member that joins a new one, also an id that comes back,
 * so a number never stands for two machines. `next` of `encodeConfiguration` holds them: the payload must bring them back
 * as they were, and nobody but the engine changes them. They need no older configuration: a snapshot may drop those.
 */
export interface Ordinals {
  /** Of each member, learners too. 1 to 65535. */
  readonly of: Readonly<Record<ReplicaId, number>>;
  /** The highest that was ever given. */
  readonly last: number;
}

/** A new member starts as a learner; only a learner that has caught up becomes a voter (thesis §4.2.1). */
export type MembershipChange =
  | { readonly kind: "add_learner"; readonly id: ReplicaId }
  | { readonly kind: "promote"; readonly id: ReplicaId }
  /** A voter or a learner. */
  | { readonly kind: "remove"; readonly id: ReplicaId }
  /** The learner `by` takes the vote of `id`, which leaves: one change, so that the number of voters stays. */
  | { readonly kind: "replace"; readonly id: ReplicaId; readonly by: ReplicaId };

/** The last entry that a log does not hold any more, because a snapshot holds its effect; (0, 0): the log is whole. */
export interface LogBase {
  readonly index: LogIndex;
  readonly epoch: Epoch;
}

export interface Proposal {
  /** Chosen by the shell, unique in this engine instance; comes back in `accepted` or `rejected`. */
  readonly ticket: number;
  readonly payload: Uint8Array;
}

/** Index and chain value after applying it; exchanged in heartbeats to find replicas that differ. */
export interface AppliedPoint {
  readonly index: LogIndex;
  /** Hex of the chain after `index`. */
  readonly chain: string;
}

export type EngineEvent<M> =
  | { readonly kind: "tick" }
  | { readonly kind: "message"; readonly from: ReplicaId; readonly message: M }
  | { readonly kind: "propose"; readonly proposals: readonly Proposal[] }
  | { readonly kind: "read"; readonly ticket: number }
  | { readonly kind: "persisted"; readonly token: number }
  | { readonly kind: "loaded"; readonly token: number; readonly entries: readonly Entry[] }
  | { readonly kind: "load_failed"; readonly token: number }
  | { readonly kind: "applied"; readonly point: AppliedPoint }
  /** Somebody waits until followers have applied what is chosen: they are told at once (leader only; others ignore it). */
  | { readonly kind: "tell_commit" }
  /** Leadership to `to` (leader only; others ignore it). */
  | { readonly kind: "transfer"; readonly to: ReplicaId }
  /** A leader gives up: its disk or event loop stalls, or its clock is off. Followers ignore it. */
  | { readonly kind: "step_down"; readonly reason: string }
  /** From now on this replica neither votes, campaigns nor counts (damage, lost promises); `true` ends that. */
  | { readonly kind: "voting"; readonly allowed: boolean }
  /**
   * Changes the membership (leader only): answered by `accepted` or `rejected`, then by `status` whenever another
   * configuration is in force. `ticket` as in proposals; `payload` goes to `encodeConfiguration`.
   */
  | {
      readonly kind: "configure";
      readonly ticket: number;
      readonly change: MembershipChange;
      readonly payload: Uint8Array;
    }
  /** The store is about to drop, or has dropped, the entries up to `index` (never above the durable applied index). */
  | { readonly kind: "compacted"; readonly index: LogIndex; readonly epoch: Epoch }
  /** Every `send_snapshot` ends in one of these: `to` has installed a snapshot of `index`, or the attempt failed. */
  | { readonly kind: "snapshot_sent"; readonly to: ReplicaId; readonly index: LogIndex }
  | { readonly kind: "snapshot_failed"; readonly to: ReplicaId };

export type EventKind = EngineEvent<unknown>["kind"];

export type Role = "follower" | "pre_candidate" | "candidate" | "leader";

export type Effect<M> =
  | {
      readonly kind: "persist";
      /** Rises by one with every persist of this engine instance. */
      readonly token: number;
      /** Null: unchanged. */
      readonly hardState: HardState | null;
      /** Remove entries at and above this index before `put`; null: remove nothing. */
      readonly removeFrom: LogIndex | null;
      /** Consecutive: after the end, or (Multi-Paxos) from a slot that is held on, in its place. Never leaves a hole. */
      readonly put: readonly Entry[];
    }
  | { readonly kind: "send"; readonly to: ReplicaId; readonly message: M; readonly afterToken: number | null }
  | {
      readonly kind: "load";
      readonly token: number;
      /** Inclusive range; the shell may return a shorter prefix, at least one entry. */
      readonly from: LogIndex;
      readonly to: LogIndex;
      readonly bytesMax: number;
    }
  /** Everything at or below `index` is chosen. Never falls within an engine instance. */
  | { readonly kind: "commit"; readonly index: LogIndex }
  | { readonly kind: "accepted"; readonly ticket: number; readonly index: LogIndex; readonly epoch: Epoch }
  | {
      readonly kind: "rejected";
      readonly ticket: number;
      readonly reason: RejectReason;
      readonly leader: ReplicaId | null;
    }
  /**
   * `to` needs what the log does not hold any more: the shell brings it a snapshot of an index ≥ `indexMin` on a
   * connection of its own, and reports. No entries go to `to` meanwhile. A second one for the same `to` takes the place
   * of the first.
   */
  | { readonly kind: "send_snapshot"; readonly to: ReplicaId; readonly indexMin: LogIndex }
  /**
   * A committed configuration does not hold this replica any more. It will not campaign; the shell tells the operator.
   * Nothing is to be deleted: a leader that adds it again can reach it.
   */
  | { readonly kind: "removed"; readonly index: LogIndex }
  | { readonly kind: "read_ready"; readonly ticket: number; readonly index: LogIndex }
  | {
      readonly kind: "read_failed";
      readonly ticket: number;
      readonly reason: "not_leader" | "no_quorum";
      readonly leader: ReplicaId | null;
    }
  /** Role, leader or epoch changed. */
  | { readonly kind: "status"; readonly status: EngineStatus }
  /** This replica must stop: what it holds contradicts the group. The shell keeps the evidence and ends. */
  | { readonly kind: "halt"; readonly reason: string };

/** Why a proposal or a change of the membership was not taken. The last four are for changes only. */
export type RejectReason =
  | "not_leader"
  | "overloaded"
  | "transferring"
  /** Nothing of this leader's epoch is committed yet: try again soon. */
  | "not_ready"
  /** The change before is not complete. */
  | "change_in_progress"
  /** The learner is too far behind to vote, or its acknowledgements do not count. */
  | "not_caught_up"
  /** It makes no sense for the configuration in force, or cannot be encoded. */
  | "invalid_change";

export interface EngineStatus {
  readonly role: Role;
  readonly leader: ReplicaId | null;
  readonly epoch: Epoch;
  readonly commit: LogIndex;
  readonly lastIndex: LogIndex;
  /** Leader only: it has committed an entry of its own epoch, so its commit index is the group's (Raft §5.4.2, thesis §6.4). */
  readonly committedInEpoch: boolean;
  readonly configuration: Configuration;
  readonly voting: boolean;
}

/** Consecutive entries of one epoch start at `first`; the list is ordered and covers (base, lastIndex]. */
export interface EpochRun {
  readonly epoch: Epoch;
  readonly first: LogIndex;
}

/** What an engine starts from: read from the store, after boot was raised. */
export interface EngineStart {
  readonly id: ReplicaId;
  readonly hardState: HardState;
  readonly lastIndex: LogIndex;
  readonly epochRuns: readonly EpochRun[];
  /** The entry before the first that the log holds; absent: the log is whole. At or below `applied`. */
  readonly base?: LogBase;
  /** Durable applied index and its chain: a lower bound for commit. */
  readonly applied: AppliedPoint;
  /**
   * The configuration in force at `base` (the group's first one for a whole log), and every later one, oldest first: Raft
   * needs the newest at or below `base`; Multi-Paxos, where one takes force α slots later, the newest at or below
   * `base` − α. More is never wrong: the whole history of the group will do.
   */
  readonly configurations: readonly { readonly index: LogIndex; readonly configuration: Configuration }[];
  /** Payload of the group's first entry (index 1, kind `config`), proposed by the first leader of an empty log. */
  readonly genesis: Uint8Array;
  readonly voting: boolean;
}

export interface EngineTuning {
  /** Heartbeat every so many ticks; an election times out after a random number of ticks in [min, max). */
  readonly heartbeatTicks: number;
  readonly electionTicksMin: number;
  readonly electionTicksMax: number;
  readonly appendEntriesMax: number;
  readonly appendBytesMax: number;
  readonly inflightAppendsMax: number;
  readonly proposalsInFlightMax: number;
  /** Multi-Paxos: a configuration at slot i decides from i + α on. For tests: all replicas of a group need the same. */
  readonly alpha?: number;
  readonly logCacheBytesMax: number;
  /** Uniform in [0, 2³²); injected so that a seed decides everything. */
  readonly randomU32: () => number;
  /** Reads the configuration out of a `config` entry's payload. */
  readonly decodeConfiguration: (payload: Uint8Array) => Configuration;
  /**
   * Payload of a `config` entry that says `next` (its `ordinals` too). `before` is the configuration in force, as
   * `decodeConfiguration` (or the start) gave it; `change` is the payload of `configure`, empty when a joint change ends. Throws when `change` cannot be
   * read: the change is rejected. Absent: this group never changes its membership.
   */
  readonly encodeConfiguration?: (next: Configuration, before: Configuration, change: Uint8Array) => Uint8Array;
}

export interface Engine<M> {
  step(event: EngineEvent<M>): readonly Effect<M>[];
  status(): EngineStatus;
}

/** One kind of engine: how to make one, and the bytes of its messages (versioned; decode throws on anything malformed). */
export interface EngineKind<M> {
  readonly name: "raft" | "paxos";
  create(start: EngineStart, tuning: EngineTuning): Engine<M>;
  encodeMessage(message: M): Uint8Array;
  decodeMessage(bytes: Uint8Array): M;
}
