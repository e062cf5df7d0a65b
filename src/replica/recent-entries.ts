/**
 * Owns the entries that were written and are not applied yet, so that applying seldom reads them back.
 *
 * Bounded: what does not fit is left out and read from the log when its turn comes.
 */
import type { Entry, LogIndex } from "../consensus/engine.ts";
import { LIMITS } from "../model/limits.ts";

export interface RecentEntries {
  put(entry: Entry): void;
  removeFrom(index: LogIndex): void;
  /** Forgets entries up to and including `index`. */
  dropThrough(index: LogIndex): void;
  get(index: LogIndex): Entry | undefined;
  /** The run of entries from `from` to at most `to` that is here; empty when `from` is not. */
  run(from: LogIndex, to: LogIndex, entriesMax: number, bytesMax: number): readonly Entry[];
}

export function createRecentEntries(): RecentEntries {
  const entries = new Map<LogIndex, Entry>();
  let bytes = 0;
  let lowest = 1;
  let highest = 0;

  function remove(index: LogIndex): void {
    const entry = entries.get(index);
    if (!entry) return;
    entries.delete(index);
    bytes -= entry.payload.byteLength;
  }

  return {
    put(entry) {
      remove(entry.index);
      const full =
        entries.size >= LIMITS.logCacheEntriesMax || bytes + entry.payload.byteLength > LIMITS.logCacheBytesMax;
      if (full || entry.index < lowest) return;
      entries.set(entry.index, entry);
      bytes += entry.payload.byteLength;
      highest = Math.max(highest, entry.index);
    },
    removeFrom(from) {
      for (let index = Math.max(from, lowest); index <= highest; index++) remove(index);
      highest = Math.min(highest, from - 1);
    },
    dropThrough(index) {
      for (; lowest <= index; lowest++) {
        if (lowest > highest) {
          lowest = index + 1;
          break;
        }
        remove(lowest);
      }
    },
    get: (index) => entries.get(index),
    run(from, to, entriesMax, bytesMax) {
      const out: Entry[] = [];
      let size = 0;
      for (let index = from; index <= to && out.length < entriesMax; index++) {
        const entry = entries.get(index);
        if (!entry) break;
        size += entry.payload.byteLength;
        if (out.length > 0 && size > bytesMax) break;
        out.push(entry);
      }
      return out;
    },
  };
}
