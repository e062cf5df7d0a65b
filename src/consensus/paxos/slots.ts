/**
 * Owns what an acceptor knows of its slots: where they end, which writes are under way, and a bounded cache of entries.
 * What is not cached is in the store; the engine asks the shell for it with `load`.
 *
 * The slots are contiguous by design: a slot is accepted only when all before it are held. A higher ballot overwrites a
 * slot in place and leaves the ones after it: what this replica accepted there it must go on telling (phase 1).
 *
 * The one thing to know: a slot is durable when no write under way touches it or one before it. So a late completion
 * never vouches for a slot that was overwritten meanwhile, and an entry that is not in the cache is in the store as told.
 */
import type { Entry, LogIndex } from "../engine.ts";
import { invariant } from "../shared/fault.ts";

/** What an entry costs in memory besides its payload. */
const ENTRY_OVERHEAD_BYTES = 64;

interface PendingWrite {
  readonly token: number;
  /** Lowest slot that this write touches. */
  readonly first: LogIndex;
  readonly bytes: number;
}

export interface Slots {
  /** A snapshot holds the effect of everything up to here; the store holds what follows. */
  baseIndex: LogIndex;
  lastIndex: LogIndex;
  readonly pending: PendingWrite[];
  readonly cache: Map<LogIndex, Entry>;
  cacheBytes: number;
  /** No cached entry lies below. */
  cacheFirst: LogIndex;
}

export function createSlots(baseIndex: LogIndex, lastIndex: LogIndex): Slots {
  invariant(Number.isSafeInteger(lastIndex) && lastIndex >= baseIndex, `last index ${lastIndex}, base ${baseIndex}`);
  return { baseIndex, lastIndex, pending: [], cache: new Map(), cacheBytes: 0, cacheFirst: lastIndex + 1 };
}

/** Writes consecutive slots, over what was there. They must not leave a hole. */
export function putSlots(slots: Slots, entries: readonly Entry[]): void {
  for (const entry of entries) {
    invariant(
      entry.index > slots.baseIndex && entry.index <= slots.lastIndex + 1,
      `slot ${entry.index} after ${slots.lastIndex}`,
    );
    const before = slots.cache.get(entry.index);
    slots.cacheBytes += costOf(entry) - (before === undefined ? 0 : costOf(before));
    slots.cache.set(entry.index, entry);
    slots.cacheFirst = Math.min(slots.cacheFirst, entry.index);
    slots.lastIndex = Math.max(slots.lastIndex, entry.index);
  }
}

/** Notes a write of these slots that is now under way. */
export function noteWrite(slots: Slots, token: number, put: readonly Entry[]): void {
  const first = put[0]?.index;
  if (first === undefined) return;
  slots.pending.push({ token, first, bytes: put.reduce((sum, entry) => sum + costOf(entry), 0) });
}

/** All writes up to `token` are durable. */
export function noteDurable(slots: Slots, token: number): void {
  let done = 0;
  while ((slots.pending[done]?.token ?? Infinity) <= token) done += 1;
  if (done > 0) slots.pending.splice(0, done);
}

/** Every slot up to here is on disk as it is known here. */
export function durableIndex(slots: Slots): LogIndex {
  let index = slots.lastIndex;
  for (const { first } of slots.pending) index = Math.min(index, first - 1);
  return index;
}

/** The write that must be durable before the slots up to `index` may be promised; null when they are. */
export function writeCovering(slots: Slots, index: LogIndex): number | null {
  return slots.pending.findLast(({ first }) => first <= index)?.token ?? null;
}

/** Cached entries [from, to], at least one and else within the bounds; null when `from` is not cached. */
export function cachedEntries(
  slots: Slots,
  from: LogIndex,
  to: LogIndex,
  bounds: { readonly entriesMax: number; readonly bytesMax: number },
): readonly Entry[] | null {
  const entries: Entry[] = [];
  let bytes = 0;
  for (let index = from; index <= to && entries.length < bounds.entriesMax; index += 1) {
    const entry = slots.cache.get(index);
    if (entry === undefined) break;
    bytes += costOf(entry);
    if (entries.length > 0 && bytes > bounds.bytesMax) break;
    entries.push(entry);
  }
  return entries.length > 0 ? entries : null;
}

/** The first cached slot from `index` on, or the one after the end. */
export function nextCached(slots: Slots, index: LogIndex): LogIndex {
  let at = Math.max(index, slots.cacheFirst);
  while (at <= slots.lastIndex && !slots.cache.has(at)) at += 1;
  return at;
}

/** Bytes that the disk does not have yet: they cannot be evicted, so this is what must be bounded at the door. */
export function unwrittenBytes(slots: Slots): number {
  return slots.pending.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** Forgets everything at and below `index`: it becomes the base. */
export function compactSlots(slots: Slots, index: LogIndex): void {
  slots.baseIndex = Math.max(slots.baseIndex, index);
  for (; slots.cacheFirst <= index; slots.cacheFirst += 1) drop(slots, slots.cacheFirst);
}

/** Drops the lowest durable entries until the cache is within its bound. */
export function evict(slots: Slots, bytesMax: number): void {
  if (slots.cacheBytes <= bytesMax) return;
  const durable = durableIndex(slots);
  for (; slots.cacheBytes > bytesMax && slots.cacheFirst <= durable; slots.cacheFirst += 1) {
    drop(slots, slots.cacheFirst);
  }
}

function drop(slots: Slots, index: LogIndex): void {
  const entry = slots.cache.get(index);
  if (entry === undefined) return;
  slots.cache.delete(index);
  slots.cacheBytes -= costOf(entry);
}

function costOf(entry: Entry): number {
  return entry.payload.byteLength + ENTRY_OVERHEAD_BYTES;
}
