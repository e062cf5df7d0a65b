/**
 * Owns what outlives a crash of an in-memory replica, and the faults that tests and the simulator put on it.
 *
 * It keeps the promises of one Postgres with asynchronous applies: an append is durable when it resolves and takes all
 * applies before it along; a crash of the database loses the applies since. No timers, no randomness.
 */
import type { AppliedState, LedgerRow } from "../../catalog/apply.ts";
import { APPLIED_ZERO } from "../../catalog/apply.ts";
import { PRIMARY_KEYS, type Row, type Table } from "../../catalog/rows.ts";
import type { Entry, HardState, LogBase, LogIndex } from "../../consensus/engine.ts";
import { invariant, ShardpactError } from "../../model/errors.ts";
import { promiseChecksum } from "../log-damage.ts";
import { fencedError } from "../log-record.ts";
import type { PeerRecord, StoreIdentity } from "../port.ts";

export interface MemoryState {
  readonly identity: StoreIdentity;
  readonly boot: number;
  readonly hardState: HardState;
  readonly lastIndex: LogIndex;
  /** What stood before the first entry of the log. */
  readonly base: LogBase;
  readonly promisedLast: LogIndex | null;
  readonly voting: boolean;
  readonly lostReason: string | null;
  /** Over the promises; null: written by hand, not checked. */
  readonly checksum: Uint8Array | null;
}

export interface MemoryRecord {
  readonly entry: Entry;
  readonly checksum: Uint8Array;
}

/** What takes an apply back: the rows as they were (null: absent), and the state before. */
export interface MemoryUndo {
  readonly applied: AppliedState;
  readonly rows: readonly { readonly table: Table; readonly key: string; readonly row: Row | null }[];
}

export interface MemoryDisk {
  readonly incarnation: string;
  /** Null until the first boot. */
  state: MemoryState | null;
  readonly log: Map<LogIndex, MemoryRecord>;
  readonly peers: Map<string, PeerRecord>;
  /** By table, then by `rowKey`. */
  readonly rows: ReadonlyMap<Table, Map<string, Row>>;
  /** `ledger[i]` is index i + 1. */
  readonly ledger: LedgerRow[];
  readonly outcomes: Map<string, LedgerRow>;
  applied: AppliedState;
  readonly unflushed: MemoryUndo[];
  /** The next write ends in `unavailable`: without effect, or with it (an answer that got lost). */
  failNext: "before" | "after" | null;
}

export function createMemoryDisk(incarnation = "memory"): MemoryDisk {
  return {
    incarnation,
    state: null,
    log: new Map(),
    peers: new Map(),
    rows: new Map((Object.keys(PRIMARY_KEYS) as Table[]).map((table) => [table, new Map()])),
    ledger: [],
    outcomes: new Map(),
    applied: APPLIED_ZERO,
    unflushed: [],
    failNext: null,
  };
}

/** The rows of one table by key. */
export function rowsIn(disk: MemoryDisk, table: Table): Map<string, Row> {
  const rows = disk.rows.get(table);
  invariant(rows, `table ${table} is known`);
  return rows;
}

/** The database crashes: applies since the last append are lost, newest first, but for the `kept` oldest. */
export function crashMemoryDisk(disk: MemoryDisk, kept = 0): void {
  for (const undo of disk.unflushed.splice(kept).toReversed()) {
    for (const { table, key, row } of undo.rows) {
      if (row === null) rowsIn(disk, table).delete(key);
      else rowsIn(disk, table).set(key, row);
    }
    for (const row of disk.ledger.splice(undo.applied.index))
      if (row.commandId !== null) disk.outcomes.delete(row.commandId);
    disk.applied = undo.applied;
  }
}

/** Flips one bit of a stored entry, or of its checksum when it has no payload. */
export function damageMemoryRecord(disk: MemoryDisk, index: LogIndex): void {
  const record = disk.log.get(index);
  invariant(record, `entry ${index} is there to be damaged`);
  const payload = record.entry.payload.slice();
  const checksum = record.checksum.slice();
  const target = payload.byteLength > 0 ? payload : checksum;
  target[0] = (target[0] ?? 0) ^ 1;
  disk.log.set(index, { entry: { ...record.entry, payload }, checksum });
}

/** Flips a bit of the record of what this replica promised: it has voted in another epoch, as far as can be read. */
export function damageMemoryPromises(disk: MemoryDisk): void {
  const { state } = disk;
  invariant(state, "a booted disk has its state");
  disk.state = { ...state, hardState: { ...state.hardState, epoch: state.hardState.epoch ^ 1 } };
}

/** The state with its checksum: whoever changes what was promised writes it so. */
export function sealed(state: MemoryState): MemoryState {
  return { ...state, checksum: promiseChecksum({ ...state, lastIndex: null }) };
}

/** One boot of one process on a disk: what both of its stores share. */
export interface MemorySession {
  readonly disk: MemoryDisk;
  readonly identity: StoreIdentity;
  boot: number;
  /** As it was last written: every append writes it anew. */
  hardState: HardState;
  lost: ShardpactError | null;
  closed: boolean;
}

/** Runs a write under the fence and the next planned fault. @throws `fenced`, `unavailable`, `closed` */
export async function writeMemory<T>(session: MemorySession, write: (state: MemoryState) => T): Promise<T> {
  if (session.lost) throw session.lost;
  const { disk, identity } = session;
  const fault = disk.failNext;
  disk.failNext = null;
  if (fault === "before") throw loseMemory(session);
  if (!disk.state || disk.state.boot !== session.boot) throw (session.lost = fencedError(identity, session.boot));
  const result = write(disk.state);
  if (fault === "after") throw loseMemory(session);
  return result;
}

function loseMemory(session: MemorySession): ShardpactError {
  session.lost = new ShardpactError("unavailable", `replica ${session.identity.replica} lost its database`, {
    hint: "The outcome of the write is unknown: boot again.",
  });
  return session.lost;
}
