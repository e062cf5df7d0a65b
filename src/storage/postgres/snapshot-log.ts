/**
 * Owns the log's lower end in Postgres: dropping entries that a snapshot makes needless.
 *
 * Applies commit asynchronously, in the same write-ahead log: the synchronous commit here, which comes after them, makes
 * durable every apply that its transaction saw. So no entry is gone before its effect is on the disk.
 */
import type { LogBase, LogIndex } from "../../consensus/engine.ts";
import { assertCompactable, assertResettable, fencedError } from "../log-record.ts";
import { type PostgresSession, promiseHash, runWrite } from "./session.ts";

/** Entries of one statement: it must end well within its timeout, and appends get in between. */
const STEP_ENTRIES = 8_192;

const COMPACT_SQL = `WITH state AS (
    UPDATE shardpact.replica_state SET first_index = $2::bigint + 1,
      base_epoch = (SELECT epoch FROM shardpact.ledger WHERE index = $2::bigint)
    WHERE boot = $1::bigint AND (SELECT applied_index FROM shardpact.applied_state) >= $2::bigint
    RETURNING base_epoch
  ), removed AS (DELETE FROM shardpact.log WHERE index <= $2::bigint AND EXISTS (SELECT FROM state))
  SELECT base_epoch AS epoch FROM state`;

export async function compactLog(session: PostgresSession, index: LogIndex): Promise<void> {
  assertCompactable(session.identity, index, session.applied.index);
  while (session.base.index < index) await session.logTurn(() => compactStep(session, index));
}

async function compactStep(session: PostgresSession, index: LogIndex): Promise<void> {
  const to = Math.min(index, session.base.index + STEP_ENTRIES);
  if (to <= session.base.index) return;
  await runWrite(session, "log", `compacting the log to ${to}`, async (client) => {
    const result = await client.query<{ epoch: number }>({
      name: "log_compact",
      text: COMPACT_SQL,
      values: [session.boot, to],
    });
    const row = result.rows[0];
    if (!row) throw fencedError(session.identity, session.boot);
    session.base = { index: to, epoch: row.epoch };
  });
}

const RESET_SQL = `WITH state AS (
    UPDATE shardpact.replica_state SET first_index = $2::bigint + 1, base_epoch = $3::bigint, last_index = $2::bigint,
      last_hash = NULL, state_hash = $4::bytea
    WHERE boot = $1::bigint AND (SELECT applied_index FROM shardpact.applied_state) = $2::bigint RETURNING 1
  ), removed AS (DELETE FROM shardpact.log WHERE EXISTS (SELECT FROM state))
  SELECT count(*) AS held FROM state`;

export async function resetLog(session: PostgresSession, position: LogBase): Promise<void> {
  assertResettable(session.identity, position, session.applied.index);
  // What is applied goes in steps; above it there is little.
  await compactLog(session, position.index);
  await session.logTurn(() =>
    runWrite(session, "log", `resetting the log to ${position.index}`, async (client) => {
      const hash = promiseHash(session.promises, position.index);
      const values = [session.boot, position.index, position.epoch, hash];
      const result = await client.query<{ held: number }>({ name: "log_reset", text: RESET_SQL, values });
      if (result.rows[0]?.held !== 1) throw fencedError(session.identity, session.boot);
      session.base = position;
      session.lastIndex = position.index;
    }),
  );
}
