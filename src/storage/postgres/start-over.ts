/**
 * Owns dropping all that a database holds of the group's history, for a replica that takes it anew from the others.
 *
 * History is append-only by trigger; whoever owns the tables may lift that within a transaction, and only here is it done.
 */
import { APPLIED_ZERO } from "../../catalog/apply.ts";
import { ShardpactError } from "../../model/errors.ts";
import { fencedError } from "../log-record.ts";
import { type PostgresSession, promiseHash, runWrite } from "./session.ts";
import { TABLES, tableSql } from "./tables.ts";
import type { Table } from "../../catalog/rows.ts";

/** As in `migrations/0001_audit.sql`. */
const APPEND_ONLY = ["ledger", "versions", "shards", "tag_moves", "run_epochs", "receipts", "revocations"].map(
  (name) => `shardpact.${name}`,
);

export async function startOver(session: PostgresSession): Promise<void> {
  const { identity, boot } = session;
  const promisedLast = Math.max(session.promises.promisedLast ?? 0, session.lastIndex);
  const promises = { ...session.promises, promisedLast };
  const tables = ["shardpact.ledger", ...(Object.keys(TABLES) as Table[]).map(tableSql)];
  await assertOwner(session);
  await runWrite(session, "log", "starting over", async (client) => {
    await client.query("BEGIN");
    const held = await client.query(
      `UPDATE shardpact.replica_state SET first_index = 1, base_epoch = 0, last_index = 0, last_hash = NULL,
         promised_last = $2, state_hash = $3 WHERE boot = $1`,
      [boot, promisedLast, promiseHash(promises, 0)],
    );
    if (held.rowCount !== 1) throw fencedError(identity, boot);
    for (const table of APPEND_ONLY) await client.query(`ALTER TABLE ${table} DISABLE TRIGGER append_only`);
    await client.query(`TRUNCATE ${tables.join(", ")}, shardpact.log`);
    for (const table of APPEND_ONLY) await client.query(`ALTER TABLE ${table} ENABLE ALWAYS TRIGGER append_only`);
    await client.query(
      `UPDATE shardpact.applied_state SET applied_index = 0, chain = decode($1, 'hex'), state_digest = decode($2, 'hex'),
         log_time_ms = 0`,
      [APPLIED_ZERO.chain, APPLIED_ZERO.stateDigest],
    );
    await client.query("COMMIT");
  });
  session.promises = promises;
  session.lastIndex = 0;
  session.base = { index: 0, epoch: 0 };
  session.applied = APPLIED_ZERO;
}

/** @throws ShardpactError `unauthorized`: before anything is touched */
async function assertOwner({ pool, identity }: PostgresSession): Promise<void> {
  const { rows } = await pool.query<{ owner: boolean }>(
    "SELECT pg_has_role(relowner, 'MEMBER') AS owner FROM pg_class WHERE oid = 'shardpact.ledger'::regclass",
  );
  if (rows[0]?.owner === true) return;
  throw new ShardpactError("unauthorized", `replica ${identity.replica}: its role does not own its tables`, {
    hint: "Give the replica a database of its own anew, as a new replica, or start it once as the owner of the tables.",
  });
}
