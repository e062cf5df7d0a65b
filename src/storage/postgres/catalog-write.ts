/**
 * Owns how an applied batch is written: rows, ledger and applied state in one statement, which is one transaction.
 *
 * The statement first moves the applied state under `WHERE boot = …`; every other part writes only if that found its
 * row. It commits asynchronously (set on the connection): what a crash takes away, the log gives back.
 */
import type pg from "pg";
import type { AppliedState, BatchOutput, LedgerRow } from "../../catalog/apply.ts";
import { type Change, PRIMARY_KEYS, type Table } from "../../catalog/rows.ts";
import { concatBytes } from "../../model/bytes.ts";
import { putSql, rowToJson } from "./tables.ts";

const STATE_SQL = `WITH state AS (
  UPDATE shardpact.applied_state SET applied_index = $3::bigint, chain = decode($4::text, 'hex'),
    state_digest = decode($5::text, 'hex'), log_time_ms = $6::bigint
  WHERE boot = $1::bigint AND applied_index = $2::bigint RETURNING 1
)`;

/** Payloads come as one value, cut by their sizes; the rest of the rows is JSON, outcomes included. */
const LEDGER_SQL = `, ledger_rows AS (
  INSERT INTO shardpact.ledger
    (index, epoch, time_ms, kind, actor, command_id, retry_of, body_digest, payload, outcome, chain)
  SELECT l.index, l.epoch, l.time_ms, l.kind, l.actor, l.command_id, l.retry_of, decode(l.body_digest, 'hex'),
    substring($8::bytea FROM l.start FOR l.size), l.outcome::json, decode(l.chain, 'hex')
  FROM json_to_recordset($7::json) AS l (index bigint, epoch bigint, time_ms bigint, kind text, actor text,
    command_id text, retry_of bigint, body_digest text, outcome text, chain text, start int, size int)
  WHERE EXISTS (SELECT FROM state)
)`;
const FIRST_TABLE_PARAMETER = 9;
/** Names of statements hold tables by number: Postgres cuts them at 63 bytes, and two cut alike would clash. */
const TABLE_ORDER = Object.keys(PRIMARY_KEYS) as Table[];

/** `fenced`: another boot holds the database, or it is not at `before`. Then, and with a taken id, nothing is written. */
export type Written = "written" | "fenced" | "command_id_taken";

export async function writeBatch(
  client: pg.Client,
  boot: number,
  before: AppliedState,
  { state, changes, ledger }: BatchOutput,
): Promise<Written> {
  const byTable = groupByTable(changes);
  const tables = [...byTable.keys()].toSorted();
  const puts = tables.map((table, i) => `, put_${table} AS (${putSql(table, FIRST_TABLE_PARAMETER + i)})`);
  const query = client.query<{ held: number }>({
    name: `catalog_write ${tables.map((table) => TABLE_ORDER.indexOf(table)).join(" ")}`,
    text: `${STATE_SQL}${LEDGER_SQL}${puts.join("")} SELECT count(*) AS held FROM state`,
    values: [
      boot,
      before.index,
      state.index,
      state.chain,
      state.stateDigest,
      state.timeMs,
      JSON.stringify(ledgerJson(ledger)),
      Buffer.from(concatBytes(ledger.map((row) => row.payload))),
      ...tables.map((table) => JSON.stringify(byTable.get(table))),
    ],
  });
  try {
    return (await query).rows[0]?.held === 1 ? "written" : "fenced";
  } catch (error) {
    if (isCommandIdTaken(error)) return "command_id_taken";
    throw error;
  }
}

function isCommandIdTaken(error: unknown): boolean {
  const { code, constraint } = error as { code?: string; constraint?: string };
  return code === "23505" && constraint === "ledger_command_id";
}

function groupByTable(changes: readonly Change[]): Map<Table, unknown[]> {
  const byTable = new Map<Table, unknown[]>();
  for (const { row } of changes) {
    const rows = byTable.get(row.table);
    if (rows) rows.push(rowToJson(row));
    else byTable.set(row.table, [rowToJson(row)]);
  }
  return byTable;
}

function ledgerJson(ledger: readonly LedgerRow[]): readonly unknown[] {
  let start = 1;
  return ledger.map((row) => {
    const json = {
      index: row.index,
      epoch: row.epoch,
      time_ms: row.timeMs,
      kind: row.kind,
      actor: row.actor,
      command_id: row.commandId,
      retry_of: row.retryOf,
      body_digest: row.bodyDigest,
      // As text within the JSON: an outcome may quote a stranger's bytes, which only the json type keeps as they are.
      outcome: JSON.stringify(row.outcome),
      chain: row.chain,
      start,
      size: row.payload.byteLength,
    };
    start += row.payload.byteLength;
    return json;
  });
}
