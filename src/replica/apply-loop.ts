/**
 * Owns applying: chosen entries, in order, up to min(commit, durable), in batches, one batch at a time.
 *
 * It runs beside the log writes: replication never waits for it. Whoever needs an index applied waits here. A leader
 * applies at once, since clients wait for it; a follower lets a few entries gather, which costs all of them less, unless
 * somebody waits there too.
 */
import type { AppliedEntry, AppliedState } from "../catalog/apply.ts";
import type { Entry, Epoch, EpochRun, LogIndex } from "../consensus/engine.ts";
import { bytesEqual } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import type { CatalogStore, LogStore } from "../storage/port.ts";
import type { RecentEntries } from "./recent-entries.ts";
import { DIGEST_EVERY } from "./state-digests.ts";

const BATCH_BYTES_MAX = 4 * 1024 * 1024;
const CHAINS_KEPT = 1024;
/** What a follower may leave unapplied, and for how long: a new leader starts by applying it. */
const GATHER_MS = 50;
const GATHER_ENTRIES_MAX = 256;

export interface ApplyLoop {
  /** Everything up to `index` is chosen. */
  commit(index: LogIndex): void;
  /** The log grew on disk: more may be applied. */
  durable(): void;
  applied(): AppliedState;
  /** Chain value after `index`, for indexes applied lately. */
  recentChain(index: LogIndex): string | null;
  /** Epoch of the entry at `index` if it is applied here, else null. */
  chosenEpochAt(index: LogIndex): Epoch | null;
  /** True once `index` is applied, false when `waitMs` passed before. */
  waitFor(index: LogIndex, waitMs: number): Promise<boolean>;
  /** Resolves when no batch is being applied; nothing is started any more. */
  stop(): Promise<void>;
}

export interface ApplyLoopOptions {
  readonly catalog: CatalogStore;
  readonly log: LogStore;
  readonly recent: RecentEntries;
  readonly start: AppliedState;
  /** Epochs of the log at the start; later ones are learned from what is applied. */
  readonly epochRuns: readonly EpochRun[];
  /** What the entry at index 1 must be. */
  readonly genesisBytes: Uint8Array;
  /** Entries up to here are on disk, and nothing under way removes or overwrites one of them. */
  durableLast(): LogIndex;
  /** True while clients wait for what is applied here. */
  isLeader(): boolean;
  after(ms: number, fn: () => void): () => void;
  /** A `config` entry is applied; told before anybody who waits for its index. */
  onConfiguration(entry: Entry): void;
  onApplied(entries: readonly AppliedEntry[], applied: AppliedState): void;
  onFailure(error: unknown): void;
}

interface Waiter {
  readonly index: LogIndex;
  done(reached: boolean): void;
}

export function createApplyLoop(options: ApplyLoopOptions): ApplyLoop {
  const { catalog, log, recent, genesisBytes } = options;
  const waiters = new Set<Waiter>();
  const chains = new Map<LogIndex, string>();
  const epochRuns = options.epochRuns.filter((run) => run.first <= options.start.index);
  let applied = options.start;
  let commit = 0;
  let running: Promise<void> | null = null;
  let stopped = false;
  let cancelGathering: (() => void) | null = null;

  function poke(gathered = false): void {
    const to = Math.min(commit, options.durableLast());
    if (running || stopped || to <= applied.index) return;
    if (!gathered && !options.isLeader() && waiters.size === 0 && to - applied.index < GATHER_ENTRIES_MAX) {
      cancelGathering ??= options.after(GATHER_MS, () => {
        cancelGathering = null;
        poke(true);
      });
      return;
    }
    cancelGathering?.();
    cancelGathering = null;
    running = work().finally(() => {
      running = null;
      poke(); // What was committed after the last look, before this turn.
    });
  }

  async function work(): Promise<void> {
    try {
      const from = applied.index + 1;
      // A batch ends where replicas compare what it came to.
      const compared = Math.ceil(from / DIGEST_EVERY) * DIGEST_EVERY;
      await applyBatch(from, Math.min(commit, options.durableLast(), compared));
    } catch (error) {
      stopped = true;
      options.onFailure(error);
    }
  }

  async function applyBatch(from: LogIndex, to: LogIndex): Promise<void> {
    let entries = recent.run(from, to, LIMITS.applyEntriesMax, BATCH_BYTES_MAX);
    if (entries.length === 0) {
      const last = Math.min(to, from + LIMITS.applyEntriesMax - 1);
      entries = await log.read(from, last, BATCH_BYTES_MAX);
    }
    if (from === 1) checkGenesis(entries[0], genesisBytes);
    const results = await catalog.apply(entries);
    const last = results.at(-1);
    if (!last || stopped) return;
    applied = catalog.applied();
    for (const entry of entries) if (entry.kind === "config") options.onConfiguration(entry);
    recent.dropThrough(applied.index);
    for (const { index, epoch, chain } of results) {
      chains.set(index, chain);
      if (epochRuns.at(-1)?.epoch !== epoch) epochRuns.push({ epoch, first: index });
    }
    for (const index of chains.keys()) {
      if (chains.size <= CHAINS_KEPT) break;
      chains.delete(index);
    }
    options.onApplied(results, applied);
    for (const waiter of waiters) if (waiter.index <= applied.index) waiter.done(true);
  }

  return {
    commit(index) {
      commit = Math.max(commit, index);
      poke();
    },
    durable: () => poke(),
    applied: () => applied,
    recentChain: (index) => (index === applied.index ? applied.chain : (chains.get(index) ?? null)),
    chosenEpochAt(index) {
      if (index > applied.index) return null;
      return epochRuns.findLast((run) => run.first <= index)?.epoch ?? null;
    },
    waitFor(index, waitMs) {
      if (applied.index >= index) return Promise.resolve(true);
      if (stopped) return Promise.resolve(false);
      return new Promise((resolve) => {
        const cancel = options.after(waitMs, () => waiter.done(false));
        const waiter: Waiter = {
          index,
          done(reached) {
            waiters.delete(waiter);
            cancel();
            resolve(reached);
          },
        };
        waiters.add(waiter);
        poke();
      });
    },
    async stop() {
      stopped = true;
      cancelGathering?.();
      for (const waiter of waiters) waiter.done(false);
      await running;
    },
  };
}

/** A log that begins otherwise belongs to another group: nothing of it may be applied. */
function checkGenesis(entry: Entry | undefined, genesisBytes: Uint8Array): void {
  if (entry?.kind === "config" && bytesEqual(entry.payload, genesisBytes)) return;
  throw new ShardpactError("config_invalid", "the log's first entry is not this group's first configuration", {
    hint: "This database or its peers belong to another group; give every replica the same genesis.",
  });
}
