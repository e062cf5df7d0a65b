/**
 * Owns taking a snapshot out of Postgres: one read-only MVCC snapshot for as long as the file is written, no longer.
 *
 * It needs no boot and takes nobody's place: a backup reads beside the running replica.
 */
import type pg from "pg";
import type { AppliedState } from "../../catalog/apply.ts";
import { PRIMARY_KEYS, type Table } from "../../catalog/rows.ts";
import { isShardpactError, ShardpactError } from "../../model/errors.ts";
import type { SnapshotInfo, SnapshotOptions } from "../port.ts";
import type { SnapshotTable } from "../snapshot/tables.ts";
import { throwIfAborted } from "../snapshot/file.ts";
import { type SnapshotContent, writeSnapshot } from "../snapshot/write.ts";
import { plainBytes } from "./columns.ts";
import { asUnavailable } from "./failure.ts";
import { connect, LONG_TIMEOUT_MS } from "./session.ts";
import { columnSql, rowFromJson, tableSql } from "./tables.ts";

/** Of rows of bounded size; pages, receipts and runs may take 256 KiB each. */
const FETCH_ROWS = 2_048;
const FETCH_LARGE_ROWS = 32;
const LARGE: ReadonlySet<Table> = new Set(["page", "receipt", "run"]);
const LEDGER_ROWS = 4_096;
const LEDGER_BYTES = 4 * 1024 * 1024;

/**
 * Writes the snapshot of a replica's database to a new file.
 * @throws ShardpactError as `CatalogStore.exportSnapshot`; `not_found` when the database holds no replica
 */
export async function exportPostgresSnapshot(
  { url, replica = "backup" }: { readonly url: string; readonly replica?: string },
  path: string,
  options: SnapshotOptions = {},
): Promise<SnapshotInfo> {
  throwIfAborted(options.signal);
  const identity = { groupId: "", replica, engine: "raft" as const };
  const client = await connect({ url, identity }, "snapshot", LONG_TIMEOUT_MS);
  try {
    await client.query("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY");
    return await writeSnapshot(path, await contentOf(client), options);
  } catch (error) {
    throw isShardpactError(error) ? error : asUnavailable(error, "taking a snapshot of the database failed");
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** What the client's transaction sees. */
export async function contentOf(client: pg.Client): Promise<SnapshotContent> {
  const groupId = await readGroup(client);
  const { epoch, ...applied } = await readApplied(client);
  const configurations = await client.query<{ payload: Buffer }>(
    "SELECT payload FROM shardpact.ledger WHERE kind = 'config' ORDER BY index",
  );
  return {
    groupId,
    applied,
    epoch,
    configurations: configurations.rows.map(({ payload }) => plainBytes(payload)),
    rows: ({ table }: SnapshotTable) => (table === "ledger" ? ledgerRows(client) : tableRows(client, table)),
  };
}

async function readGroup(client: pg.Client): Promise<string> {
  const nothing = new ShardpactError("not_found", "the database holds no replica", {
    hint: "Give the URL of a replica's own database.",
  });
  const there = await client.query<{ there: boolean }>(
    "SELECT to_regclass('shardpact.replica_state') IS NOT NULL AS there",
  );
  if (there.rows[0]?.there !== true) throw nothing;
  const found = await client.query<{ id: string }>("SELECT group_id AS id FROM shardpact.replica_state");
  if (!found.rows[0]) throw nothing;
  return found.rows[0].id;
}

async function readApplied(client: pg.Client): Promise<AppliedState & { readonly epoch: number }> {
  const found = await client.query<AppliedState & { readonly epoch: number }>(
    `SELECT s.applied_index AS index, encode(s.chain, 'hex') AS chain, encode(s.state_digest, 'hex') AS "stateDigest",
       s.log_time_ms AS "timeMs", coalesce(l.epoch, 0) AS epoch
     FROM shardpact.applied_state s LEFT JOIN shardpact.ledger l ON l.index = s.applied_index`,
  );
  const row = found.rows[0];
  if (!row) throw new ShardpactError("not_found", "the database holds no replica that has started once");
  return row;
}

/** Bounded in rows and in bytes: a thousand pages in a row are a quarter of a gigabyte. */
async function* ledgerRows(client: pg.Client): AsyncGenerator<readonly object[]> {
  for (let after = 0; ;) {
    const found = await client.query<{ index: number; payload: Buffer }>({
      name: "snapshot_ledger",
      text: `SELECT index, epoch, time_ms AS "timeMs", kind, actor, command_id AS "commandId", retry_of AS "retryOf",
          encode(body_digest, 'hex') AS "bodyDigest", payload, outcome, encode(chain, 'hex') AS chain
        FROM (
          SELECT *, sum(octet_length(payload)) OVER (ORDER BY index) AS total FROM (
            SELECT * FROM shardpact.ledger WHERE index > $1 ORDER BY index LIMIT ${LEDGER_ROWS}
          ) AS bounded
        ) AS summed WHERE total <= ${LEDGER_BYTES} OR index = $1 + 1 ORDER BY index`,
      values: [after],
    });
    const last = found.rows.at(-1);
    if (!last) return;
    yield found.rows.map((row) => ({ ...row, payload: plainBytes(row.payload) }));
    after = last.index;
  }
}

async function* tableRows(client: pg.Client, table: Table): AsyncGenerator<readonly object[]> {
  const order = PRIMARY_KEYS[table].map((field) => columnSql(table, field)).join(", ");
  const rows = LARGE.has(table) ? FETCH_LARGE_ROWS : FETCH_ROWS;
  await client.query(
    `DECLARE snapshot_rows NO SCROLL CURSOR FOR SELECT to_json(t) AS row FROM ${tableSql(table)} t ORDER BY ${order}`,
  );
  for (;;) {
    const found = await client.query<{ row: Readonly<Record<string, unknown>> }>(`FETCH ${rows} FROM snapshot_rows`);
    if (found.rows.length === 0) break;
    yield found.rows.map(({ row }) => rowFromJson(table, row));
  }
  await client.query("CLOSE snapshot_rows");
}
