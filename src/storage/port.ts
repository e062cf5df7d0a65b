/**
 * Owns the ports `LogStore` and `CatalogStore`: the durable half of a replica.
 *
 * Both live in one database per replica and are fenced by one boot number: it rises at every open, and every write
 * starts by checking it, so a second process with the same identity, or a COMMIT that outlived its connection,
 * cannot write. Every adapter passes `test/contract/log-store.ts` and `test/contract/catalog-store.ts`.
 */
import type { AppliedEntry, AppliedState } from "../catalog/apply.ts";
import type { Entry, Epoch, EpochRun, HardState, LogBase, LogIndex, ReplicaId } from "../consensus/engine.ts";
import type { CatalogAnswer, CatalogQuery } from "../model/api.ts";
import type { Digest } from "../model/bytes.ts";

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
  /** What stood before `firstIndex`: compacted or never here (a snapshot came instead), and applied. */
  readonly base: LogBase;
  /** Of the entries from `firstIndex` on. */
  readonly epochRuns: readonly EpochRun[];
  /** Payloads of all chosen or logged `config` entries, oldest first, compacted ones included. */
  readonly configurations: readonly { readonly index: LogIndex; readonly payload: Uint8Array }[];
  readonly applied: AppliedState;
  readonly peers: readonly PeerRecord[];
  /**
   * Entries that were promised and are not here as they were written: above `lastIndex` those that a cut left behind, at or
   * below what is applied those that the ledger could not give back either. Damaged is not absent.
   */
  readonly damaged: readonly LogIndex[];
  /**
   * The log was damaged above what is applied and goes on from before the damage: it once reached to here. Durable until
   * `mended`; until then this replica must not vote. Null: all that was promised is here.
   */
  readonly promisedLast: LogIndex | null;
  /** Why what is applied can't be what was written: it contradicts the ledger. Null: nothing like that was seen. */
  readonly tablesDamaged: string | null;
  /** False once `loseVote` was called for this incarnation, or when the record of its promises is damaged or gone. */
  readonly voting: boolean;
  /** Why, when it is false. */
  readonly lostReason: string | null;
}

export interface LogWrite {
  readonly hardState: HardState | null;
  readonly removeFrom: LogIndex | null;
  readonly put: readonly Entry[];
}

export interface LogStore extends AsyncDisposable {
  /**
   * Raises the boot number, reads and checks the state. Damaged entries that are applied are taken from the ledger, which
   * proves them; a log that is damaged above is cut before the damage (`promisedLast`). @throws `unavailable`, `config_invalid` (another group, replica or engine), `damaged` */
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
  /**
   * Writes applied entries again, out of the ledger. @throws `damaged` naming those that it does not prove (nothing is
   * written then), otherwise as `append`
   */
  rebuild(indexes: readonly LogIndex[]): Promise<void>;
  /**
   * All that was promised up to `promisedLast` is here again, or known not to be chosen: what lies beyond the log's end goes,
   * and the damage is over. @throws as `append`
   */
  mended(): Promise<void>;
  /**
   * Drops all that is applied and the log, for a replica that takes everything anew from its group: epoch, vote and peers
   * stay, and `promisedLast` remembers how far the log reached. @throws as `append`
   */
  startOver(): Promise<void>;
  /**
   * Drops entries up to `index` (no effect where they are gone already); what is applied up to there is durable first.
   * @throws `invalid_argument` (not applied here), otherwise as `append`
   */
  compactTo(index: LogIndex): Promise<void>;
  /**
   * Drops all entries: the log goes on after `position`, which must be what is applied.
   * @throws `invalid_argument` (another index is applied), otherwise as `append`
   */
  resetTo(position: LogBase): Promise<void>;
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
  /**
   * Writes what is applied, as of one moment, to a new file (docs/spec.md, Snapshots): the same bytes from every store
   * that has applied the same. Applies and appends go on beside it.
   * @throws `invalid_argument` (nothing is applied), `store_failed` (the file), `unavailable`, `damaged`, `aborted`
   */
  exportSnapshot(path: string, options?: SnapshotOptions): Promise<SnapshotInfo>;
  /**
   * Makes the catalog what the snapshot says, in one durable transaction, and lets the log go on after it: entries that
   * agree with it are kept, others dropped. The whole file is checked first. The ledger is only added to. A snapshot at
   * or below what is applied is checked and left. Nothing may be appended meanwhile; `hardState.epoch` may rise.
   * @throws `damaged` (the file, with table and offset), `group_forked` (another group, or another history),
   * `upgrade_required`, `replica_diverged` (equal history, other rows), `fenced`, `unavailable`, `store_failed`, `aborted`
   */
  installSnapshot(path: string, options?: InstallOptions): Promise<SnapshotInstalled>;
  close(): Promise<void>;
}

