/**
 * Owns putting a snapshot into Postgres: everything is checked first, then one transaction writes it all.
 *
 * The transaction holds the row of the applied state from its first statement, under its boot: no apply gets in between,
 * and another boot waits until it is over. The log's row is taken only at the end, so votes and terms go on being
 * written while a million rows go in.
 */
import type pg from "pg";
import type { LedgerRow } from "../../catalog/apply.ts";
import type { Row, Table } from "../../catalog/rows.ts";
import type { Entry, EntryKind, LogBase } from "../../consensus/engine.ts";
import { concatBytes } from "../../model/bytes.ts";
import { isShardpactError, type ShardpactError } from "../../model/errors.ts";
import { fencedError, isIntact } from "../log-record.ts";
import type { InstallOptions, SnapshotInfo, SnapshotInstalled } from "../port.ts";
import { checkSnapshot } from "../snapshot/check.ts";
import { assertSameTables } from "../snapshot/diverged.ts";
import { openSnapshot, type SnapshotFile, throwIfAborted } from "../snapshot/file.ts";
import { LEDGER_TABLE, SNAPSHOT_TABLES } from "../snapshot/tables.ts";
import { plainBytes } from "./columns.ts";
import { asUnavailable } from "./failure.ts";
import { closeWriters, connect, LONG_TIMEOUT_MS, type PostgresSession, promiseHash } from "./session.ts";
import { contentOf } from "./snapshot-export.ts";
import { jsonRows, putSql, rowToJson } from "./tables.ts";

interface Install {
  readonly session: PostgresSession;
  readonly client: pg.Client;
  readonly file: SnapshotFile;
  readonly boot: number;
  readonly options: InstallOptions;
}

/** @throws as `CatalogStore.installSnapshot` */
export async function installPostgresSnapshot(
  session: PostgresSession,
  path: string,
  options: InstallOptions,
  chainAt: (index: number) => Promise<string | null>,
): Promise<SnapshotInstalled> {
  if (session.lost) throw session.lost;
  const { boot, applied, identity } = session;
  await using file = await openSnapshot(path, options.files);
  const own = { index: applied.index, chainAt };
  await checkSnapshot(file, { ...options, path, groupId: identity.groupId, own });
  const { info } = file;
  if (info.applied.index <= applied.index)
    return { info, installed: false, base: session.base, lastIndex: session.lastIndex };
  const client = await connect(session, "install", LONG_TIMEOUT_MS);
  try {
    const install: Install = { session, client, file, boot, options };
    await client.query("SET synchronous_commit = on; SET jit = off");
    await client.query("BEGIN");
    await takeApplied(install);
    await putLedger(install, applied.index);
    for (const table of SNAPSHOT_TABLES) if (table !== LEDGER_TABLE) await putTable(install, table);
    if (applied.index > 0) await assertSameTables(info, await contentOf(client), options);
    // In the log's turn: an append that waited starts from where the log then ends.
    return await session.logTurn(() => finish(install));
  } catch (error) {
    const failed = asUnavailable(error, `replica ${identity.replica}: installing a snapshot failed`);
    if (isShardpactError(failed, "fenced")) lose(session, failed);
    throw failed;
  } finally {
    // What was not committed is gone with its connection.
    await client.end().catch(() => undefined);
  }
}

function lose(session: PostgresSession, error: ShardpactError): void {
  session.lost ??= error;
  void closeWriters(session);
}

async function takeApplied({ session, client, boot }: Install): Promise<void> {
  const { identity, applied } = session;
  const taken = await client.query(
    "SELECT FROM shardpact.applied_state WHERE boot = $1 AND applied_index = $2 FOR UPDATE",
    [boot, applied.index],
  );
  if (taken.rowCount !== 1) throw fencedError(identity, boot);
}

/** Between two batches: is there still a reason to go on? */
function goOn({ session, options }: Install): void {
  throwIfAborted(options.signal);
  if (session.lost) throw session.lost;
}

/** Payloads come as one value, cut by their sizes; the rest of the rows is JSON, outcomes included. */
const LEDGER_SQL = `INSERT INTO shardpact.ledger
    (index, epoch, time_ms, kind, actor, command_id, retry_of, body_digest, payload, outcome, chain)
  SELECT l.index, l.epoch, l."timeMs", l.kind, l.actor, l."commandId", l."retryOf", decode(l."bodyDigest", 'hex'),
    substring($2::bytea FROM l.start FOR l.size), l.outcome, decode(l.chain, 'hex')
  FROM json_to_recordset($1::json) AS l (index bigint, epoch bigint, "timeMs" bigint, kind text, actor text,
    "commandId" text, "retryOf" bigint, "bodyDigest" text, outcome json, chain text, start int, size int)`;

/** Only what lies above the ledger that is there. */
async function putLedger(install: Install, after: number): Promise<void> {
  const { client, file, options } = install;
  const rowsTotal = file.info.applied.index;
  for await (const batch of file.rows(LEDGER_TABLE)) {
    goOn(install);
    const rows = (batch as unknown as readonly LedgerRow[]).filter(({ index }) => index > after);
    if (rows.length === 0) continue;
    let start = 1;
    const json = rows.map(({ payload, ...row }) => {
      const place = { start, size: payload.byteLength };
      start += payload.byteLength;
      return { ...row, ...place };
    });
    const payloads = Buffer.from(concatBytes(rows.map(({ payload }) => payload)));
    await client.query({ name: "install_ledger", text: LEDGER_SQL, values: [JSON.stringify(json), payloads] });
    options.onProgress?.({ step: "install", table: "ledger", rows: rows.at(-1)?.index ?? 0, rowsTotal });
  }
}

