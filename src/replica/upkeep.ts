/**
 * Owns what a session does beside agreeing: it keeps the log short, and brings followers that need what is gone a snapshot.
 */
import type { EngineEvent, EngineStatus, Entry, LogIndex, ReplicaId } from "../consensus/engine.ts";
import type { LogState } from "../storage/port.ts";
import type { ApplyLoop } from "./apply-loop.ts";
import { createCompaction } from "./compaction.ts";
import type { SessionContext } from "./context.ts";
import { createSnapshotSender, type SenderOptions } from "./snapshot-sender.ts";

const LOOK_EVERY_MS = 1_000;

export interface Upkeep {
  wrote(put: readonly Entry[]): void;
  applied(): void;
  sendSnapshot(to: ReplicaId, indexMin: LogIndex): void;
  status(status: EngineStatus): void;
  stop(): Promise<void>;
}

export interface UpkeepOptions<M> {
  readonly context: SessionContext<M>;
  readonly start: LogState;
  readonly apply: ApplyLoop;
  feed(event: Extract<EngineEvent<M>, { kind: "compacted" | "snapshot_sent" | "snapshot_failed" }>): void;
  over(): boolean;
  fail(error: unknown): void;
  readonly onStep: SenderOptions["onStep"];
}

export function createUpkeep<M>(options: UpkeepOptions<M>): Upkeep {
  const { context, start, apply, feed } = options;
  const { config, identity, transport, bulk, spool, stores, runtime } = context;
  const compaction = createCompaction({
    log: stores.log,
    base: start.base,
    tuning: config.log,
    applied: () => apply.applied().index,
    epochAt: (index) => apply.chosenEpochAt(index),
    heldAt: () => spool.heldAt(),
    monotonicMs: () => runtime.monotonicMs(),
    after: (ms, fn) => runtime.after(ms, fn),
    onCompact: (index, epoch) => feed({ kind: "compacted", index, epoch }),
    onFailure: (error) => options.fail(error),
  });
  const sender = createSnapshotSender({
    ...{ group: config.genesis.name, groupId: identity.groupId, replica: config.replica },
    ...{ transport, bulk, spool, runtime },
    onSent: (to, index) => feed({ kind: "snapshot_sent", to, index }),
    onFailed: (to) => feed({ kind: "snapshot_failed", to }),
    onStep: options.onStep,
  });

  // Also what nobody applies anything after: a snapshot may have held the log, and does so no more.
  const cancelLook = runtime.every(LOOK_EVERY_MS, () => compaction.poke());

  return {
    wrote: (put) => compaction.wrote(put),
    applied: () => compaction.poke(),
    sendSnapshot(to, indexMin) {
      if (!options.over()) sender.start(to, indexMin);
    },
    status({ role }) {
      if (role !== "leader") sender.endAll();
    },
    async stop() {
      cancelLook();
      sender.stop();
      await compaction.stop();
    },
  };
}
