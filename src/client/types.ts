/**
 * Owns what the client layer offers to the loader above it: a confirmed version, its manifest, its bytes.
 */
import type { Digest } from "../model/bytes.ts";
import type { OrderSpec, RunPlan, SplitRule } from "../model/commands.ts";
import type { ShardStore } from "../shards/port.ts";
import type { PassedOver } from "../shards/shard-ref.ts";

/** What a majority of voters said, and who said it. */
export interface Confirmation {
  readonly groupId: string;
  readonly term: number;
  /** The log index R at which all of them read. */
  readonly index: number;
  /** Hex chain value after `index`. */
  readonly chain: string;
  readonly replicas: readonly string[];
  /** Replicas that answered something else (a warning when a majority agrees without them). */
  readonly diverged: readonly string[];
  readonly atMs: number;
}

/** One shard of a version, as its page says. */
export interface ShardEntry {
  readonly name: string;
  /** Ordinal into the version's `splits`. */
  readonly split: number;
  readonly rows: number;
  readonly bytes: number;
  /** Plain BLAKE3 of the file: what `b3sum` prints. */
  readonly digest: Digest;
  readonly segmentIndex: Digest;
}

export interface SplitSummary {
  readonly name: string;
  readonly rows: number;
  readonly bytes: number;
  readonly shards: number;
}

/** One manifest page before its bytes are fetched: digest and totals per split ordinal, both covered by the root. */
export interface ManifestPage {
  readonly page: Digest;
  readonly totals: readonly {
    readonly split: number;
    readonly rows: number;
    readonly bytes: number;
    readonly shards: number;
  }[];
}

/** What a group's history contains for ever: written down, it tells the group from one that was founded anew. */
export interface HistoryPoint {
  readonly groupId: string;
  readonly index: number;
  readonly chain: string;
}

/** Rows of each split in each page of the manifest. */
export type PageRows = Readonly<Record<string, readonly number[]>>;

/** A version that a majority confirmed, whose root the client recomputed from what it covers. */
export interface ConfirmedVersion {
  readonly dataset: string;
  readonly version: number;
  readonly root: Digest;
  readonly index: number;
  readonly confirmation: Confirmation;
  readonly rows: number;
  readonly bytes: number;
  readonly splits: readonly SplitSummary[];
  readonly splitRule: SplitRule;
  /** Where splits are positional; elsewhere the pages' totals tell. */
  readonly pageRows: PageRows | null;
  /** Canonical schema (shards/schema.ts) and class vocabularies, checked against the root. */
  readonly schema: Uint8Array;
  readonly classes: Readonly<Record<string, readonly string[]>>;
  /** Stores to read shards and segment indexes from, in order of preference. */
  readonly stores: readonly ShardStore[];
  /** Told by readers when another store gave what this one should have; a notice says it, once. */
  readonly onPassedOver: (passed: PassedOver) => void;
  /** All manifest pages, checked against the root's tree. Fetched once, then kept. */
  manifest(signal?: AbortSignal): Promise<readonly ManifestPage[]>;
  /** Entries of the page at `position`, checked against the manifest. */
  page(position: number, signal?: AbortSignal): Promise<readonly ShardEntry[]>;
  /**
   * Asks a majority again; with `since`, also whether its history contains that point. Resolves with the new confirmation.
   * @throws `revoked`, `no_quorum`, `group_forked`, `replica_diverged`
   */
  reconfirm(signal?: AbortSignal, since?: HistoryPoint): Promise<Confirmation>;
  /**
   * Get-or-create of a run. `epoch`, of a run that follows: the one that it trains on this version in.
   * @throws `plan_mismatch`, `run_ended`, `pin_conflict`
   */
  beginRun(run: string, plan: RunPlan, meta: Readonly<Record<string, string>>, epoch?: number): Promise<void>;
  /** Records a receipt of a run in the log. */
  sendReceipt(run: string, rank: number, receipt: Readonly<Record<string, unknown>>): Promise<void>;
  /** Claims the version for a reader until `ttlMs` from now in log time; resolves with that log time's distance in ms. */
  lease(run: string, ttlMs: number): Promise<number>;
  /** How a run goes on from this version to others of its dataset. */
  readonly following: Following;
}

/** What all ranks of a run train on in an epoch. */
export interface RunEpoch {
  readonly epoch: number;
  readonly version: number;
  readonly root: Digest;
  readonly order: OrderSpec;
}

export interface Following {
  /** What the run agreed on for an epoch, as a majority says; null while nobody has proposed. */
  agreed(run: string, epoch: number, signal?: AbortSignal): Promise<RunEpoch | null>;
  /**
   * Proposes what this rank would train on; whatever was proposed first holds.
   * @throws `plan_mismatch`, `revoked`, `pin_conflict`, `run_ended`, `invalid_argument` (an older version)
   */
  propose(run: string, epoch: RunEpoch, signal?: AbortSignal): Promise<void>;
  /** The newest version of the dataset, from this one on, that is not revoked. @throws as `open`, `revoked` when all are */
  newest(signal?: AbortSignal): Promise<ConfirmedVersion>;
  /** The agreed version, confirmed by a majority. @throws `revoked`, `group_forked`, `no_quorum`, … */
  open(agreed: RunEpoch, signal?: AbortSignal): Promise<ConfirmedVersion>;
}