/** What an adapter's opener returns. Opening connects and migrates; `boot()` fences. */
export interface ReplicaStores extends AsyncDisposable {
  readonly log: LogStore;
  readonly catalog: CatalogStore;
  close(): Promise<void>;
}

/** What a snapshot's header says; `docs/spec.md` has the bytes. */
export interface SnapshotInfo {
  readonly groupId: string;
  /** Payload of the group's first entry. */
  readonly genesis: Uint8Array;
  readonly catalogLevel: number;
  /** What was applied, with both chains and log time. */
  readonly applied: AppliedState;
  /** Of the entry at the applied index. */
  readonly epoch: Epoch;
  readonly tables: readonly SnapshotTableInfo[];
  /** Size of the file. */
  readonly bytes: number;
  /** Names the snapshot: it covers every byte of the file. */
  readonly digest: Digest;
}

export interface SnapshotTableInfo {
  readonly name: string;
  readonly rows: number;
  /** Size of its Arrow IPC stream, and the plain BLAKE3 of it. */
  readonly bytes: number;
  readonly digest: Digest;
}

export interface SnapshotProgress {
  readonly step: "write" | "check" | "install";
  readonly table: string;
  readonly rows: number;
  /** Null while it is not known. */
  readonly rowsTotal: number | null;
}

export interface SnapshotOptions {
  readonly signal?: AbortSignal;
  /** Where the path is; the file system, when left out. */
  readonly files?: Files;
  /** Called between pieces of work while a snapshot is written: a wait here lets others run. */
  readonly breathe?: () => Promise<void>;
  readonly onProgress?: (progress: SnapshotProgress) => void;
}

export interface InstallOptions extends SnapshotOptions {
  /** The snapshot that was asked for; any, when left out. */
  readonly digest?: Digest;
}

export interface SnapshotInstalled {
  readonly info: SnapshotInfo;
  /** False when the store was there already. */
  readonly installed: boolean;
  readonly base: LogBase;
  readonly lastIndex: LogIndex;
}

/** The few operations that snapshots need of a file system. Failures carry node's `code` (ENOENT, ENOSPC, …). */
export interface Files {
  /** `w` begins the file anew; `r+` writes into one that is there. */
  open(path: string, flags: "r" | "r+" | "w"): Promise<OpenFile>;
  rename(from: string, to: string): Promise<void>;
  /** No failure when it is not there. */
  remove(path: string): Promise<void>;
  /** Makes the folder with those above it, for this user only. */
  makeFolder(path: string): Promise<void>;
  /** Names in the folder. */
  list(path: string): Promise<readonly string[]>;
  /** New names in the folder survive a crash. */
  syncFolder(path: string): Promise<void>;
}

export interface OpenFile {
  /** Bytes read; 0 at the end. */
  read(into: Uint8Array, at: number): Promise<number>;
  /** All of them. */
  write(bytes: Uint8Array, at: number): Promise<void>;
  size(): Promise<number>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** Where a replica keeps the snapshots that it sends and receives: a few files, none of which it needs to go on. */
export interface SnapshotFolder {
  readonly files: Files;
  /** Makes the folder, removes what an earlier process was writing itself; names of what else is there. */
  open(): Promise<FoundSnapshots>;
  /** What `exportSnapshot` and `installSnapshot` take, with `files`. */
  pathOf(name: string): string;
  /** @throws `damaged`, `upgrade_required`, `store_failed` */
  source(name: string): Promise<SnapshotSource>;
  /** Goes on where an earlier sink of this name was left. */
  sink(name: string, expected: { readonly digest: Digest; readonly bytes: number }): Promise<SnapshotSink>;
  /** Whole or begun. */
  remove(name: string): Promise<void>;
}

export interface FoundSnapshots {
  readonly whole: readonly string[];
  /** What a sink had received of them: unproven. */
  readonly begun: readonly string[];
}

/** A snapshot file that is served in chunks. */
export interface SnapshotSource extends AsyncDisposable {
  readonly info: SnapshotInfo;
  /** Bytes from `offset` on, at most `bytesMax`, fewer only at the end. @throws `invalid_argument`, `store_failed` */
  chunk(offset: number, bytesMax: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** A snapshot file that comes in chunks, in order. */
export interface SnapshotSink extends AsyncDisposable {
  /** Where the next chunk must start. A chunk that starts elsewhere is ignored: it came twice, or too early. */
  readonly offset: number;
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /** All bytes are there: the finished file. @throws `damaged` when it is not the snapshot that was named, `store_failed` */
  finish(): Promise<SnapshotInfo>;
  /** Leaves what is not finished to another sink of this name. */
  close(): Promise<void>;
}
