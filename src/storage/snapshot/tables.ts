/**
 * Owns what a snapshot holds: its tables in file order, and their columns with their Arrow types.
 *
 * Names are those of the SQL tables and columns, so a stream of a snapshot and a table of a replica read alike. Every
 * column of `catalog/rows.ts` and of the ledger is listed: one that is added there does not compile until it is here.
 */
import { Binary, DataType, Field, FixedSizeBinary, Int64, Schema, Utf8 } from "apache-arrow";
import type { LedgerRow } from "../../catalog/apply.ts";
import { PRIMARY_KEYS, type Row, type Table } from "../../catalog/rows.ts";

/** Highest catalog level whose tables this build can write and read. */
export const CATALOG_LEVEL = 1;

/**
 * `digest`: `b3:…` ↔ 32 bytes. `digests`: a list of them ↔ n × 32 bytes. `hash`: 64 hex digits ↔ 32 bytes. `int`: a safe
 * integer ↔ Int64. `json`: a value ↔ its canonical JSON. `?`: may be null.
 */
export type ColumnType = "text" | "int" | "digest" | "digests" | "hash" | "bytes" | "json";

export interface Column {
  /** Field of the row. */
  readonly field: string;
  readonly name: string;
  readonly type: ColumnType;
  readonly nullable: boolean;
}

export interface SnapshotTable {
  readonly table: Table | "ledger";
  /** Name of the SQL table. */
  readonly name: string;
  readonly key: readonly string[];
  readonly columns: readonly Column[];
  readonly schema: Schema;
}

type ColumnOf<V> = null extends V ? `${ColumnType}?` : ColumnType;
type ColumnsOf<R> = { readonly [F in Exclude<keyof R, "table">]: ColumnOf<R[F]> };
type Definitions = { readonly [T in Table]: ColumnsOf<Extract<Row, { table: T }>> };

const LEDGER: ColumnsOf<LedgerRow> = {
  index: "int",
  epoch: "int",
  timeMs: "int",
  kind: "text",
  actor: "text?",
  commandId: "text?",
  retryOf: "int?",
  bodyDigest: "hash?",
  payload: "bytes",
  outcome: "json",
  chain: "hash",
};

const ROWS: Definitions = {
  dataset: { name: "text", headVersion: "int", headIndex: "int", headRoot: "digest", createdIndex: "int" },
  version: {
    dataset: "text",
    version: "int",
    index: "int",
    timeMs: "int",
    actor: "text",
    commandId: "text",
    root: "digest",
    treeHash: "digest",
    pageCount: "int",
    kept: "int",
    schema: "digest",
    classes: "digest",
    splits: "json",
    totals: "json",
    splitRule: "json",
    message: "text",
    frontier: "digests",
  },
  version_page: {
    dataset: "text",
    position: "int",
    fromVersion: "int",
    untilVersion: "int?",
    page: "digest",
    totals: "json",
    frontierBefore: "digests",
  },
  page: {
    digest: "digest",
    kind: "text",
    bytes: "bytes",
    totals: "json",
    putIndex: "int",
    actor: "text",
    holdUntilMs: "int",
  },
  shard: {
    page: "digest",
    ordinal: "int",
    name: "text",
    split: "int",
    rows: "int",
    bytes: "int",
    digest: "digest",
    segmentIndex: "digest",
  },
  tag: { dataset: "text", tag: "text", version: "int", index: "int" },
  tag_move: {
    dataset: "text",
    tag: "text",
    index: "int",
    timeMs: "int",
    actor: "text",
    fromVersion: "int?",
    toVersion: "int",
  },
  run: {
    run: "text",
    plan: "json",
    meta: "json",
    actor: "text",
    index: "int",
    timeMs: "int",
    endIndex: "int?",
    outcome: "text?",
  },
  run_epoch: {
    run: "text",
    epoch: "int",
    dataset: "text",
    version: "int",
    root: "digest",
    orderSpec: "json",
    actor: "text",
    index: "int",
    timeMs: "int",
  },
  pin: {
    dataset: "text",
    run: "text",
    version: "int",
    root: "digest",
    note: "text",
    actor: "text",
    index: "int",
    timeMs: "int",
    releasedIndex: "int?",
  },
  receipt: { run: "text", rank: "int", index: "int", timeMs: "int", receipt: "json" },
  revocation: { subject: "text", index: "int", timeMs: "int", actor: "text", reason: "text" },
  lease: { dataset: "text", version: "int", run: "text", untilMs: "int", index: "int" },
};

const NAMES: Readonly<Record<Table, string>> = {
  dataset: "datasets",
  version: "versions",
  version_page: "version_pages",
  page: "pages",
  shard: "shards",
  tag: "tags",
  tag_move: "tag_moves",
  run: "runs",
  run_epoch: "run_epochs",
  pin: "pins",
  receipt: "receipts",
  revocation: "revocations",
  lease: "leases",
};

export const LEDGER_TABLE: SnapshotTable = define("ledger", "ledger", ["index"], LEDGER);

/** In file order: the ledger first. */
export const SNAPSHOT_TABLES: readonly SnapshotTable[] = [
  LEDGER_TABLE,
  ...(Object.keys(PRIMARY_KEYS) as Table[]).map((table) =>
    define(table, NAMES[table], PRIMARY_KEYS[table], ROWS[table]),
  ),
];

function define(
  table: SnapshotTable["table"],
  name: string,
  key: readonly string[],
  definition: Readonly<Record<string, string>>,
): SnapshotTable {
  const columns = Object.entries(definition).map(([field, type]): Column => ({
    field,
    name: field.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    type: type.replace("?", "") as ColumnType,
    nullable: type.endsWith("?"),
  }));
  const schema = new Schema(columns.map((column) => new Field(column.name, arrowType(column.type), column.nullable)));
  return { table, name, key, columns, schema };
}

function arrowType(type: ColumnType): DataType {
  switch (type) {
    case "text":
    case "json":
      return new Utf8();
    case "int":
      return new Int64();
    case "digest":
    case "hash":
      return new FixedSizeBinary(32);
    case "digests":
    case "bytes":
      return new Binary();
  }
}
