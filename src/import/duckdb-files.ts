/**
 * Owns that table files are what they are read as: all of one set of columns, CSV without lines that nobody would miss, folders that
 * say a value (`year=2024/`) below the published one only.
 *
 * DuckDB is forgiving where a training set must not be: it skips lines of a CSV that do not fit the others, leaves out columns that
 * the first file has not, and casts the others' values to the first file's types.
 */
import type { DuckDBConnection } from "@duckdb/node-api";
import { ShardpactError } from "../model/errors.ts";
import type { SourceFile } from "../shards/sources.ts";

export type TableFormat = "parquet" | "csv" | "ndjson";

/** How each format is read; what is not said is found out from all rows of all files. */
const OPTIONS: Readonly<Record<TableFormat, string>> = {
  parquet: "union_by_name = false",
  csv: `sample_size = -1, files_to_sniff = -1, union_by_name = false, skip = 0, comment = '', quote = '"', escape = '"'`,
  ndjson: "sample_size = -1, maximum_sample_files = -1, format = 'newline_delimited', maximum_depth = -1",
};
const READERS: Readonly<Record<TableFormat, string>> = {
  parquet: "read_parquet",
  csv: "read_csv",
  ndjson: "read_json",
};
/** A part of a path that says the value of a column. */
const PARTITION = /^([^=/]+)=[^/]*$/;

/** A table function over files. `more`: options besides those of every read. */
export function readOf(format: TableFormat, files: readonly SourceFile[], more = ""): string {
  const paths = files.map(({ path }) => quotePath(path)).join(", ");
  const hive = partitionsOf(files).length > 0;
  return `${READERS[format]}([${paths}], ${OPTIONS[format]}, hive_partitioning = ${hive}${more})`;
}

/** Columns that the files' folders say, below the published folder: what lies above it is the machine's. */
function partitionsOf(files: readonly SourceFile[]): readonly string[] {
  const [first, ...others] = files.map(({ name }) => keysOf(name));
  return others.every((keys) => keys.join("/") === first?.join("/")) ? (first ?? []) : [];
}

/** Columns that DuckDB would make of folders above the published one. */
export function strayPartitions(files: readonly SourceFile[]): readonly string[] {
  const known = partitionsOf(files);
  return known.length === 0 ? [] : keysOf(files[0]?.path ?? "").filter((key) => !known.includes(key));
}

function keysOf(path: string): string[] {
  return path
    .split("/")
    .slice(0, -1)
    .flatMap((part) => PARTITION.exec(part)?.[1] ?? []);
}

export function quote(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** Names are no patterns here. */
function quotePath(path: string): string {
  return quote(path.replaceAll(/[*?[]/g, "[$&]"));
}

/**
 * Columns that all files have, as the first one has them. Of Parquet with equal types; CSV and NDJSON have those that all values fit.
 * @throws ShardpactError `schema_differs`, `shard_malformed` (CSV whose lines are not all rows)
 */
export async function requireOneTable(
  connection: DuckDBConnection,
  format: TableFormat,
  files: readonly SourceFile[],
): Promise<void> {
  if (format === "ndjson") return; // what a line has not is null
  let first: ReadonlyMap<string, string> | null = null;
  for (const file of files) {
    const columns = await columnsOf(connection, format, file);
    first ??= columns;
    for (const name of new Set([...first.keys(), ...columns.keys()])) {
      const [expected, got] = [first.get(name), columns.get(name)];
      if (expected !== got) throw differs(file, files[0], name, expected, got);
    }
  }
}

async function columnsOf(
  connection: DuckDBConnection,
  format: TableFormat,
  file: SourceFile,
): Promise<ReadonlyMap<string, string>> {
  if (format === "csv") return sniffedColumns(connection, file);
  const read = `${READERS[format]}([${quotePath(file.path)}], ${OPTIONS[format]}, hive_partitioning = false)`;
  const described = await connection.stream(`select * from ${read} limit 0`);
  return new Map(described.columnNames().map((name, i) => [name, String(described.columnType(i))]));
}

function differs(
  file: SourceFile,
  first: SourceFile | undefined,
  column: string,
  expected: string | undefined,
  got: string | undefined,
): ShardpactError {
  const said = (type: string | undefined) => (type === undefined ? "not there" : type);
  const message = `column '${column}' of ${file.path} is ${said(got)}; in ${first?.path} it is ${said(expected)}`;
  return new ShardpactError("schema_differs", message, {
    details: { column, file: file.path, expected: expected ?? null, got: got ?? null },
    hint: "Write the files with the same columns, or publish them as datasets of their own.",
  });
}

/**
 * Names of a CSV's columns, whose lines all have to be rows, or the header: to find a dialect, DuckDB takes lines that differ for a
 * preamble.
 */
async function sniffedColumns(
  connection: DuckDBConnection,
  { path }: SourceFile,
): Promise<ReadonlyMap<string, string>> {
  const sniffed = await connection.runAndReadAll(
    `select skipped, col.name from (
       select SkipRows::integer as skipped, unnest(Columns) as col
       from sniff_csv(${quotePath(path)}, quote = '"', escape = '"', comment = ''))`,
  );
  const rows = sniffed.getRows() as [number, string][];
  const [[skipped, name] = [0, ""]] = rows;
  const isCut = rows.length > 1 || !/[,;|\t]/.test(name);
  if (skipped === 0 && isCut) return new Map(rows.map(([, column]) => [column, "there"]));
  const what = isCut ? "its first lines do not fit" : `no delimiter cuts all lines as it cuts '${name.slice(0, 80)}'`;
  throw new ShardpactError("shard_malformed", `the lines of ${path} are not all rows of one table: ${what}`, {
    details: { path, header: name },
    hint: "Give each line as many fields as the header has, in double quotes where they hold the delimiter; take titles and comments out.",
  });
}

/** Columns of Parquet that lose digits: times of a zone come in microseconds. */
export async function roundedColumns(connection: DuckDBConnection, files: readonly SourceFile[]): Promise<string[]> {
  const paths = files.map(({ path }) => quotePath(path)).join(", ");
  const found = await connection.runAndReadAll(
    `select distinct name from parquet_schema([${paths}])
     where logical_type like '%isAdjustedToUTC=1%' and logical_type like '%NanoSeconds%' order by name`,
  );
  return found.getRows().map(([name]) => String(name));
}
