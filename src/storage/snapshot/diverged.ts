/**
 * Owns the last check of an install over rows that were there before: the tables must now be the snapshot's.
 */
import { ShardpactError } from "../../model/errors.ts";
import type { SnapshotInfo, SnapshotOptions } from "../port.ts";
import { LEDGER_TABLE, SNAPSHOT_TABLES } from "./tables.ts";
import { digestTables, type SnapshotContent } from "./write.ts";

/** @throws `replica_diverged` naming the first table that differs: equal logs had led to unequal rows */
export async function assertSameTables(
  info: SnapshotInfo,
  content: SnapshotContent,
  { signal }: SnapshotOptions,
): Promise<void> {
  const tables = SNAPSHOT_TABLES.filter((table) => table !== LEDGER_TABLE);
  const found = await digestTables(content, tables, signal === undefined ? {} : { signal });
  for (const { name, rows, digest } of found) {
    const expected = info.tables.find((table) => table.name === name);
    if (expected?.digest === digest) continue;
    throw new ShardpactError(
      "replica_diverged",
      `${name}: after the snapshot's rows were put it holds ${rows} rows that are not the snapshot's ${expected?.rows ?? 0}`,
      {
        details: { table: name, expected: expected?.digest ?? null, got: digest },
        hint: "Nothing was changed. Run `shardpact audit verify` on this replica's database and on another's.",
      },
    );
  }
}