async function putTable(install: Install, table: (typeof SNAPSHOT_TABLES)[number]): Promise<void> {
  const { client, file, options } = install;
  const rowsTotal = file.info.tables.find(({ name }) => name === table.name)?.rows ?? null;
  const put = putSql(table.table as Table, jsonRows(table.table as Table, 1));
  // A row of history that is there stays; that it is the same is checked when all is put.
  const text = `WITH state AS (SELECT) ${put.includes("ON CONFLICT") ? put : `${put} ON CONFLICT DO NOTHING`}`;
  let rows = 0;
  for await (const batch of file.rows(table)) {
    goOn(install);
    const values = [JSON.stringify(batch.map((row) => rowToJson(row as unknown as Row)))];
    await client.query({ name: `install_${table.name}`, text, values });
    rows += batch.length;
    options.onProgress?.({ step: "install", table: table.name, rows, rowsTotal });
  }
}

/** Applied state and log in the transaction's last statements, then the commit. */
async function finish(install: Install): Promise<SnapshotInstalled> {
  const { session, client, file, boot } = install;
  const { info } = file;
  const { applied, epoch } = info;
  goOn(install);
  await client.query(
    `UPDATE shardpact.applied_state SET applied_index = $1, chain = decode($2, 'hex'),
       state_digest = decode($3, 'hex'), log_time_ms = $4`,
    [applied.index, applied.chain, applied.stateDigest, applied.timeMs],
  );
  const { promises } = session;
  const raised = promises.hardState.epoch < epoch ? { ...promises, hardState: { epoch, votedFor: null } } : promises;
  const { hardState } = raised;
  const state = await client.query<{ lastIndex: number; firstIndex: number; baseEpoch: number }>(
    `UPDATE shardpact.replica_state SET epoch = $2, voted_for = $3, state_hash = $4 WHERE boot = $1
     RETURNING last_index AS "lastIndex", first_index AS "firstIndex", base_epoch AS "baseEpoch"`,
    [boot, hardState.epoch, hardState.votedFor, promiseHash(raised, session.lastIndex)],
  );
  const before = state.rows[0];
  if (!before) throw fencedError(session.identity, boot);
  let base: LogBase = { index: before.firstIndex - 1, epoch: before.baseEpoch };
  let lastIndex = before.lastIndex;
  const keeps = await tailToKeep(session, client, info, lastIndex);
  const lost = keeps === "unknown" ? `entry ${applied.index}, where an installed snapshot ends, was damaged` : null;
  const kept = lost === null ? raised : { ...raised, voting: false };
  if (keeps !== "all") {
    base = { index: applied.index, epoch };
    // Of Multi-Paxos nothing above may go: it was accepted, and may be chosen.
    lastIndex = keeps === "above" ? Math.max(lastIndex, applied.index) : applied.index;
    await client.query("DELETE FROM shardpact.log WHERE index <= $1 OR index > $2", [applied.index, lastIndex]);
    await client.query(
      `UPDATE shardpact.replica_state SET first_index = $1 + 1, base_epoch = $2, last_index = $3, state_hash = $4,
         last_hash = (SELECT checksum FROM shardpact.log WHERE index = $3), voting = $5,
         lost_reason = coalesce(lost_reason, $6)`,
      [base.index, base.epoch, lastIndex, promiseHash(kept, lastIndex), kept.voting, lost],
    );
  }
  try {
    await client.query("COMMIT");
  } catch (error) {
    // It may have happened: only the next boot knows.
    const unknown = asUnavailable(error, `replica ${session.identity.replica}: installing a snapshot failed`);
    lose(session, unknown);
    throw unknown;
  }
  session.applied = applied;
  session.promises = kept;
  session.lastIndex = lastIndex;
  session.base = base;
  return { info, installed: true, base, lastIndex };
}

/**
 * What of the log follows the snapshot: a Raft log that holds its last entry does, another does not. Unknown when that
 * entry is damaged: what follows may have been promised, so the vote goes with it.
 */
async function tailToKeep(
  { identity }: PostgresSession,
  client: pg.Client,
  { applied: { index }, epoch }: SnapshotInfo,
  lastIndex: number,
): Promise<"all" | "above" | "nothing" | "unknown"> {
  if (identity.engine === "paxos") return "above";
  if (index > lastIndex) return "nothing";
  const torn = index === lastIndex ? "nothing" : "unknown";
  const found = await client.query<{ epoch: number; kind: EntryKind; payload: Buffer; checksum: Buffer }>(
    "SELECT epoch, kind, payload, checksum FROM shardpact.log WHERE index = $1",
    [index],
  );
  const row = found.rows[0];
  if (!row) return torn;
  const entry: Entry = { index, epoch: row.epoch, kind: row.kind, payload: plainBytes(row.payload) };
  if (!isIntact(entry, row.checksum)) return torn;
  return row.epoch === epoch ? "all" : "nothing";
}
