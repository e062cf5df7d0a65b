/**
 * Owns taking applied log entries out of the ledger again, and ending a log's damage, in Postgres.
 */
import type pg from "pg";
import type { LedgerRow } from "../../catalog/apply.ts";
import type { Entry, LogIndex } from "../../consensus/engine.ts";
import { entryOfLedger, unprovenEntries } from "../log-damage.ts";
import { checksumOf, fencedError } from "../log-record.ts";
import { plainBytes } from "./columns.ts";
import { type PostgresSession, promiseHash, runWrite } from "./session.ts";

interface ChainedRow extends Omit<LedgerRow, "payload"> {
  readonly payload: Buffer;
  readonly before: string | null;
}

/** The entries as the ledger has them, and the indexes for which its chain proves nothing. */
export async function ledgerEntries(
  client: pg.Client,
  indexes: readonly LogIndex[],
): Promise<{ proven: readonly Entry[]; unproven: readonly LogIndex[] }> {
  if (indexes.length === 0) return { proven: [], unproven: [] };
  const { rows } = await client.query<ChainedRow>(
    `SELECT l.index, l.epoch, l.kind, l.payload, encode(l.chain, 'hex') AS chain, encode(b.chain, 'hex') AS before
     FROM shardpact.ledger l LEFT JOIN shardpact.ledger b ON b.index = l.index - 1
     WHERE l.index = ANY ($1::bigint[]) ORDER BY l.index`,
    [indexes],
  );
  const proven = rows.flatMap((row) => entryOfLedger({ ...row, payload: plainBytes(row.payload) }, row.before) ?? []);
  const found = new Set(proven.map(({ index }) => index));
  return { proven, unproven: indexes.filter((index) => !found.has(index)) };
}

/** Puts entries in place of what stands there. */
export async function putEntries(client: pg.Client, entries: readonly Entry[]): Promise<void> {
  for (const entry of entries) {
    await client.query({
      name: "log_mend",
      text: `INSERT INTO shardpact.log (index, epoch, kind, payload, checksum) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (index) DO UPDATE SET epoch = excluded.epoch, kind = excluded.kind, payload = excluded.payload,
          checksum = excluded.checksum`,
      values: [entry.index, entry.epoch, entry.kind, Buffer.from(entry.payload), Buffer.from(checksumOf(entry))],
    });
  }
}

/** As `LogStore.rebuild`. */
export async function rebuildEntries(session: PostgresSession, indexes: readonly LogIndex[]): Promise<void> {
  const unproven = await runWrite(session, "log", "rebuilding log entries", (client) =>
    inTransaction(client, async () => {
      await hold(client, session);
      const found = await ledgerEntries(client, indexes);
      if (found.unproven.length === 0) await putEntries(client, found.proven);
      return found.unproven;
    }),
  );
  if (unproven.length > 0) throw unprovenEntries(session.identity.replica, unproven);
}

/** As `LogStore.mended`. */
export async function endDamage(session: PostgresSession): Promise<void> {
  const promises = { ...session.promises, promisedLast: null };
  await runWrite(session, "log", "ending the log's damage", (client) =>
    inTransaction(client, async () => {
      await hold(client, session);
      await client.query("DELETE FROM shardpact.log WHERE index > $1", [session.lastIndex]);
      await client.query("UPDATE shardpact.replica_state SET promised_last = NULL, state_hash = $1", [
        promiseHash(promises, session.lastIndex),
      ]);
    }),
  );
  session.promises = promises;
}

/** Takes the row of promises, under this boot. */
async function hold(client: pg.Client, { identity, boot }: PostgresSession): Promise<void> {
  const held = await client.query("SELECT FROM shardpact.replica_state WHERE boot = $1 FOR UPDATE", [boot]);
  if (held.rowCount !== 1) throw fencedError(identity, boot);
}

async function inTransaction<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query("BEGIN");
  const result = await work();
  await client.query("COMMIT");
  return result;
}
