/**
 * Owns a whole group in one process over the real nats-server and a real Postgres database for each replica, whose tables
 * a test may hurt.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { connectNats } from "../../src/transport/nats.ts";
import { openPostgresStores } from "../../src/storage/postgres/open.ts";
import { type Cluster, type ClusterOptions, openCluster } from "../replica/cluster.ts";
import { sql } from "./group.ts";

export interface DatabaseGroup extends Cluster {
  urlOf(id: string): string;
  sql(id: string, text: string): Promise<Record<string, unknown>[]>;
}

export interface Servers {
  readonly natsUrl: string;
  /** Superuser URL. */
  readonly postgresUrl: string;
}

/** All three replicas run when it resolves. */
export async function openDatabaseGroup(
  { natsUrl, postgresUrl }: Servers,
  options: Pick<ClusterOptions, "engine" | "timing">,
): Promise<DatabaseGroup> {
  const run = randomBytes(4).toString("hex");
  const admin = new pg.Client({ connectionString: postgresUrl });
  await admin.connect();
  for (const id of ["r1", "r2", "r3"]) await admin.query(`create database "d${run}_${id}"`);
  await admin.end();
  const urlOf = (id: string): string => Object.assign(new URL(postgresUrl), { pathname: `/d${run}_${id}` }).href;
  const cluster = await openCluster({
    connect: (name) => connectNats({ servers: [natsUrl], name, timeoutMs: 5000 }),
    openStores: (identity) => openPostgresStores({ url: urlOf(identity.replica), identity }),
    ...options,
  });
  await Promise.all(cluster.ids.map((id) => cluster.start(id)));
  return { ...cluster, urlOf, sql: (id, text) => sql(urlOf(id), text) };
}
