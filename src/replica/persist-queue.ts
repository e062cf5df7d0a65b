/**
 * Owns the order of durable writes: one transaction outstanding, arrivals merge into the next one (group commit).
 *
 * An idle replica writes nothing; so now and then it writes nothing new, and learns whether its database still answers and
 * still knows it. A write that arrives while the disk is idle leaves at the end of the current turn of the event loop, so that all that
 * one read of the socket brought shares its transaction.
 */
import type { Effect, Entry, HardState, LogIndex } from "../consensus/engine.ts";
import type { LogState, LogStore, LogWrite } from "../storage/port.ts";
import type { DurablePoint } from "./envelope.ts";
import type { RecentEntries } from "./recent-entries.ts";

export type PersistEffect = Extract<Effect<unknown>, { kind: "persist" }>;

/** An idle database is asked this often: a process that was replaced, or has lost its disk, notices within it. */
const PROBE_EVERY_MS = 1_000;
const PROBE: LogWrite = { hardState: null, removeFrom: null, put: [] };

export interface Promised {
  readonly hardState: HardState;
  /** A write under way may have removed entries: this is below the lowest of them. */
  readonly lastIndex: LogIndex;
}

export interface PersistQueue {
  push(write: PersistEffect): void;
  /** Highest token that is durable. */
  token(): number;
  /** What the database holds for certain, or is known to have lost: it is what peers may hold this replica to. */
  durable(): DurablePoint;
  /** Nothing of what was once promised is missing any more. */
  mended(): void;
  /** The database's entries up to here are what the engine knows: no write under way or waiting touches one of them. */
  settledLast(): LogIndex;
  /** What the database must still hold, whatever became of the write under way. */
  promised(): Promised;
  /** Call on every tick: probes the database when nothing was written for a while. */
  tick(): void;
  /** How long the oldest write that is not durable has waited, 0 when there is none. */
  oldestMs(): number;
  /** Resolves when no transaction is outstanding; nothing is started any more. */
  stop(): Promise<void>;
}

export interface PersistQueueOptions {
  readonly log: LogStore;
  readonly start: LogState;
  readonly recent: RecentEntries;
  monotonicMs(): number;
  onDurable(token: number): void;
  onFailure(error: unknown): void;
}

export function createPersistQueue(options: PersistQueueOptions): PersistQueue {
  const { log, start, recent } = options;
  let pending: PersistEffect[] = [];
  let pendingSinceMs = 0;
  let flushingSinceMs = 0;
  let flushing: Promise<void> | null = null;
  let lastFlushMs = options.monotonicMs();
  let scheduled = false;
  let stopped = false;
  let token = 0;
  /** Writes under way, or whose outcome is not known. */
  let unsure: readonly PersistEffect[] = [];
  let { hardState } = start;
  let claimed = start.promisedLast;
  let durable: DurablePoint = {
    lastIndex: start.lastIndex,
    lastEpoch: start.epochRuns.at(-1)?.epoch ?? start.base.epoch,
    epoch: start.hardState.epoch,
  };

  function schedule(): void {
    if (scheduled || flushing || stopped) return;
    scheduled = true;
    queueMicrotask(() => {
      scheduled = false;
      if (!flushing && !stopped && pending.length > 0) flushing = flush();
    });
  }

  async function flush(): Promise<void> {
    const writes = pending;
    pending = [];
    unsure = writes;
    flushingSinceMs = pendingSinceMs;
    try {
      await log.append(writes.length > 0 ? writes : [PROBE]);
    } catch (error) {
      stopped = true;
      flushing = null;
      options.onFailure(error);
      return;
    }
    flushing = null;
    unsure = [];
    lastFlushMs = options.monotonicMs();
    for (const write of writes) {
      token = write.token;
      hardState = write.hardState ?? hardState;
      durable = afterWrite(durable, write);
    }
    if (stopped) return;
    // The disk goes on first: what follows may take a while.
    if (pending.length > 0) flushing = flush();
    if (writes.length > 0) options.onDurable(token);
  }

  return {
    push(write) {
      if (write.removeFrom !== null) recent.removeFrom(write.removeFrom);
      for (const entry of write.put) recent.put(entry);
      if (pending.length === 0) pendingSinceMs = options.monotonicMs();
      pending.push(write);
      schedule();
    },
    tick() {
      const nowMs = options.monotonicMs();
      if (flushing || stopped || pending.length > 0 || nowMs - lastFlushMs < PROBE_EVERY_MS) return;
      pendingSinceMs = nowMs;
      flushing = flush();
    },
    token: () => token,
    settledLast() {
      let last = durable.lastIndex;
      for (const write of [...unsure, ...pending]) last = Math.min(last, firstTouched(write) - 1);
      return last;
    },
    promised() {
      const cuts = unsure.map(({ removeFrom }) => (removeFrom ?? Infinity) - 1);
      return { hardState, lastIndex: Math.min(durable.lastIndex, ...cuts) };
    },
    durable() {
      const lost = claimed !== null && claimed > durable.lastIndex;
      return lost ? { ...durable, lastIndex: claimed ?? 0, lastEpoch: 0 } : durable;
    },
    mended() {
      claimed = null;
    },
    oldestMs() {
      if (flushing) return options.monotonicMs() - flushingSinceMs;
      return pending.length > 0 ? options.monotonicMs() - pendingSinceMs : 0;
    },
    async stop() {
      stopped = true;
      await flushing;
    },
  };
}

function firstTouched({ removeFrom, put }: PersistEffect): LogIndex {
  return removeFrom ?? put[0]?.index ?? Infinity;
}

function afterWrite(before: DurablePoint, write: PersistEffect): DurablePoint {
  const last: Entry | undefined = write.put.at(-1);
  const cut =
    write.removeFrom !== null && write.removeFrom <= before.lastIndex ? write.removeFrom - 1 : before.lastIndex;
  return {
    epoch: write.hardState?.epoch ?? before.epoch,
    // After a cut without entries the last entry's epoch is not known here; 0 claims nothing.
    lastEpoch: last ? last.epoch : cut < before.lastIndex ? 0 : before.lastEpoch,
    lastIndex: last ? Math.max(cut, last.index) : cut,
  };
}
