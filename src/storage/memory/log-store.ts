/**
 * Owns the consensus log in memory: the same answers and refusals as the one in Postgres.
 */
import { APPLIED_ZERO } from "../../catalog/apply.ts";
import type { Entry, LogBase, LogIndex } from "../../consensus/engine.ts";
import { invariant, ShardpactError } from "../../model/errors.ts";
import {
  assertAfter,
  assertCompactable,
  assertResettable,
  checksumOf,
  compactedEntries,
  damagedEntries,
  foldWrites,
} from "../log-record.ts";
import { unprovenEntries } from "../log-damage.ts";
import type { LogStore, LogWrite } from "../port.ts";
import { type MemorySession, type MemoryState, sealed, writeMemory } from "./disk.ts";
import { bootMemory, isIntactRecord, provenEntries } from "./log-boot.ts";

export function createMemoryLogStore(session: MemorySession, close: () => Promise<void>): LogStore {
  const { disk } = session;
  return {
    boot: async () => bootMemory(session),
    append: (writes) => writeMemory(session, (state) => append(session, state, writes)),
    read: async (from, to, bytesMax) => read(session, from, to, bytesMax),
    recordPeer: (record) => writeMemory(session, () => void disk.peers.set(record.peer, record)),
    loseVote: (reason) =>
      writeMemory(session, (state) => {
        disk.state = sealed({ ...state, voting: false, lostReason: state.lostReason ?? reason });
      }),
    rebuild: (indexes) => writeMemory(session, () => rebuild(session, indexes)),
    mended: () => writeMemory(session, (state) => mended(session, state)),
    startOver: () => writeMemory(session, (state) => startOver(session, state)),
    compactTo: (index) => writeMemory(session, (state) => compact(session, state, index)),
    resetTo: (position) => writeMemory(session, (state) => reset(session, state, position)),
    close,
    [Symbol.asyncDispose]: close,
  };
}

function append(session: MemorySession, state: MemoryState, writes: readonly LogWrite[]): void {
  const { disk } = session;
  const { hardState, removeFrom, put, lastIndex } = foldWrites(writes, state.lastIndex);
  assertAfter(state.base.index, removeFrom, put);
  if (removeFrom !== null) for (const index of disk.log.keys()) if (index >= removeFrom) disk.log.delete(index);
  for (const entry of put) disk.log.set(entry.index, { entry, checksum: checksumOf(entry) });
  session.hardState = hardState ?? session.hardState;
  disk.state = sealed({ ...state, hardState: session.hardState, lastIndex });
  disk.unflushed.length = 0;
}

function rebuild({ disk, identity }: MemorySession, indexes: readonly LogIndex[]): void {
  const { proven, unproven } = provenEntries(disk, indexes);
  if (unproven.length > 0) throw unprovenEntries(identity.replica, unproven);
  for (const entry of proven) disk.log.set(entry.index, { entry, checksum: checksumOf(entry) });
}

function mended({ disk }: MemorySession, state: MemoryState): void {
  for (const index of disk.log.keys()) if (index > state.lastIndex) disk.log.delete(index);
  disk.state = sealed({ ...state, promisedLast: null });
  disk.unflushed.length = 0;
}

function startOver({ disk }: MemorySession, state: MemoryState): void {
  disk.log.clear();
  for (const rows of disk.rows.values()) rows.clear();
  disk.ledger.length = 0;
  disk.outcomes.clear();
  disk.applied = APPLIED_ZERO;
  disk.unflushed.length = 0;
  const promisedLast = Math.max(state.promisedLast ?? 0, state.lastIndex);
  disk.state = sealed({ ...state, base: { index: 0, epoch: 0 }, lastIndex: 0, promisedLast });
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
