/**
 * Owns reading Parquet, CSV and NDJSON through DuckDB, which is an optional peer: chunk by chunk, in the order of the rows.
 *
 * Nothing of the machine may show in what comes out: rows keep their order at any number of threads, times are UTC, types
 * of text formats come from all rows and not from a sample, and nothing is fetched from outside.
 */
import type { DuckDBConnection, DuckDBResult } from "@duckdb/node-api";
import { Field, Schema } from "apache-arrow";
import { ShardpactError } from "../model/errors.ts";
import { arrowTypeOf, castOf, duckRows } from "./duckdb-rows.ts";
import type { RowReader } from "./row-source.ts";

export type TableFormat = "parquet" | "csv" | "ndjson";

export interface TableOptions {
  readonly format: TableFormat;
  readonly paths: readonly string[];
  /** DuckDB types by column; what is not named keeps the file's, or the one that all of its values have. */
  readonly types: Readonly<Record<string, string>>;
  readonly threads?: number;
}

const READERS: Readonly<Record<TableFormat, string>> = {
  parquet: "read_parquet",
  csv: "read_csv",
  ndjson: "read_json",
};
const OPTIONS: Readonly<Record<TableFormat, string>> = {
  parquet: "union_by_name = false",
  csv: "sample_size = -1, union_by_name = false",
  ndjson: "sample_size = -1, format = 'newline_delimited', maximum_depth = -1",
};

/** Which engine reads, for the importer's id. @throws ShardpactError `setup_failed` */
export async function duckdbVersion(): Promise<string> {
  return `duckdb ${(await loadDuckdb()).version()}`;
}

/** @throws ShardpactError `setup_failed`, `shard_malformed` (a file that DuckDB refuses), `column_unknown`, `type_unsupported` */
export async function openTable(options: TableOptions): Promise<RowReader> {
  const { format, paths, types, threads } = options;
  checkTypes(types);
  const { DuckDBInstance } = await loadDuckdb();
  const instance = await DuckDBInstance.create(":memory:", {
    preserve_insertion_order: "true",
    autoinstall_known_extensions: "false",
    ...(threads === undefined ? {} : { threads: String(threads) }),
  });
  const connection = await instance.connect();
  const close = (): void => {
    connection.closeSync();
    instance.closeSync();
  };
  try {
    await connection.run("set TimeZone = 'UTC'").catch(() => undefined); // without the time zone extension it is UTC
    const read = (how: string) => `${READERS[format]}([${paths.map(quotePath).join(", ")}], ${how})`;
    const from = read(optionsOf(format, types));
    // A CSV's types are for the pass over all rows to find; here its names are enough.
    const selected = await selectList(connection, format === "csv" ? read("all_varchar = true") : from, types);
    const sql = `select ${selected.join(", ")} from ${from}`;
    const rowsTotal = format === "parquet" ? await countRows(connection, from) : null;
    const result = await connection.stream(sql);
    return { ...readerOf(result, sql), rowsTotal, close };
  } catch (error) {
    close();
    throw asMalformed(error, options);
  }

  function readerOf(result: DuckDBResult, sql: string): Pick<RowReader, "schema" | "chunks"> {
    const fields = result.columnNames().map((name, i) => {
      return new Field(name.normalize("NFC"), arrowTypeOf(result.columnType(i), name), true);
    });
    return {
      schema: new Schema(fields),
      async *chunks() {
        try {
          for (let rows = result; ;) {
            const chunk = await rows.fetchChunk();
            if (!chunk || chunk.rowCount === 0) return;
            const columns = fields.map((field, i) => duckRows(chunk.getColumnVector(i), field.type));
            yield { rows: chunk.rowCount, columns };
          }
        } catch (error) {
          throw asMalformed(error, options, sql);
        }
      },
    };
  }
}

function optionsOf(format: TableFormat, types: Readonly<Record<string, string>>): string {
  const named = Object.entries(types).map(([column, type]) => `${quote(column)}: ${quote(type)}`);
  return OPTIONS[format] + (format === "csv" && named.length > 0 ? `, types = {${named.join(", ")}}` : "");
}

/** The columns, each under its own name and as a type that shards know. */
async function selectList(
  connection: DuckDBConnection,
  from: string,
  types: Readonly<Record<string, string>>,
): Promise<string[]> {
  const described = await connection.stream(`select * from ${from} limit 0`);
  const names = described.columnNames();
  const unknown = Object.keys(types).find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new ShardpactError("column_unknown", `there is no column '${unknown}' to give a type to`, {
      details: { column: unknown, columns: names },
      hint: `Columns are: ${names.join(", ")}.`,
    });
  }
  return names.map((name, i) => {
    const type = types[name] ?? castOf(described.columnType(i));
    const column = `"${name.replaceAll('"', '""')}"`;
    return type === null ? column : `cast(${column} as ${type}) as ${column}`;
  });
}

async function countRows(connection: DuckDBConnection, from: string): Promise<number> {
  const reader = await connection.runAndReadAll(`select count(*)::bigint from ${from}`);
  return Number(reader.getRows()[0]?.[0] ?? 0);
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** Names are no patterns here. */
function quotePath(path: string): string {
  return quote(path.replaceAll(/[*?[]/g, "[$&]"));
}

function checkTypes(types: Readonly<Record<string, string>>): void {
  const bad = Object.entries(types).find(([, type]) => !/^\w[\w ,()[\]"]*$/.test(type));
  if (!bad) return;
  throw new ShardpactError("invalid_argument", `'${bad[1]}' is no type for column '${bad[0]}'`, {
    details: { column: bad[0], type: bad[1] },
    hint: "Name a type of DuckDB: DOUBLE, VARCHAR, DECIMAL(10,2), FLOAT[784].",
  });
}

function asMalformed(error: unknown, { format, paths }: TableOptions, sql = ""): unknown {
  if (error instanceof ShardpactError) return error;
  const said = error instanceof Error ? error.message : String(error);
  return new ShardpactError("shard_malformed", `${format} files cannot be read: ${said.split("\n")[0]}`, {
    details: { paths: paths.slice(0, 20), sql, said },
    cause: error,
    hint: "The message names file and place; types can be given with --schema.",
  });
}

async function loadDuckdb(): Promise<typeof import("@duckdb/node-api")> {
  try {
    return await import("@duckdb/node-api");
  } catch (cause) {
    throw new ShardpactError(
      "setup_failed",
      "Parquet, CSV and NDJSON are read through @duckdb/node-api, which is not installed",
      {
        cause,
        hint: "npm install @duckdb/node-api, or convert the files to Arrow IPC first.",
      },
    );
  }
}
