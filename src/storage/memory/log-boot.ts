/**
 * Owns the start of a replica on its memory: as in Postgres, raise boot, then check what is there and mend what can be.
 */
import type { Entry, EpochRun, LogIndex } from "../../consensus/engine.ts";
import { bytesEqual } from "../../model/bytes.ts";
import {
  believedApplied,
  CHECK_APPLIED_MAX,
  certainEnd,
  entryOfLedger,
  PROMISES_DAMAGED,
  PROMISES_MISSING,
  promiseChecksum,
  whyTablesDamaged,
  witnessedEpoch,
} from "../log-damage.ts";
import { assertIdentity, checksumOf, configurationsOf, isIntact } from "../log-record.ts";
import type { LogState, StoreIdentity } from "../port.ts";
import { type MemoryDisk, type MemoryRecord, type MemorySession, type MemoryState, sealed } from "./disk.ts";

export function bootMemory(session: MemorySession): LogState {
  if (session.closed && session.lost) throw session.lost;
  const { disk, identity } = session;
  const found = stateOf(disk, identity);
  assertIdentity(found.identity, identity);
  const forgotten = whyForgotten(disk, found);
  const newest = disk.ledger.at(-1) ?? null;
  const tablesDamaged = whyTablesDamaged({ applied: disk.applied, ledgerRows: disk.ledger.length, newest });
  if (tablesDamaged !== null) {
    const index = Math.min(disk.applied.index, newest?.index ?? 0);
    const row = disk.ledger.find((candidate) => candidate.index === index) ?? null;
    disk.applied = believedApplied(disk.applied, { index, row });
  }
  const { state, damaged } = settle(disk, { ...found, boot: found.boot + 1 }, forgotten);
  disk.state = sealed(state);
  session.boot = state.boot;
  session.hardState = state.hardState;
  session.lost = null;
  // Raising boot is a durable write, and takes the applies before it along.
  disk.unflushed.length = 0;
  const records = recordsUpTo(disk, state.lastIndex);
  const { base, lastIndex, hardState, promisedLast, voting, lostReason } = state;
  return {
    incarnation: disk.incarnation,
    boot: state.boot,
    hardState,
    firstIndex: base.index + 1,
    lastIndex,
    base,
    epochRuns: epochRuns(records),
    configurations: configurationsOf(identity, [
      ...disk.ledger.filter(({ kind, index }) => kind === "config" && index <= base.index),
      ...records.filter(isIntactRecord).flatMap(({ entry }) => (entry.kind === "config" ? [entry] : [])),
    ]).map(({ index, payload }) => ({ index, payload })),
    applied: disk.applied,
    peers: [...disk.peers.values()].toSorted((a, b) => (a.peer < b.peer ? -1 : 1)),
    damaged,
    promisedLast,
    tablesDamaged,
    voting,
    lostReason,
  };
}

export function isIntactRecord({ entry, checksum }: MemoryRecord): boolean {
  return isIntact(entry, checksum);
}

/** Entries out of the ledger, as far as the chain proves them. */
export function provenEntries(
  disk: MemoryDisk,
  indexes: readonly LogIndex[],
): { readonly proven: readonly Entry[]; readonly unproven: readonly LogIndex[] } {
  const proven: Entry[] = [];
  const unproven: LogIndex[] = [];
  for (const index of indexes) {
    const [before, row] = [index - 1, index].map((at) => disk.ledger.find((candidate) => candidate.index === at));
    const entry = row === undefined ? null : entryOfLedger(row, before?.chain ?? null);
    if (entry === null) unproven.push(index);
    else proven.push(entry);
  }
  return { proven, unproven };
}

function stateOf(disk: MemoryDisk, identity: StoreIdentity): MemoryState {
  const fresh = { identity, boot: 0, hardState: { epoch: 0, votedFor: null }, lastIndex: 0, promisedLast: null };
  return disk.state ?? { ...fresh, base: { index: 0, epoch: 0 }, voting: true, lostReason: null, checksum: null };
}

function whyForgotten(disk: MemoryDisk, found: MemoryState): string | null {
  if (disk.state === null) return disk.log.size > 0 || disk.ledger.length > 0 ? PROMISES_MISSING : null;
  const { checksum } = found;
  const right = checksum === null || bytesEqual(checksum, promiseChecksum({ ...found, lastIndex: null }));
  return right ? null : PROMISES_DAMAGED;
}

/** Mends what the ledger proves, cuts a log that is damaged above what is applied, and gives up a vote that is forgotten. */
function settle(
  disk: MemoryDisk,
  found: MemoryState,
  forgotten: string | null,
): { readonly state: MemoryState; readonly damaged: readonly LogIndex[] } {
  const applied = disk.applied.index;
  const from = found.base.index + 1;
  const last = forgotten === null ? found.lastIndex : Math.max(found.base.index, ...disk.log.keys());
  const suspects = damagedIn(disk, from, last, applied);
  const { proven, unproven } = provenEntries(
    disk,
    suspects.filter((index) => index <= applied),
  );
  for (const entry of proven) disk.log.set(entry.index, { entry, checksum: checksumOf(entry) });
  const lastIndex = certainEnd(suspects, applied, last);
  const above = suspects.filter((index) => index > applied);
  if (forgotten !== null) {
    const runs = epochRuns(recordsUpTo(disk, lastIndex).filter(isIntactRecord));
    const epoch = witnessedEpoch(runs, disk.ledger.at(-1)?.epoch ?? 0);
    const state = { ...found, hardState: { epoch, votedFor: null }, lastIndex, promisedLast: null };
    return { state: { ...state, voting: false, lostReason: found.lostReason ?? forgotten }, damaged: unproven };
  }
  const reached = Math.max(found.promisedLast ?? 0, last);
  const promisedLast = lastIndex < last || found.promisedLast !== null ? reached : null;
  // What an earlier cut left behind is still told: it may be all that anybody knows of it.
  const behind = above.length > 0 ? [] : damagedIn(disk, lastIndex + 1, promisedLast ?? 0, applied);
  return { state: { ...found, lastIndex, promisedLast }, damaged: [...unproven, ...above, ...behind] };
}

/** As in Postgres: missing anywhere; wrong in the part that a boot looks at, and in any configuration. */
function damagedIn(disk: MemoryDisk, from: LogIndex, to: LogIndex, applied: LogIndex): LogIndex[] {
  const damaged: LogIndex[] = [];
  for (let index = from; index <= to; index++) {
    const record = disk.log.get(index);
    const checked = index > applied - CHECK_APPLIED_MAX || record?.entry.kind === "config";
    if (record === undefined || (checked && !isIntactRecord(record))) damaged.push(index);
  }
  return damaged;
}

function recordsUpTo(disk: MemoryDisk, lastIndex: LogIndex): readonly MemoryRecord[] {
  const records = [...disk.log.values()].filter(({ entry }) => entry.index <= lastIndex);
  return records.toSorted((a, b) => a.entry.index - b.entry.index);
}

function epochRuns(records: readonly MemoryRecord[]): readonly EpochRun[] {
  const runs: EpochRun[] = [];
  for (const { entry } of records) {
    if (runs.at(-1)?.epoch !== entry.epoch) runs.push({ epoch: entry.epoch, first: entry.index });
  }
  return runs;
}
