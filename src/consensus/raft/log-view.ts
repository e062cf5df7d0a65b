/**
 * Owns what the engine knows of its log: the epoch of every index (as runs), which prefix is durable, and a bounded
 * cache of the newest entries. Older entries stay in the store; the engine asks the shell for them with `load`.
 *
 *   base | ......... cacheFirst ........ durableIndex ........ lastIndex
 *   in a snapshot | in the store | cached and in the store | cached, being written
 *
 * The one thing to know: a write counts as durable only for indexes that no later write touched. Truncation clamps
 * the writes under way, so a late `persisted` cannot vouch for a rewritten tail, even one that was rewritten with
 * the same entries again (the ABA race of asynchronous storage).
 */
import type { Entry, Epoch, EpochRun, LogBase, LogIndex } from "../engine.ts";
import { invariant } from "../shared/fault.ts";

/** What an entry costs in memory besides its payload. */
const ENTRY_OVERHEAD_BYTES = 64;
/** Dropped slots at the head of the cache are given back once they are this many and half of the array. */
const CACHE_SLACK_ENTRIES = 1024;

interface PendingWrite {
  readonly token: number;
  /** Lowest index that this write touches. */
  readonly first: LogIndex;
  /** Highest index that it makes durable: lowered when a later write removes from there. */
  last: LogIndex;
  /** Epoch of the entry at `last`. */
  lastEpoch: Epoch;
}

export interface LogView {
  /** The last entry before the log's first: a snapshot holds its effect, the log knows its epoch only. */
  base: LogBase;
  lastIndex: LogIndex;
  /** Own log up to here is on disk. */
  durableIndex: LogIndex;
  readonly runs: EpochRun[];
  readonly pending: PendingWrite[];
  cacheFirst: LogIndex;
  /** Position of `cacheFirst` in `cache`. */
  cacheHead: number;
  cache: (Entry | undefined)[];
  /** Running sum of bytes at the end of each cached entry; `bytesDropped` is the sum before the first. */
  byteEnds: number[];
  bytesDropped: number;
}

const WHOLE: LogBase = { index: 0, epoch: 0 };

export function createLogView(lastIndex: LogIndex, runs: readonly EpochRun[], base: LogBase = WHOLE): LogView {
  invariant(base.index >= 0 && (base.index === 0) === (base.epoch === 0), `base ${base.index}@${base.epoch}`);
  invariant(Number.isSafeInteger(lastIndex) && lastIndex >= base.index, `last index ${lastIndex}`);
  invariant(runs[0]?.first === (lastIndex === base.index ? undefined : base.index + 1), "epoch runs cover the log");
  invariant((runs[0]?.epoch ?? base.epoch) >= base.epoch, "epochs rise from the base on");
  for (let i = 1; i < runs.length; i += 1) {
    const before = runs[i - 1];
    const run = runs[i];
    invariant(before && run && run.first > before.first && run.epoch > before.epoch, "epoch runs rise");
  }
  invariant((runs.at(-1)?.first ?? 0) <= lastIndex, "the last epoch run starts inside the log");
  return {
    base,
    lastIndex,
    durableIndex: lastIndex,
    runs: [...runs],
    pending: [],
    cacheFirst: lastIndex + 1,
    cacheHead: 0,
    cache: [],
    byteEnds: [],
    bytesDropped: 0,
  };
}

/** Epoch of the entry at `index`, the base included (0 before the first entry); null when the log does not know it. */
export function epochAt(log: LogView, index: LogIndex): Epoch | null {
  if (index === log.base.index) return log.base.epoch;
  if (index > log.lastIndex) return null;
  return log.runs[runOf(log, index)]?.epoch ?? null;
}

/** The first entry that the log holds, or would hold if it were not empty. */
export function firstIndex(log: LogView): LogIndex {
  return log.base.index + 1;
}

export function lastEpoch(log: LogView): Epoch {
  return log.runs.at(-1)?.epoch ?? log.base.epoch;
}

/**
 * The highest index at or below `index` (and the end of the log) whose epoch is no later than `epoch`. Below the base
 * nothing is known: an answer there only says that it lies below.
 */
export function lastIndexOfEpochUpTo(log: LogView, index: LogIndex, epoch: Epoch): LogIndex {
  let at = Math.min(index, log.lastIndex);
  for (let run = runOf(log, at); run >= 0; run -= 1) {
    const { epoch: runEpoch, first } = log.runs[run] as EpochRun;
    if (runEpoch <= epoch) return at;
    at = first - 1;
  }
  return at === log.base.index && log.base.epoch > epoch ? at - 1 : at;
}

/** Appends after the end. The entries must be contiguous and of rising epochs. */
export function appendToView(log: LogView, entries: readonly Entry[]): void {
  for (const entry of entries) {
    invariant(entry.index === log.lastIndex + 1, `entry ${entry.index} follows ${log.lastIndex}`);
    const newest = lastEpoch(log);
    invariant(entry.epoch >= newest, `entry ${entry.index}: epoch ${entry.epoch} after ${newest}`);
    if (entry.epoch > newest || log.runs.length === 0) log.runs.push({ epoch: entry.epoch, first: entry.index });
    log.lastIndex = entry.index;
    log.cache.push(entry);
    log.byteEnds.push((log.byteEnds.at(-1) ?? log.bytesDropped) + entry.payload.byteLength + ENTRY_OVERHEAD_BYTES);
  }
}

