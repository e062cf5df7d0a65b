/**
 * Owns how a database gets its tables: drizzle's migrator under an advisory lock on the same connection.
 *
 * The migrator itself takes no lock, and concurrent starts would run a migration twice. A database that is already at
 * this build's level is left alone, so the runtime role needs no right to create anything.
 */
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { drizzle } from "drizzle-orm/node-postgres";
import { migrate } from "drizzle-orm/node-postgres/migrator";
import type { Client } from "pg";
import { ShardpactError } from "../../model/errors.ts";

/** The same for `src/` and `dist/`: both lie beside `migrations/`. */
export const MIGRATIONS_DIR = fileURLToPath(new URL("../../../migrations", import.meta.url));

/** Any constant: the lock is per database. */
const LOCK_KEY = 7_403_526_418;

/**
 * Brings the database to this build's level. Safe to run from many processes at once.
 * @throws ShardpactError `upgrade_required` when the database was migrated by a newer build.
 */
export async function migrateDatabase(client: Client, migrationsDir: string): Promise<void> {
  const wanted = await levelOf(migrationsDir);
  await client.query("SELECT pg_advisory_lock($1)", [LOCK_KEY]);
  try {
    const found = await migratedLevel(client);
    if (found > wanted) {
      throw new ShardpactError("upgrade_required", "the database was migrated by a newer build of Shardpact", {
        details: { found, wanted },
        hint: "Run the newer build; a database never goes back.",
      });
    }
    if (found === wanted) return;
    await migrate(drizzle(client), {
      migrationsFolder: migrationsDir,
      migrationsSchema: "shardpact",
      migrationsTable: "migrations",
    });
  } finally {
    await client.query("SELECT pg_advisory_unlock($1)", [LOCK_KEY]);
  }
}

/** The newest migration of the folder, as drizzle stamps it. */
async function levelOf(migrationsDir: string): Promise<number> {
  const journal = JSON.parse(await readFile(`${migrationsDir}/meta/_journal.json`, "utf8")) as {
    entries: readonly { when: number }[];
  };
  return Math.max(0, ...journal.entries.map((entry) => entry.when));
}

async function migratedLevel(client: Client): Promise<number> {
  const table = await client.query<{ there: boolean }>(
    "SELECT to_regclass('shardpact.migrations') IS NOT NULL AS there",
  );
  if (table.rows[0]?.there !== true) return 0;
  const level = await client.query<{ level: number | null }>(
    "SELECT max(created_at) AS level FROM shardpact.migrations",
  );
  return Number(level.rows[0]?.level ?? 0);
}
