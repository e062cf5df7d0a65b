/**
 * Owns how an applied batch is written: rows, ledger and applied state in one statement, which is one transaction.
 *
 * The statement first moves the applied state under `WHERE boot = …`; every other part writes only if that found its
 * row. It commits asynchronously (set on the connection): what a crash takes away, the log gives back.
 */
import type pg from "pg";
import type { AppliedState, BatchOutput } from "../../catalog/apply.ts";
import { type Change, PRIMARY_KEYS, type Row, type Table } from "../../catalog/rows.ts";
import { typedRows } from "./row-types.ts";
import type { PostgresSession } from "./session.ts";
import { putSql } from "./tables.ts";

const STATE_SQL = `WITH state AS (
  UPDATE shardpact.applied_state SET applied_index = $3::bigint, chain = decode($4::text, 'hex'),
    state_digest = decode($5::text, 'hex'), log_time_ms = $6::bigint
  WHERE boot = $1::bigint AND applied_index = $2::bigint RETURNING 1
)`;

const LEDGER_COLUMNS = "index, epoch, time_ms, kind, actor, command_id, retry_of, body_digest, payload, outcome, chain";
const LEDGER_SQL = `, ledger_rows AS (
  INSERT INTO shardpact.ledger (${LEDGER_COLUMNS}) SELECT ${LEDGER_COLUMNS} FROM ${typedRows("ledger", 7)}
  WHERE EXISTS (SELECT FROM state)
)`;
const FIRST_TABLE_PARAMETER = 8;
/** Names of statements hold tables by number: Postgres cuts them at 63 bytes, and two cut alike would clash. */
const TABLE_ORDER = Object.keys(PRIMARY_KEYS) as Table[];

/** `fenced`: another boot holds the database, or it is not at `before`. Then, and with a taken id, nothing is written. */
export type Written = "written" | "fenced" | "command_id_taken";

export async function writeBatch(
  client: pg.Client,
  { boot, rowTypes }: Pick<PostgresSession, "boot" | "rowTypes">,
  before: AppliedState,
  { state, changes, ledger }: BatchOutput,
): Promise<Written> {
  const byTable = groupByTable(changes);
  const tables = [...byTable.keys()].toSorted();
  const puts = tables.map(
    (table, i) => `, put_${table} AS (${putSql(table, typedRows(table, FIRST_TABLE_PARAMETER + i))})`,
  );
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
      rowTypes.encode("ledger", ledger),
      ...tables.map((table) => rowTypes.encode(table, byTable.get(table) ?? [])),
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

function groupByTable(changes: readonly Change[]): Map<Table, Row[]> {
  const byTable = new Map<Table, Row[]>();
  for (const { row } of changes) {
    const rows = byTable.get(row.table);
    if (rows) rows.push(row);
    else byTable.set(row.table, [row]);
  }
  return byTable;
}
