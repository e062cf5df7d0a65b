/**
 * Owns how a replica whose log was damaged comes to vote again, by itself.
 *
 *   cut before the damage ──► follows, does not vote ──► the leader says how far its log reaches ──► holds that, chosen ──► votes
 *
 * The store has cut the log before the damage and remembers how far it once reached (`promisedLast`). The engine starts
 * from the cut and gets the rest like any follower that lags. When may it vote? A leader of epoch T holds everything that
 * was chosen, or can still be chosen, in earlier epochs, and all that this replica acknowledged in T itself. So this replica
 * asks, after its start, a leader whose leadership a quorum confirms, how far its log reaches. Once all of that is chosen and
 * here, in the same epoch, every promise is kept or proven void. docs/engine.md has the argument for both engines.
 */
import type { Effect, Entry, LogIndex } from "../consensus/engine.ts";
import { isShardpactError, type ShardpactError } from "../model/errors.ts";
import type { LogState, LogStore } from "../storage/port.ts";
import type { Driver } from "./driver.ts";
import type { PersistQueue } from "./persist-queue.ts";
import type { ReadIndex, ReadPoint } from "./read-index.ts";

const ASK_MS_MAX = 1_000;

/** Call on every tick. Does nothing when nothing is damaged. */
export interface Repair {
  tick(): void;
}

export interface RepairOptions {
  readonly start: LogState;
  readonly log: LogStore;
  readonly driver: Pick<Driver<never>, "status" | "over" | "resumeVoting" | "fail">;
  readonly disk: Pick<PersistQueue, "settledLast" | "mended">;
  readonly readIndex: Pick<ReadIndex, "fetch">;
  /** Tells all others what this replica holds now. */
  announce(): void;
}

export function createRepair({ start, log, driver, disk, readIndex, announce }: RepairOptions): Repair {
  let target: Pick<ReadPoint, "epoch" | "lastIndex"> | null = null;
  let step: "ask" | "asking" | "wait" | "done" = start.promisedLast === null ? "done" : "ask";

  async function ask(): Promise<void> {
    step = "asking";
    try {
      // It began after this start: the leader's log reaches as far as anything that was ever acknowledged to it.
      target = await readIndex.fetch(ASK_MS_MAX);
      step = "wait";
    } catch {
      step = "ask"; // No leader, or none that a quorum confirms: again on the next tick.
    }
  }

  async function finish(): Promise<void> {
    step = "done";
    try {
      await log.mended();
    } catch (error) {
      return driver.fail(error);
    }
    if (driver.over()) return;
    disk.mended();
    // It may be less than it once told, and that is in order: who hears of it only in a later life would take it for a loss.
    announce();
    if (whyNotVoting({ ...start, promisedLast: null, damaged: unproven(start) }) === null) driver.resumeVoting();
  }

  return {
    tick() {
      if (step === "ask") void ask();
      if (step !== "wait" || target === null) return;
      const { epoch, commit } = driver.status();
      // Another leader: what its log holds is for it to say.
      if (epoch !== target.epoch) step = "ask";
      else if (Math.min(commit, disk.settledLast()) >= target.lastIndex) void finish();
    },
  };
}

/** Why a replica that starts from this may not vote; null when it may. */
export function whyNotVoting(start: LogState): string | null {
  const { voting, lostReason, promisedLast, damaged, lastIndex, tablesDamaged } = start;
  if (!voting) return `this database has lost promises that it made${lostReason === null ? "" : `: ${lostReason}`}`;
  const named = damaged.length === 0 ? "" : ` (damaged or missing: ${listed(damaged)})`;
  if (promisedLast !== null) {
    return `the log is certain up to ${lastIndex}, acknowledged was up to ${promisedLast}${named}; the rest comes from a leader`;
  }
  return tablesDamaged ?? (damaged.length > 0 ? ledgerDamaged(damaged) : null);
}

function ledgerDamaged(indexes: readonly LogIndex[]): string {
  return `entries are damaged or missing in log and ledger: ${listed(indexes)}`;
}

/** Why what is applied must be taken anew; null when nothing that a boot saw says so. */
export function whyTablesDamaged(start: LogState): string | null {
  const indexes = unproven(start);
  return start.tablesDamaged ?? (indexes.length > 0 ? ledgerDamaged(indexes) : null);
}

/** Applied ones that the ledger can't give back: no leader can either. */
function unproven({ damaged, applied }: LogState): readonly LogIndex[] {
  return damaged.filter((index) => index <= applied.index);
}

function listed(indexes: readonly LogIndex[]): string {
  return `${indexes.slice(0, 8).join(", ")}${indexes.length > 8 ? `, … ${indexes.length} in all` : ""}`;
}

/**
 * Reads entries; applied ones that are damaged are taken from the ledger first. @throws as `LogStore.read`: `damaged` when
 * the ledger can't help either
 */
async function readMending(
  log: LogStore,
  range: { readonly from: LogIndex; readonly to: LogIndex; readonly bytesMax: number },
  applied: LogIndex,
): Promise<readonly Entry[]> {
  const { from, to, bytesMax } = range;
  try {
    return await log.read(from, to, bytesMax);
  } catch (error) {
    const indexes = damagedEntries(error);
    if (indexes.length === 0 || indexes.some((index) => index > applied)) throw error;
    await log.rebuild(indexes);
    return await log.read(from, to, bytesMax);
  }
}

type Load = Extract<Effect<unknown>, { kind: "load" }>;

interface LoadOptions<M> {
  readonly log: LogStore;
  readonly driver: Driver<M>;
  readonly applied: LogIndex;
  fail(error: unknown): void;
}

/** Answers an engine's `load`. */
export async function answerLoad<M>({ log, driver, applied, fail }: LoadOptions<M>, effect: Load): Promise<void> {
  const { token } = effect;
  try {
    driver.feed({ kind: "loaded", token, entries: await readMending(log, effect, applied) });
  } catch (error) {
    driver.feed({ kind: "load_failed", token });
    // Compacted meanwhile: whoever needs it gets a snapshot.
    if (!isShardpactError(error, "not_found")) fail(error);
  }
}

/** Of a damaged log the next boot makes what can be made: it looks at all of it, mends, and cuts before the rest. */
export function logIsDamaged(error: unknown): boolean {
  return damagedEntries(error).length > 0;
}

function damagedEntries(error: unknown): readonly LogIndex[] {
  if (!isShardpactError(error, "damaged")) return [];
  const { indexes } = (error as ShardpactError).details as { readonly indexes?: readonly LogIndex[] };
  return indexes ?? [];
}
