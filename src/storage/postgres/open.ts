/**
 * Owns opening a replica's stores on Postgres: one database, checked and migrated, not yet booted.
 */
import { ShardpactError } from "../../model/errors.ts";
import type { ReplicaStores, StoreIdentity } from "../port.ts";
import { createPostgresCatalogStore } from "./catalog-store.ts";
import { createPostgresLogStore } from "./log-store.ts";
import { MIGRATIONS_DIR, migrateDatabase } from "./migrate.ts";
import { asUnavailable } from "./failure.ts";
import { closeSession, connect, createSession, LONG_TIMEOUT_MS } from "./session.ts";

export interface PostgresStoresOptions {
  /** `postgres://…` of a database of this replica's own. */
  readonly url: string;
  readonly identity: StoreIdentity;
  /** Where the SQL lies; by default beside the package. */
  readonly migrationsDir?: string;
  readonly signal?: AbortSignal;
}

/**
 * Connects, checks the server and migrates. Nothing can be written before `log.boot()`. Closing any of the three closes
 * all.
 * @throws ShardpactError `unavailable`, `config_invalid` (fsync off, a pooler, a standby, another encoding),
 * `upgrade_required` (the database is of a newer build), `aborted`
 */
export async function openPostgresStores(options: PostgresStoresOptions): Promise<ReplicaStores> {
  const { url, identity, migrationsDir = MIGRATIONS_DIR, signal } = options;
  const aborted = () =>
    new ShardpactError("aborted", `opening the database of replica ${identity.replica} was aborted`);
  if (signal?.aborted) throw aborted();
  const session = createSession(url, identity);
  const close = () => closeSession(session);
  try {
    const client = await connect(session, "migrate", LONG_TIMEOUT_MS);
    const cut = () => void client.end().catch(() => undefined);
    signal?.addEventListener("abort", cut, { once: true });
    try {
      await migrateDatabase(client, migrationsDir);
    } finally {
      signal?.removeEventListener("abort", cut);
      await client.end().catch(() => undefined);
    }
  } catch (error) {
    await close();
    if (signal?.aborted) throw aborted();
    throw asUnavailable(error, `replica ${identity.replica}: migrating its database failed`);
  }
  return {
    log: createPostgresLogStore(session),
    catalog: createPostgresCatalogStore(session),
    close,
    [Symbol.asyncDispose]: close,
  };
}
