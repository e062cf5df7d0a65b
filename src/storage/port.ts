/**
 * Owns the ports `LogStore` and `CatalogStore`: the durable half of a replica.
 *
 * Both live in one database per replica and are fenced by one boot number: it rises at every open, and every write
 * starts by checking it, so a second process with the same identity, or a COMMIT that outlived its connection,
 * cannot write. Every adapter passes `test/contract/log-store.ts` and `test/contract/catalog-store.ts`.
 */
import type { AppliedEntry, AppliedState } from "../catalog/apply.ts";
import type { Entry, EpochRun, HardState, LogIndex, ReplicaId } from "../consensus/engine.ts";
import type { CatalogAnswer, CatalogQuery } from "../model/api.ts";

export interface StoreIdentity {
  readonly groupId: string;
  readonly replica: ReplicaId;
  readonly engine: "raft" | "paxos";
}

/** The highest identity and promise that this replica has seen of a peer. */
export interface PeerRecord {
  readonly peer: ReplicaId;
  readonly incarnation: string;
  readonly boot: number;
}

export interface LogState {
  /** Made once with the database. */
  readonly incarnation: string;
  /** Raised by this `boot()`. */
  readonly boot: number;
  readonly hardState: HardState;
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly epochRuns: readonly EpochRun[];
  /** Payloads of `config` entries in the log, oldest first. */
  readonly configurations: readonly { readonly index: LogIndex; readonly payload: Uint8Array }[];
  readonly applied: AppliedState;
  readonly peers: readonly PeerRecord[];
  /** Entries whose checksum fails or which are missing at or below the last index. Damaged is not absent. */
  readonly damaged: readonly LogIndex[];
  /** False once `loseVote` was called for this incarnation. */
  readonly voting: boolean;
}

export interface LogWrite {
  readonly hardState: HardState | null;
  readonly removeFrom: LogIndex | null;
  readonly put: readonly Entry[];
}

export interface LogStore extends AsyncDisposable {
  /** Raises the boot number and reads the state. @throws `unavailable`, `config_invalid` (another group, replica or engine), `damaged` */
  boot(): Promise<LogState>;
  /** The writes in order, in one durable transaction. @throws `fenced` (another boot), `unavailable` (outcome unknown: boot again) */
  append(writes: readonly LogWrite[]): Promise<void>;
  /**
   * Entries [from, to], at least one, about `bytesMax` at most, and none from the first damaged one on.
   * @throws `damaged` naming `from` when that one is, `unavailable`
   */
  read(from: LogIndex, to: LogIndex, bytesMax: number): Promise<readonly Entry[]>;
  /** Remembers a peer's identity before its first message of that boot is processed. @throws as `append` */
  recordPeer(record: PeerRecord): Promise<void>;
  /** Durable: this incarnation has lost promises and never votes again. */
  loseVote(reason: string): Promise<void>;
  close(): Promise<void>;
}

export interface CatalogStore extends AsyncDisposable {
  /**
   * Applies contiguous chosen entries from applied+1 on: loads, decides and writes rows, ledger and applied state in
   * one transaction (in several, each whole, when the payloads are many megabytes). May commit asynchronously: a crash
   * loses a suffix that the log replays.
   * @throws `fenced`, `unavailable`, `upgrade_required` (nothing was applied)
   */
  apply(entries: readonly Entry[]): Promise<readonly AppliedEntry[]>;
  /** The state after the last apply of this process. */
  applied(): AppliedState;
  /**
   * Answers as of log index `asOf` (≤ applied; null: now). `not_found` is an answer, not a throw. At some moment of the
   * call this boot was the newest: what a replica says beside the answer (its term) was then still its own to say.
   * @throws `fenced` (another boot), `unavailable`
   */
  query(query: CatalogQuery, asOf: LogIndex | null): Promise<CatalogAnswer>;
  /** The first recorded answer of a command id, if it was applied. */
  outcome(commandId: string): Promise<AppliedEntry | null>;
  /** Hex chain value after `index`, if the ledger holds it. */
  chainAt(index: LogIndex): Promise<string | null>;
  close(): Promise<void>;
}

/** What an adapter's opener returns. Opening connects and migrates; `boot()` fences. */
export interface ReplicaStores extends AsyncDisposable {
  readonly log: LogStore;
  readonly catalog: CatalogStore;
  close(): Promise<void>;
}