/** Forgets everything at and above `index`. */
export function truncateView(log: LogView, index: LogIndex): void {
  invariant(index > log.base.index && index <= log.lastIndex, `truncating at ${index} of ${log.lastIndex}`);
  log.lastIndex = index - 1;
  while ((log.runs.at(-1)?.first ?? 0) >= index) log.runs.pop();
  log.durableIndex = Math.min(log.durableIndex, index - 1);
  for (const write of log.pending) {
    if (write.last < index) continue;
    write.last = index - 1;
    write.lastEpoch = epochAt(log, index - 1) ?? 0;
  }
  if (index <= log.cacheFirst) {
    log.cacheFirst = index;
    log.cacheHead = 0;
    log.cache.length = 0;
    log.byteEnds.length = 0;
    log.bytesDropped = 0;
  } else {
    log.cache.length = log.cacheHead + (index - log.cacheFirst);
    log.byteEnds.length = log.cache.length;
  }
}

/** Forgets everything at and below `index`: it becomes the base. */
export function compactView(log: LogView, index: LogIndex): void {
  const epoch = epochAt(log, index);
  invariant(epoch !== null && index <= log.durableIndex, `compacting at ${index}, durable is ${log.durableIndex}`);
  log.base = { index, epoch };
  const run = runOf(log, index + 1);
  log.runs.splice(0, index === log.lastIndex ? log.runs.length : run);
  if (log.runs[0] !== undefined) log.runs[0] = { epoch: log.runs[0].epoch, first: index + 1 };
  while (log.cacheFirst <= index) dropCached(log);
}

/** Notes a write that is now under way: it removed from `first` on if anything was there, and ends at the current end. */
export function noteWrite(log: LogView, token: number, first: LogIndex): void {
  log.pending.push({ token, first, last: log.lastIndex, lastEpoch: lastEpoch(log) });
}

/** All writes up to `token` are durable. */
export function noteDurable(log: LogView, token: number): void {
  let done = 0;
  for (const write of log.pending) {
    if (write.token > token) break;
    done += 1;
    invariant(
      write.last < log.base.index || epochAt(log, write.last) === write.lastEpoch,
      `write ${write.token} ended at ${write.last} in epoch ${write.lastEpoch}, which the log does not hold`,
    );
    log.durableIndex = Math.max(log.durableIndex, write.last);
  }
  if (done > 0) log.pending.splice(0, done);
}

/** The write that must be durable before the prefix up to `index` may be promised; null when it is. */
export function writeCovering(log: LogView, index: LogIndex): number | null {
  for (let i = log.pending.length - 1; i >= 0; i -= 1) {
    const write = log.pending[i] as PendingWrite;
    if (write.first <= index) return write.token;
  }
  return null;
}

/** Cached entries [from, to], at least one and else within the bounds; null when `from` is not cached. */
export function cachedEntries(
  log: LogView,
  from: LogIndex,
  to: LogIndex,
  bounds: { readonly entriesMax: number; readonly bytesMax: number },
): readonly Entry[] | null {
  if (from < log.cacheFirst || from > log.lastIndex) return null;
  const start = log.cacheHead + (from - log.cacheFirst);
  const stopMax = Math.min(
    start + bounds.entriesMax,
    log.cacheHead + (Math.min(to, log.lastIndex) - log.cacheFirst) + 1,
  );
  const bytesBefore = log.byteEnds[start - 1] ?? log.bytesDropped;
  let stop = start + 1;
  while (stop < stopMax && (log.byteEnds[stop] as number) - bytesBefore <= bounds.bytesMax) stop += 1;
  return log.cache.slice(start, stop) as Entry[];
}

/** Bytes of entries that the disk does not have yet: they cannot be evicted, so this is what must be bounded at the door. */
export function unwrittenBytes(log: LogView): number {
  const end = log.byteEnds.at(-1) ?? log.bytesDropped;
  if (log.durableIndex < log.cacheFirst) return end - log.bytesDropped;
  return end - (log.byteEnds[log.cacheHead + (log.durableIndex - log.cacheFirst)] ?? end);
}

/** Drops the oldest durable entries until the cache is within its bound. */
export function evict(log: LogView, bytesMax: number): void {
  const end = log.byteEnds.at(-1) ?? log.bytesDropped;
  while (end - log.bytesDropped > bytesMax && log.cacheFirst <= log.durableIndex) dropCached(log);
  if (log.cacheHead >= CACHE_SLACK_ENTRIES && log.cacheHead * 2 > log.cache.length) {
    log.cache = log.cache.slice(log.cacheHead);
    log.byteEnds = log.byteEnds.slice(log.cacheHead);
    log.cacheHead = 0;
  }
}

function dropCached(log: LogView): void {
  log.bytesDropped = log.byteEnds[log.cacheHead] as number;
  log.cache[log.cacheHead] = undefined;
  log.cacheHead += 1;
  log.cacheFirst += 1;
}

/** Position of the run that holds `index`, −1 when it lies before the first. */
function runOf(log: LogView, index: LogIndex): number {
  let low = 0;
  let high = log.runs.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((log.runs[middle] as EpochRun).first <= index) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
