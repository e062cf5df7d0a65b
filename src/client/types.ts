/**
 * Owns what the client layer offers to the loader above it: a confirmed version, its manifest, its bytes.
 */
import type { Digest } from "../model/bytes.ts";
import type { RunPlan, SplitRule } from "../model/commands.ts";
import type { ShardStore } from "../shards/port.ts";

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
  /** Canonical schema (shards/schema.ts) and class vocabularies, checked against the root. */
  readonly schema: Uint8Array;
  readonly classes: Readonly<Record<string, readonly string[]>>;
  /** Stores to read shards and segment indexes from, in order of preference. */
  readonly stores: readonly ShardStore[];
  /** All manifest pages, checked against the root's tree. Fetched once, then kept. */
  manifest(signal?: AbortSignal): Promise<readonly ManifestPage[]>;
  /** Entries of the page at `position`, checked against the manifest. */
  page(position: number, signal?: AbortSignal): Promise<readonly ShardEntry[]>;
  /**
   * Asks a majority again; with `since`, also whether its history contains that point. Resolves with the new confirmation.
   * @throws `revoked`, `no_quorum`, `group_forked`, `replica_diverged`
   */
  reconfirm(signal?: AbortSignal, since?: HistoryPoint): Promise<Confirmation>;
  /** Get-or-create of a run. @throws `plan_mismatch`, `run_ended` */
  beginRun(run: string, plan: RunPlan, meta: Readonly<Record<string, string>>): Promise<void>;
  /** Records a receipt of a run in the log. */
  sendReceipt(run: string, rank: number, receipt: Readonly<Record<string, unknown>>): Promise<void>;
  /** Claims the version for a reader until `ttlMs` from now in log time; resolves with that log time's distance in ms. */
  lease(run: string, ttlMs: number): Promise<number>;
}
