/**
 * Owns the catalog in Postgres: load what a batch needs, let the pure state machine decide, write what it says.
 */
import {
  type AppliedEntry,
  type AppliedState,
  applyBatch,
  type BatchOutput,
  needsOfBatch,
  type RecordedOutcome,
} from "../../catalog/apply.ts";
import type { Need } from "../../catalog/rows.ts";
import type { Entry } from "../../consensus/engine.ts";
import { invariant } from "../../model/errors.ts";
import { fencedError } from "../log-record.ts";
import type { CatalogStore } from "../port.ts";
import { loadBatch, type Loaded } from "./catalog-load.ts";
import { createCatalogReader } from "./catalog-query.ts";
import { writeBatch } from "./catalog-write.ts";
import { createFence } from "./fence.ts";
import { createRowCache, type RowCache } from "./row-cache.ts";
import { closeSession, type PostgresSession, runRead, runWrite } from "./session.ts";
import { exportPostgresSnapshot } from "./snapshot-export.ts";
import { installPostgresSnapshot } from "./snapshot-install.ts";

export function createPostgresCatalogStore(session: PostgresSession): CatalogStore {
  const reader = createCatalogReader(session.pool);
  const fence = createFence(session);
  const close = () => closeSession(session);
  const memory: Memory = { cache: createRowCache(), state: null };
  /** Applies follow each other: each starts from the state that the one before left. */
  let tail: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const turn = tail.then(work);
    tail = turn.catch(() => undefined);
    return turn;
  };
  const chainAt = (index: number) => runRead(session, `reading the chain at ${index}`, () => reader.chainAt(index));
  return {
    apply: (entries) => inTurn(() => applyAll(session, memory, entries)),
    applied: () => session.applied,
    query: (query, asOf) =>
      runRead(session, `answering ${query.kind}`, () =>
        fence.held(
          (witness) => reader.query(query, asOf ?? session.applied.index, witness),
          query.kind === "resolve" || query.kind === "object",
        ),
      ),
    outcome: (commandId) => runRead(session, `reading the outcome of ${commandId}`, () => reader.outcome(commandId)),
    chainAt,
    exportSnapshot: (path, options) =>
      runRead(session, "taking a snapshot", () =>
        exportPostgresSnapshot({ url: session.url, replica: session.identity.replica }, path, options),
      ),
    installSnapshot: (path, options = {}) =>
      inTurn(() =>
        installPostgresSnapshot(session, path, options, chainAt).finally(() => {
          memory.cache.clear();
        }),
      ),
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Payload bytes of one transaction: a follower that catches up on pages must not outlast the statement timeout. */
const TRANSACTION_BYTES_MAX = 4 * 1024 * 1024;

async function applyAll(
  session: PostgresSession,
  memory: Memory,
  entries: readonly Entry[],
): Promise<readonly AppliedEntry[]> {
  if (session.lost) throw session.lost;
  const batches = cutBatches(entries);
  // An entry that this build does not know must be found before anything of the call is applied.
  if (batches.length > 1) needsOfBatch(entries);
  const applied: AppliedEntry[] = [];
  for (const batch of batches) applied.push(...(await apply(session, memory, batch)));
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

/** What is remembered of the tables, and after which apply it was true; a boot or anything else sets another state. */
interface Memory {
  readonly cache: RowCache;
  state: AppliedState | null;
}

async function apply(
  session: PostgresSession,
  memory: Memory,
  entries: readonly Entry[],
): Promise<readonly AppliedEntry[]> {
  const { cache } = memory;
  if (memory.state !== session.applied) cache.clear();
  const { needs, commandIds } = needsOfBatch(entries);
  const doing = `applying ${entries.length} entries after ${session.applied.index}`;
  const before = session.applied;
  const decided = async (sure: boolean): Promise<BatchOutput> => {
    const { rows, outcomes } = await gather(session, cache, needs, commandIds, { sure, doing });
    // A throw here writes nothing and leaves the session as it is.
    return applyBatch({ entries, state: before, rows, outcomes });
  };
  const write = (batch: BatchOutput) =>
    runWrite(session, "apply", doing, (client) => writeBatch(client, session, before, batch));
  try {
    let batch = await decided(false);
    let written = await write(batch);
    if (written === "command_id_taken") {
      // Commands are taken for new unless it is known better; the ledger's unique ids say when one was not.
      batch = await decided(true);
      written = await write(batch);
    }
    invariant(written !== "command_id_taken", "the first use of every command id is looked up");
    if (written === "fenced") throw fencedError(session.identity, session.boot);
    session.applied = batch.state;
    memory.state = batch.state;
    cache.wrote(batch);
    return batch.applied;
  } catch (error) {
    cache.clear();
    throw error;
  }
}

/** Rows from memory and, in one round trip, those that are missing. With `sure`, every command id is looked up. */
async function gather(
  session: PostgresSession,
  cache: RowCache,
  needs: readonly Need[],
  commandIds: readonly string[],
  { sure, doing }: { readonly sure: boolean; readonly doing: string },
): Promise<Loaded> {
  const { rows, missing } = cache.find(needs);
  const outcomes = new Map<string, RecordedOutcome>();
  for (const id of commandIds) {
    const known = cache.outcome(id);
    if (known) outcomes.set(id, known);
  }
  if (missing.length === 0 && !sure) return { rows, outcomes };
  const ids = commandIds.filter((id) => !outcomes.has(id));
  const loaded = await runWrite(session, "apply", doing, (client) => loadBatch(client, missing, ids));
  cache.learn(missing, loaded.rows);
  for (const [id, outcome] of loaded.outcomes) outcomes.set(id, outcome);
  return { rows: [...rows, ...loaded.rows], outcomes };
}
