/**
 * Owns how many rows travel to Postgres in one parameter: an array of the table's own row type, in the binary format.
 *
 * It costs both sides half of what JSON does: nothing is quoted, no bytes become hex digits, no field is found by its
 * name. The numbers of row types are those of one database, and a column may stand anywhere in its table; so both are
 * read from the catalog at each boot. Source: Postgres' `array_recv` and `record_recv`.
 */
import { getTableColumns, getTableName } from "drizzle-orm";
import type { PgTable } from "drizzle-orm/pg-core";
import type pg from "pg";
import type { Table } from "../../catalog/rows.ts";
import { invariant, ShardpactError } from "../../model/errors.ts";
import { type RowType, columnKind, encodeRows } from "./binary-rows.ts";
import * as schema from "./schema.ts";
import { TABLES } from "./tables.ts";

/** Tables that are written by the thousands. */
export type WrittenTable = Table | "log" | "ledger";

const WRITTEN: Readonly<Record<WrittenTable, PgTable>> = { ...TABLES, log: schema.log, ledger: schema.ledger };

export interface RowTypes {
  /** The parameter for `typedRows`: fields of a row are named as in `schema.ts`, others are left out. */
  encode(table: WrittenTable, rows: readonly object[]): Buffer;
}

/** The rows of such a parameter, as a statement reads from a table `r`. */
export function typedRows(table: WrittenTable, parameter: number): string {
  return `unnest($${parameter}::shardpact.${getTableName(WRITTEN[table])}[]) AS r`;
}

/** Reads what the connected database calls its row types. */
export async function loadRowTypes(client: pg.Client): Promise<RowTypes> {
  const found = await client.query<{ name: string; oid: number; column: string; type: number }>(
    `SELECT c.relname::text AS name, c.reltype::bigint AS oid, a.attname::text AS column, a.atttypid::bigint AS type
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
     WHERE c.relnamespace = 'shardpact'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY a.attnum`,
  );
  const types = new Map<WrittenTable, RowType>();
  for (const table of Object.keys(WRITTEN) as WrittenTable[]) {
    const definition = WRITTEN[table];
    const fields = new Map(Object.entries(getTableColumns(definition)).map(([field, { name }]) => [name, field]));
    const columns = found.rows.filter(({ name }) => name === getTableName(definition));
    const oid = columns[0]?.oid;
    invariant(oid !== undefined, `the database has a table for ${table}`);
    types.set(table, {
      oid,
      // A column that this build does not know is a newer build's, and has to do without a value.
      columns: columns.map(({ column, type }) => ({ field: fields.get(column) ?? "", kind: columnKind(type) })),
    });
  }
  return {
    encode(table, rows) {
      const type = types.get(table);
      invariant(type, `${table} has a row type`);
      return encodeRows(type, rows);
    },
  };
}

/** Row types before the first boot: nothing may be written. */
export const NO_ROW_TYPES: RowTypes = {
  encode(table) {
    throw new ShardpactError("internal", `rows of ${table} before the boot`);
  },
};
