/**
 * Owns what a session does about damage of its own store: a log that is to be mended, tables that are to be taken anew,
 * and comparing with the others what the log came to.
 */
import type { AppliedState } from "../catalog/apply.ts";
import { ShardpactError, isShardpactError } from "../model/errors.ts";
import type { LogState } from "../storage/port.ts";
import type { ApplyLoop } from "./apply-loop.ts";
import type { SessionContext } from "./context.ts";
import type { Driver } from "./driver.ts";
import type { Peers } from "./peers.ts";
import type { PersistQueue } from "./persist-queue.ts";
import type { ReadIndex } from "./read-index.ts";
import { createRepair, logIsDamaged, whyTablesDamaged } from "./repair.ts";
import { createTables } from "./start-over.ts";
import { createStateDigests } from "./state-digests.ts";

export interface Health {
  /** Begins with what the boot found. */
  begin(): void;
  tick(): void;
  applied(state: AppliedState): void;
  digest(from: string, body: Uint8Array): void;
  /** An apply or a `load` failed. Damaged is not absent: what is damaged is mended or taken anew, and does not vote meanwhile. */
  failed(error: unknown): void;
  /** A peer knows of a promise that this database has lost: it never votes again. */
  lost(reason: string): void;
  /** A read of the catalog failed. */
  readFailed(error: unknown): void;
  /** @throws ShardpactError `unavailable`: nothing is told from damaged tables */
  assertSound(): void;
}

export interface HealthOptions<M> {
  readonly context: SessionContext<M>;
  readonly start: LogState;
  readonly driver: Driver<M>;
  readonly disk: PersistQueue;
  readonly apply: ApplyLoop;
  readonly readIndex: ReadIndex;
  readonly peers: Peers;
}

export function createHealth<M>(options: HealthOptions<M>): Health {
  const { context, start, driver, disk, apply, readIndex, peers } = options;
  const { config, runtime, stores } = context;
  const { log } = stores;
  const tellAll = (kind: "digest" | "hello", body: Uint8Array): void => {
    const { voters, votersOutgoing, learners } = driver.status().configuration;
    for (const id of new Set([...voters, ...votersOutgoing, ...learners]))
      if (id !== config.replica) peers.send(kind, id, body);
  };
  const announce = (): void => tellAll("hello", new Uint8Array(0));
  const repair = createRepair({ start, log, driver, disk, readIndex, announce });
  const tables = createTables({ log, runtime, driver, apply, readIndex });
  const digests = createStateDigests({
    self: config.replica,
    voters() {
      const { voters, votersOutgoing } = driver.status().configuration;
      return [...new Set([...voters, ...votersOutgoing])];
    },
    tell: (body) => tellAll("digest", body),
    onMinority: (reason) => tables.damaged(reason),
  });
  return {
    begin() {
      const reason = whyTablesDamaged(start);
      if (reason !== null) tables.damaged(reason);
    },
    tick: () => repair.tick(),
    applied: (state) => digests.applied(state),
    digest: (from, body) => digests.receive(from, body),
    failed(error) {
      if (logIsDamaged(error) || !tables.failed(error)) driver.fail(error);
    },
    lost(reason) {
      driver.stopVoting(reason);
      log.loseVote(reason).catch((error: unknown) => driver.fail(error));
    },
    readFailed(error) {
      if (!tables.failed(error) && isShardpactError(error, "fenced")) driver.fail(error);
    },
    assertSound() {
      const why = tables.why();
      if (why === null) return;
      throw new ShardpactError("unavailable", `this replica's tables are damaged: ${why}`, {
        hint: "Ask another replica; this one takes its tables anew from the group.",
      });
    },
  };
}
