/**
 * Owns the consensus log in memory: the same answers and refusals as the one in Postgres.
 */
import type { Entry, EpochRun, LogBase, LogIndex } from "../../consensus/engine.ts";
import { invariant, ShardpactError } from "../../model/errors.ts";
import {
  assertAfter,
  assertCompactable,
  assertIdentity,
  assertResettable,
  checksumOf,
  compactedEntries,
  configurationsOf,
  damagedEntries,
  foldWrites,
  isIntact,
} from "../log-record.ts";
import type { LogState, LogStore, LogWrite } from "../port.ts";
import { type MemoryRecord, type MemorySession, type MemoryState, writeMemory } from "./disk.ts";

export function createMemoryLogStore(session: MemorySession, close: () => Promise<void>): LogStore {
  const { disk } = session;
  return {
    boot: async () => boot(session),
    append: (writes) => writeMemory(session, (state) => append(session, state, writes)),
    read: async (from, to, bytesMax) => read(session, from, to, bytesMax),
    recordPeer: (record) => writeMemory(session, () => void disk.peers.set(record.peer, record)),
    loseVote: () => writeMemory(session, (state) => void (disk.state = { ...state, voting: false })),
    compactTo: (index) => writeMemory(session, (state) => compact(session, state, index)),
    resetTo: (position) => writeMemory(session, (state) => reset(session, state, position)),
    close,
    [Symbol.asyncDispose]: close,
  };
}

function boot(session: MemorySession): LogState {
  if (session.closed && session.lost) throw session.lost;
  const { disk, identity } = session;
  const fresh = { identity, boot: 0, hardState: { epoch: 0, votedFor: null }, lastIndex: 0 };
  const found: MemoryState = disk.state ?? { ...fresh, base: { index: 0, epoch: 0 }, voting: true };
  assertIdentity(found.identity, identity);
  const state = { ...found, boot: found.boot + 1 };
  disk.state = state;
  session.boot = state.boot;
  session.lost = null;
  // Raising boot is a durable write, and takes the applies before it along.
  disk.unflushed.length = 0;
  const records = [...disk.log.values()].toSorted((a, b) => a.entry.index - b.entry.index);
  const configurations = records.filter(({ entry }) => entry.kind === "config");
  return {
    incarnation: disk.incarnation,
    boot: state.boot,
    hardState: state.hardState,
    firstIndex: state.base.index + 1,
    lastIndex: state.lastIndex,
    base: state.base,
    epochRuns: epochRuns(records),
    configurations: configurationsOf(identity, [
      ...disk.ledger.filter(({ kind, index }) => kind === "config" && index <= state.base.index),
      ...configurations.filter(isIntactRecord).map(({ entry }) => entry),
    ]).map(({ index, payload }) => ({ index, payload })),
    applied: disk.applied,
    peers: [...disk.peers.values()].toSorted((a, b) => (a.peer < b.peer ? -1 : 1)),
    damaged: findDamaged(session, state),
    voting: state.voting,
  };
}

function append({ disk }: MemorySession, state: MemoryState, writes: readonly LogWrite[]): void {
  const { hardState, removeFrom, put, lastIndex } = foldWrites(writes, state.lastIndex);
  assertAfter(state.base.index, removeFrom, put);
  if (removeFrom !== null) for (const index of disk.log.keys()) if (index >= removeFrom) disk.log.delete(index);
  for (const entry of put) disk.log.set(entry.index, { entry, checksum: checksumOf(entry) });
  disk.state = { ...state, hardState: hardState ?? state.hardState, lastIndex };
  disk.unflushed.length = 0;
}

function compact({ disk, identity }: MemorySession, state: MemoryState, index: LogIndex): void {
  assertCompactable(identity, index, disk.applied.index);
  if (index <= state.base.index) return;
  for (const at of disk.log.keys()) if (at <= index) disk.log.delete(at);
  disk.state = { ...state, base: { index, epoch: disk.ledger[index - 1]?.epoch ?? 0 } };
  disk.unflushed.length = 0;
}

function reset({ disk, identity }: MemorySession, state: MemoryState, position: LogBase): void {
  assertResettable(identity, position, disk.applied.index);
  disk.log.clear();
  disk.state = { ...state, base: position, lastIndex: position.index };
  disk.unflushed.length = 0;
}

function read(
  { disk, identity, lost }: MemorySession,
  from: LogIndex,
  to: LogIndex,
  bytesMax: number,
): readonly Entry[] {
  if (lost) throw lost;
  invariant(from <= to, `the log is read from ${from} to ${to}`);
  const lastIndex = disk.state?.lastIndex ?? 0;
  if (to > lastIndex)
    throw new ShardpactError(
      "invalid_argument",
      `replica ${identity.replica}: the log ends at ${lastIndex}, not ${to}`,
    );
  const compacted = disk.state?.base.index ?? 0;
  if (from <= compacted) throw compactedEntries(identity.replica, from, compacted);
  const entries: Entry[] = [];
  let bytes = 0;
  for (let index = from; index <= to; index++) {
    const record = disk.log.get(index);
    if (record) bytes += record.entry.payload.byteLength;
    if (record && entries.length > 0 && bytes > bytesMax) break;
    if (!record || !isIntactRecord(record)) {
      if (entries.length > 0) break;
      throw damagedEntries(identity.replica, [index]);
    }
    entries.push(record.entry);
  }
  if (entries.length === 0) throw damagedEntries(identity.replica, [from]);
  return entries;
}

function epochRuns(records: readonly MemoryRecord[]): readonly EpochRun[] {
  const runs: EpochRun[] = [];
  for (const { entry } of records) {
    if (runs.at(-1)?.epoch !== entry.epoch) runs.push({ epoch: entry.epoch, first: entry.index });
  }
  return runs;
}

/** As in Postgres: missing anywhere, wrong above the applied index or in a configuration. */
function findDamaged({ disk }: MemorySession, state: MemoryState): readonly LogIndex[] {
  const damaged: LogIndex[] = [];
  for (let index = state.base.index + 1; index <= state.lastIndex; index++) {
    const record = disk.log.get(index);
    const checked = index > disk.applied.index || record?.entry.kind === "config";
    if (record === undefined || (checked && !isIntactRecord(record))) damaged.push(index);
  }
  return damaged;
}

function isIntactRecord({ entry, checksum }: MemoryRecord): boolean {
  return isIntact(entry, checksum);
}
