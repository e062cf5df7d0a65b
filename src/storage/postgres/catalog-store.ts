/**
 * Owns the catalog in Postgres: load what a batch needs, let the pure state machine decide, write what it says.
 */
import { type AppliedEntry, applyBatch, needsOfBatch } from "../../catalog/apply.ts";
import type { Entry } from "../../consensus/engine.ts";
import { fencedError } from "../log-record.ts";
import type { CatalogStore } from "../port.ts";
import { loadBatch } from "./catalog-load.ts";
import { createCatalogReader } from "./catalog-query.ts";
import { writeBatch } from "./catalog-write.ts";
import { createFence } from "./fence.ts";
import { closeSession, type PostgresSession, runRead, runWrite } from "./session.ts";

export function createPostgresCatalogStore(session: PostgresSession): CatalogStore {
  const reader = createCatalogReader(session.pool);
  const fence = createFence(session);
  const close = () => closeSession(session);
  /** Applies follow each other: each starts from the state that the one before left. */
  let tail: Promise<unknown> = Promise.resolve();
  return {
    apply: (entries) => {
      const turn = tail.then(() => applyAll(session, entries));
      tail = turn.catch(() => undefined);
      return turn;
    },
    applied: () => session.applied,
    query: (query, asOf) =>
      runRead(session, `answering ${query.kind}`, () =>
        fence.held(() => reader.query(query, asOf ?? session.applied.index)),
      ),
    outcome: (commandId) => runRead(session, `reading the outcome of ${commandId}`, () => reader.outcome(commandId)),
    chainAt: (index) => runRead(session, `reading the chain at ${index}`, () => reader.chainAt(index)),
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Payload bytes of one transaction: a follower that catches up on pages must not outlast the statement timeout. */
const TRANSACTION_BYTES_MAX = 4 * 1024 * 1024;

async function applyAll(session: PostgresSession, entries: readonly Entry[]): Promise<readonly AppliedEntry[]> {
  if (session.lost) throw session.lost;
  const batches = cutBatches(entries);
  // An entry that this build does not know must be found before anything of the call is applied.
  if (batches.length > 1) needsOfBatch(entries);
  const applied: AppliedEntry[] = [];
  for (const batch of batches) applied.push(...(await apply(session, batch)));
  return applied;
}

function cutBatches(entries: readonly Entry[]): readonly (readonly Entry[])[] {
  const batches: Entry[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const entry of entries) {
    bytes += entry.payload.byteLength;
    if (bytes > TRANSACTION_BYTES_MAX) {
      batches.push([]);
      bytes = entry.payload.byteLength;
    }
    batches.at(-1)?.push(entry);
  }
  return batches;
}

async function apply(session: PostgresSession, entries: readonly Entry[]): Promise<readonly AppliedEntry[]> {
  const { needs, commandIds } = needsOfBatch(entries);
  const doing = `applying ${entries.length} entries after ${session.applied.index}`;
  const { rows, outcomes } = await runWrite(session, "apply", doing, (client) => loadBatch(client, needs, commandIds));
  const before = session.applied;
  // A throw here writes nothing and leaves the session as it is.
  const batch = applyBatch({ entries, state: before, rows, outcomes });
  await runWrite(session, "apply", doing, async (client) => {
    if (!(await writeBatch(client, session.boot, before, batch))) throw fencedError(session.identity, session.boot);
  });
  session.applied = batch.state;
  return batch.applied;
}
