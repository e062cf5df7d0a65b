/**
 * Owns what becomes of a replica whose tables are damaged: it stops voting at once, and takes everything anew from the
 * group once a leader, confirmed by a quorum, is known to hold at least as much.
 *
 * Its tables follow from the log alone, and the others have them: nothing is lost by dropping what can't be trusted. The
 * store keeps epoch and vote and remembers how far its log reached, so the replica is one whose log is cut before its
 * first entry (repair.ts): it is brought on, by log or snapshot, and votes again by itself. Without such a leader (a group
 * of one, a majority in the same state) nothing is dropped.
 */
import { ShardpactError, isShardpactError } from "../model/errors.ts";
import type { LogStore } from "../storage/port.ts";
import type { ApplyLoop } from "./apply-loop.ts";
import type { Driver } from "./driver.ts";
import type { ReadIndex } from "./read-index.ts";
import type { Runtime } from "./runtime.ts";

const ASK_MS_MAX = 1_000;
const PAUSE_MS = 250;
/** A replica that is damaged again so soon has a cause that a fresh copy does not mend. */
const AGAIN_MS_MIN = 3_600_000;

/** When a store was started over, in this process. */
const startedOver = new WeakMap<LogStore, number>();

export interface Tables {
  /** Takes an error of the catalog; true when it says that the tables are damaged. */
  failed(error: unknown): boolean;
  damaged(reason: string): void;
  /** Why nothing may be told from them; null while they are sound. */
  why(): string | null;
}

export interface TablesOptions {
  readonly log: LogStore;
  readonly runtime: Runtime;
  readonly driver: Pick<Driver<never>, "over" | "stopVoting" | "fail">;
  readonly apply: Pick<ApplyLoop, "applied" | "stop">;
  readonly readIndex: Pick<ReadIndex, "fetch">;
}

export function createTables(options: TablesOptions): Tables {
  const { log, runtime, driver, apply, readIndex } = options;
  let why: string | null = null;

  async function takeAnew(reason: string): Promise<void> {
    while (!driver.over()) {
      try {
        const { index } = await readIndex.fetch(ASK_MS_MAX);
        if (index >= apply.applied().index) return await startOver(reason);
      } catch (error) {
        // Its owner has to: it stays as it is, without a vote.
        if (isShardpactError(error, "unauthorized")) return driver.stopVoting(`${reason}; ${error.message}`);
        if (!isShardpactError(error, "unavailable")) return driver.fail(error);
      }
      await new Promise<void>((resolve) => void runtime.after(PAUSE_MS, resolve));
    }
  }

  async function startOver(reason: string): Promise<void> {
    if (driver.over()) return;
    startedOver.set(log, runtime.monotonicMs());
    await log.startOver();
    driver.fail(new ShardpactError("unavailable", `its tables are taken anew from the group: ${reason}`));
  }

  const tables: Tables = {
    failed(error) {
      if (!isShardpactError(error, "damaged")) return false;
      tables.damaged(error.message);
      return true;
    },
    damaged(reason) {
      if (why !== null || driver.over()) return;
      why = reason;
      // What is not applied any more is not lost: the log has it, and so have the others.
      void apply.stop();
      const lastMs = startedOver.get(log) ?? -Infinity;
      const again = runtime.monotonicMs() - lastMs < AGAIN_MS_MIN;
      driver.stopVoting(
        `its tables are damaged${again ? " again, so soon that they are left as they are" : ""}: ${reason}`,
      );
      if (!again) void takeAnew(reason);
    },
    why: () => why,
  };
  return tables;
}
