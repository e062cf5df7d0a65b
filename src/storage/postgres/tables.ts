/**
 * Owns which table holds which kind of catalog row, and rows ↔ JSON for statements that take or give many at once.
 *
 * Everything follows from `schema.ts`: a column added there is loaded and written without another line here.
 */
import { getTableColumns, getTableName, is } from "drizzle-orm";
import { PgCustomColumn, type PgTable } from "drizzle-orm/pg-core";
import { PRIMARY_KEYS, type Row, type Table } from "../../catalog/rows.ts";
import { toHex } from "../../model/bytes.ts";
import { invariant } from "../../model/errors.ts";
import * as schema from "./schema.ts";

export const TABLES = {
  dataset: schema.datasets,
  version: schema.versions,
  version_page: schema.versionPages,
  page: schema.pages,
  shard: schema.shards,
  tag: schema.tags,
  tag_move: schema.tagMoves,
  run: schema.runs,
  run_epoch: schema.runEpochs,
  pin: schema.pins,
  receipt: schema.receipts,
  revocation: schema.revocations,
  lease: schema.leases,
} as const satisfies Record<Table, PgTable>;

/** `history` rows are only ever added; triggers refuse the rest. Of a page put again only the hold moves, of a
 * pin only its release. */
const UPDATES = {
  dataset: "all",
  version: "history",
  version_page: "all",
  page: ["holdUntilMs"],
  shard: "history",
  tag: "all",
  tag_move: "history",
  run: "all",
  run_epoch: "history",
  pin: ["releasedIndex"],
  receipt: "history",
  revocation: "history",
  lease: "all",
} as const satisfies Record<Table, "all" | "history" | readonly string[]>;

interface Column {
  /** Field of the row. */
  readonly field: string;
  /** Column of the table, quoted. */
  readonly sql: string;
  readonly name: string;
  readonly fromJson: (value: unknown) => unknown;
  readonly toJson: (value: unknown) => unknown;
}

const COLUMNS = new Map<Table, readonly Column[]>(
  Object.entries(TABLES).map(([table, definition]) => [table as Table, columnsOf(definition)]),
);

/** The table's name with its schema. */
export function tableSql(table: Table): string {
  return `shardpact.${getTableName(TABLES[table])}`;
}

/** The column of a row's field, quoted. */
export function columnSql(table: Table, field: string): string {
  const column = columnsFor(table).find((candidate) => candidate.field === field);
  invariant(column, `${table} has a column for ${field}`);
  return column.sql;
}

/** A row out of `to_json` of a table's row. */
export function rowFromJson(table: Table, json: Readonly<Record<string, unknown>>): Row {
  const row: Record<string, unknown> = { table };
  for (const { field, name, fromJson } of columnsFor(table)) row[field] = fromJson(json[name]);
  return row as unknown as Row;
}

/** A row as `jsonRows` takes it. */
export function rowToJson(row: Row): Readonly<Record<string, unknown>> {
  const json: Record<string, unknown> = {};
  for (const { field, name, toJson } of columnsFor(row.table)) json[name] = toJson(row[field as keyof Row]);
  return json;
}

/** A JSON array parameter of rows (`rowToJson`), as a statement reads from a table `r`. */
export function jsonRows(table: Table, parameter: number): string {
  return `json_populate_recordset(null::${tableSql(table)}, $${parameter}::json) AS r`;
}

/** Inserts the rows of `from`, or replaces what may change of them, if the statement's `state` holds. */
export function putSql(table: Table, from: string): string {
  const columns = columnsFor(table);
  const names = columns.map((column) => column.sql).join(", ");
  const key: readonly string[] = PRIMARY_KEYS[table];
  const updates: "all" | "history" | readonly string[] = UPDATES[table];
  const updated = columns.filter(
    ({ field }) => !key.includes(field) && (updates === "all" || (updates !== "history" && updates.includes(field))),
  );
  const keySql = columns.filter(({ field }) => key.includes(field)).map((column) => column.sql);
  const conflict =
    updated.length === 0
      ? ""
      : ` ON CONFLICT (${keySql.join(", ")}) DO UPDATE SET ${updated.map(({ sql }) => `${sql} = excluded.${sql}`).join(", ")}`;
  return `INSERT INTO ${tableSql(table)} (${names}) SELECT ${names} FROM ${from} WHERE EXISTS (SELECT FROM state)${conflict}`;
}

function columnsFor(table: Table): readonly Column[] {
  const columns = COLUMNS.get(table);
  invariant(columns, `table ${table} is known`);
  return columns;
}

function columnsOf(table: PgTable): readonly Column[] {
  return Object.entries(getTableColumns(table)).map(([field, column]) => {
    const binary = is(column, PgCustomColumn) && column.getSQLType() === "bytea";
    return {
      field,
      name: column.name,
      sql: `"${column.name}"`,
      // JSON shows bytea as `\x` and hex.
      fromJson: binary
        ? (value) => column.mapFromDriverValue(Buffer.from(String(value).slice(2), "hex"))
        : (value) => value,
      toJson: binary ? hexOf : (value) => value,
    };
  });
}

/** Bytes as JSON takes them: of a digest, digests, a bare hash or bytes (`columns.ts`), without a buffer in between. */
function hexOf(value: unknown): string {
  if (typeof value === "string") return `\\x${value.startsWith("b3:") ? value.slice(3) : value}`;
  if (Array.isArray(value)) return `\\x${value.map((digest: string) => digest.slice(3)).join("")}`;
  return `\\x${toHex(value as Uint8Array)}`;
}
