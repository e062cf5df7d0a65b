/**
 * Owns reading Parquet, CSV and NDJSON through DuckDB, which is an optional peer: chunk by chunk, in the order of the rows.
 *
 * Nothing of the machine may show in what comes out: rows keep their order at any number of threads, times are UTC, types
 * of text formats come from all rows and not from a sample, and nothing is fetched from outside.
 */
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DuckDBConnection, DuckDBResult } from "@duckdb/node-api";
import { DataType, Field, Schema } from "apache-arrow";
import { ShardpactError } from "../model/errors.ts";
import type { SourceFile } from "../shards/sources.ts";
import { quote, readOf, requireOneTable, roundedColumns, strayPartitions, type TableFormat } from "./duckdb-files.ts";
import { arrowTypeOf, castOf, duckRows } from "./duckdb-rows.ts";
import type { RowChunk, RowReader, RowSource } from "./row-source.ts";

export interface TableOptions {
  readonly format: TableFormat;
  readonly files: readonly SourceFile[];
  /** DuckDB types by column; what is not named keeps the file's, or the one that all of its values have. */
  readonly types: Readonly<Record<string, string>>;
  readonly threads?: number;
  /** What comes out otherwise than it stands in the files. */
  readonly onWarning?: (text: string) => void;
}

/** What DuckDB may hold: without a limit it keeps all of a CSV that it has read, twice (2.3 GiB of a file of 1 GiB). */
const MEMORY_LIMIT = "1GB";

/**
 * Of the column that tells the last row, which is none: a stream that fails ends like one that is done, without an error. Where this
 * row does not come, rows are missing.
 */
const END = '"shardpact end of rows"';

/** Which engine reads, for the importer's id. @throws ShardpactError `setup_failed` */
export async function duckdbVersion(): Promise<string> {
  return `duckdb ${(await loadDuckdb()).version()}`;
}

/**
 * @throws ShardpactError `setup_failed`, `shard_malformed` (a file that DuckDB refuses), `schema_differs` (files of other columns),
 * `column_unknown`, `type_unsupported`
 */
export async function openTable(options: TableOptions): Promise<RowReader> {
  const { format, types, threads, onWarning } = options;
  // A CSV file of no bytes has no header either.
  const warned = new Set<string>();
  const files = format === "csv" ? options.files.filter(({ bytes }) => bytes > 0) : options.files;
  if (files.length === 0) return { schema: new Schema([]), rowsTotal: 0, async *chunks() {}, close: () => undefined };
  checkTypes(types);
  const { DuckDBInstance } = await loadDuckdb();
  const instance = await DuckDBInstance.create(":memory:", {
    preserve_insertion_order: "true",
    autoinstall_known_extensions: "false",
    memory_limit: MEMORY_LIMIT,
    temp_directory: join(tmpdir(), `shardpact-import-${process.pid}`), // made only when it is needed, and removed
    ...(threads === undefined ? {} : { threads: String(threads) }),
  });
  const connection = await instance.connect();
  const close = (): void => {
    connection.closeSync();
    instance.closeSync();
  };
  try {
    await connection.run("set TimeZone = 'UTC'").catch(() => undefined); // without the time zone extension it is UTC
    await requireOneTable(connection, format, files);
    const from = readOf(format, files, typesOf(format, types));
    // A CSV's types are for the pass over all rows to find; here its names are enough.
    const described = format === "csv" ? readOf(format, files, ", all_varchar = true") : from;
    const selected = await selectList(connection, described, files, types);
    for (const name of format === "parquet" ? await roundedColumns(connection, files) : [])
      onWarning?.(`column '${name}' has nanoseconds and a time zone: it comes in microseconds`);
    const sql = `select ${selected.join(", ")}, false as ${END} from ${from} union all select ${"null, ".repeat(selected.length)}true`;
    const rowsTotal = format === "parquet" ? await countRows(connection, from) : null;
    const result = await connection.stream(sql);
    return { ...readerOf(result, sql), rowsTotal, close };
  } catch (error) {
    close();
    throw asMalformed(error, options);
  }

  function readerOf(result: DuckDBResult, sql: string): Pick<RowReader, "schema" | "chunks"> {
    const names = result.columnNames().slice(0, -1);
    const fields = names.map((name, i) => {
      return new Field(name.normalize("NFC"), arrowTypeOf(result.columnType(i), name), true);
    });
    return {
      schema: new Schema(fields),
      async *chunks() {
        try {
          for (let isEnd = false; !isEnd;) {
            const chunk = await result.fetchChunk();
            if (!chunk || chunk.rowCount === 0) throw await whatFailed(sql);
            isEnd = chunk.getColumnVector(fields.length).getItem(chunk.rowCount - 1) === true;
            const rows = chunk.rowCount - Number(isEnd);
            const columns = fields.map((field, i) => duckRows(chunk.getColumnVector(i), field.type));
            if (format === "csv") warnOfDigits(fields, columns, rows);
            if (rows > 0) yield { rows, columns };
          }
        } catch (error) {
          throw asMalformed(error, options, sql);
        }
      },
    };
  }

  /** The error that ended a stream: read again, as a whole, all of every row. */
  async function whatFailed(sql: string): Promise<unknown> {
    try {
      await connection.run(`select max(hash(t)) from (${sql}) t`);
      return new Error("the rows end before the last one");
    } catch (error) {
      return error;
    }
  }

  /** Ids of twenty digits are Float64 to whoever looks at texts: many become one. Said once a column. */
  function warnOfDigits(fields: readonly Field[], columns: RowChunk["columns"], rows: number): void {
    fields.forEach(({ name, type }, i) => {
      if (!DataType.isFloat(type) || warned.has(name)) return;
      const { values, valid } = columns[i] as RowSource;
      for (let row = 0; row < rows; row++) {
        const value = Number(values?.[row]);
        if (Math.abs(value) <= Number.MAX_SAFE_INTEGER || !Number.isInteger(value) || !valid(row)) continue;
        warned.add(name);
        onWarning?.(
          `column '${name}' has whole numbers beyond 2^53, which come as the nearest double: if they are ids, name a type (--schema '{"${name}": "UBIGINT"}')`,
        );
        return;
      }
    });
  }
}

