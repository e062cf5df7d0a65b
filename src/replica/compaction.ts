/**
 * Owns how long a replica's log is: what is applied here leaves it, but for a tail that spares followers a snapshot.
 *
 * It goes in small steps with long pauses, beside the commits: a step of hundreds of entries is one write in the log's
 * turn, and the next one waits several times as long as it took. Never above what a snapshot on its way needs to be followed by.
 */
import type { Entry, Epoch, LogBase, LogIndex } from "../consensus/engine.ts";
import type { LogStore } from "../storage/port.ts";
import type { LogTuning } from "./config.ts";

const STEP_ENTRIES = 512;
/** Between two steps: at least so long, and so many times as long as the step took. */
const PAUSE_MS_MIN = 20;
const PAUSE_FACTOR = 4;
/** Sizes are remembered in pieces of this share of what is kept. */
const MARKS_PER_KEPT = 16;

export interface Compaction {
  /** Entries that were given to the disk: their sizes count. */
  wrote(put: readonly Entry[]): void;
  /** More is applied, or a snapshot has arrived: looks whether there is something to drop. */
  poke(): void;
  stop(): Promise<void>;
}

export interface CompactionOptions {
  readonly log: LogStore;
  readonly base: LogBase;
  readonly tuning: LogTuning;
  applied(): LogIndex;
  epochAt(index: LogIndex): Epoch | null;
  /** Nothing above this may go; Infinity: no bound. */
  heldAt(): LogIndex;
  monotonicMs(): number;
  after(ms: number, fn: () => void): () => void;
  /** The engine is told before the entries go: it asks for none of them any more. */
  onCompact(index: LogIndex, epoch: Epoch): void;
  onFailure(error: unknown): void;
}

export function createCompaction(options: CompactionOptions): Compaction {
  const { log, tuning } = options;
  const sizes = createSizes(tuning.keepBytes);
  let base = options.base.index;
  let running: Promise<void> | null = null;
  let stopped = false;
  let cancelPause = (): void => undefined;

  /** Everything up to here may go. */
  function target(): LogIndex {
    const applied = options.applied();
    const spare = Math.max(applied - tuning.keepEntries, sizes.spareUpTo());
    return Math.min(spare, applied, options.heldAt());
  }

  function isWorthwhile(to: LogIndex): boolean {
    return to - base >= tuning.compactEntries || (to > base && sizes.spareUpTo() > base);
  }

  function poke(): void {
    if (running || stopped || !isWorthwhile(target())) return;
    running = run().finally(() => {
      running = null;
    });
  }

  async function run(): Promise<void> {
    try {
      for (let to = target(); to > base && !stopped; to = target()) await step(Math.min(to, base + STEP_ENTRIES));
    } catch (error) {
      stopped = true;
      options.onFailure(error);
    }
  }

  async function step(to: LogIndex): Promise<void> {
    const epoch = options.epochAt(to);
    if (epoch === null) return void (stopped = true);
    const sinceMs = options.monotonicMs();
    options.onCompact(to, epoch);
    await log.compactTo(to);
    base = to;
    sizes.dropThrough(to);
    const tookMs = options.monotonicMs() - sinceMs;
    if (!stopped) await pause(Math.max(PAUSE_MS_MIN, PAUSE_FACTOR * tookMs));
  }

  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = options.after(ms, resolve);
      cancelPause = () => {
        cancel();
        resolve();
      };
    });
  }

  return {
    wrote: (put) => sizes.add(put),
    poke,
    async stop() {
      stopped = true;
      cancelPause();
      await running;
    },
  };
}

/** How many bytes of entries follow an index, roughly: of those that this life has written. */
function createSizes(keepBytes: number) {
  const marks: { readonly index: LogIndex; readonly total: number }[] = [];
  const markBytes = keepBytes / MARKS_PER_KEPT;
  let total = 0;
  return {
    add(put: readonly Entry[]): void {
      for (const { index, payload } of put) {
        total += payload.byteLength;
        if (total - (marks.at(-1)?.total ?? 0) < markBytes) continue;
        while ((marks.at(-1)?.index ?? 0) >= index) marks.pop();
        marks.push({ index, total });
      }
    },
    /** More than what is kept follows this index; 0: everything fits. */
    spareUpTo: (): LogIndex => marks.findLast((mark) => total - mark.total >= keepBytes)?.index ?? 0,
    dropThrough(index: LogIndex): void {
      while (marks[0] && marks[0].index <= index) marks.shift();
    },
  };
}