/** Types that a CSV's texts are read as at once. */
function typesOf(format: TableFormat, types: Readonly<Record<string, string>>): string {
  const named = Object.entries(types).map(([column, type]) => `${quote(column)}: ${quote(type)}`);
  return format === "csv" && named.length > 0 ? `, types = {${named.join(", ")}}` : "";
}

/** The columns, each under its own name and as a type that shards know. */
async function selectList(
  connection: DuckDBConnection,
  from: string,
  files: readonly SourceFile[],
  types: Readonly<Record<string, string>>,
): Promise<string[]> {
  const described = await connection.stream(`select * from ${from} limit 0`);
  const stray = strayPartitions(files);
  const names = described.columnNames();
  const unknown = Object.keys(types).find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new ShardpactError("column_unknown", `there is no column '${unknown}' to give a type to`, {
      details: { column: unknown, columns: names },
      hint: `Columns are: ${names.join(", ")}.`,
    });
  }
  return names.flatMap((name, i) => {
    if (stray.includes(name)) return [];
    const type = types[name] ?? castOf(described.columnType(i));
    const column = `"${name.replaceAll('"', '""')}"`;
    return [type === null ? column : `cast(${column} as ${type}) as ${column}`];
  });
}

async function countRows(connection: DuckDBConnection, from: string): Promise<number> {
  const reader = await connection.runAndReadAll(`select count(*)::bigint from ${from}`);
  return Number(reader.getRows()[0]?.[0] ?? 0);
}

function checkTypes(types: Readonly<Record<string, string>>): void {
  const bad = Object.entries(types).find(([, type]) => !/^\w[\w ,()[\]"]*$/.test(type));
  if (!bad) return;
  throw new ShardpactError("invalid_argument", `'${bad[1]}' is no type for column '${bad[0]}'`, {
    details: { column: bad[0], type: bad[1] },
    hint: "Name a type of DuckDB: DOUBLE, VARCHAR, DECIMAL(10,2), FLOAT[784].",
  });
}

function asMalformed(error: unknown, { format, files }: TableOptions, sql = ""): unknown {
  if (error instanceof ShardpactError) return error;
  const said = error instanceof Error ? error.message : String(error);
  return new ShardpactError("shard_malformed", `${format} files cannot be read: ${inShort(said)}`, {
    details: { paths: files.slice(0, 20).map(({ path }) => path), sql, said },
    cause: error,
    hint: "Mend the file, or give types with --schema.",
  });
}

const SAID_LINES_MAX = 4;
const SAID_CHARS_MAX = 400;

/** What DuckDB says, without its advice, which is about its own options, and with the file, which it names below that. */
function inShort(said: string): string {
  const lines = said.split("\n", SAID_LINES_MAX).map((line) => line.trim().slice(0, SAID_CHARS_MAX));
  const end = lines.findIndex((line) => /^(Possible|The search space|LINE \d|$)/.test(line));
  const text = lines
    .slice(0, end === -1 ? lines.length : end)
    .join("; ")
    .slice(0, SAID_CHARS_MAX);
  const file = /^\s*file = (.*)$/m.exec(said)?.[1];
  return file === undefined || text.includes(file) ? text : `${file}: ${text}`;
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
