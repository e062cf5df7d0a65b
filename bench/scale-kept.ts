/**
 * Owns what replicas keep, measured in the scale bench: resident memory, after all that came and of a process that has just read
 * its database, the size of that database, and of a snapshot of it.
 */
import { readFile, rm, stat } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { LocalGroup } from "../src/cli/embedded/local-group.ts";
import { exportPostgresSnapshot } from "../src/storage/postgres/snapshot-export.ts";
import { median } from "./report.ts";

const MiB = 2 ** 20;
/** Logs are shortened in steps with pauses; a process that has just started has garbage. */
const SETTLE_MS = 5_000;

export interface Kept {
  readonly replicaMiB: number;
  readonly restartedMiB: number;
  readonly databaseMiB: number;
  readonly snapshotMiB: number;
}

/** Starts the replicas again, all of them, one after the other. */
export async function measureKept(local: LocalGroup, snapshotFile: string): Promise<Kept> {
  await sleep(SETTLE_MS);
  const replicaMiB = await residentMiB(local);
  for (const replica of local.replicas) {
    await replica.restart();
    await local.waitForLeader();
  }
  await sleep(SETTLE_MS);
  const restartedMiB = await residentMiB(local);
  const [url] = local.replicas.map(({ postgresUrl }) => postgresUrl);
  if (url === undefined) throw new Error("a group has a replica");
  await exportPostgresSnapshot({ url }, snapshotFile);
  const { size } = await stat(snapshotFile);
  await rm(snapshotFile);
  return { replicaMiB, restartedMiB, databaseMiB: await databaseMiB(url), snapshotMiB: size / MiB };
}

/** The median of the replicas. */
async function residentMiB({ replicas }: LocalGroup): Promise<number> {
  const sizes = replicas.map(async ({ id, pid }) => {
    const status = await readFile(`/proc/${pid}/status`, "utf8");
    const kib = /^VmRSS:\s+(\d+) kB/m.exec(status)?.[1];
    if (kib === undefined) throw new Error(`the memory of ${id} is not known here`);
    return Number(kib) / 1024;
  });
  return median(await Promise.all(sizes));
}

async function databaseMiB(url: string): Promise<number> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    // Rows that were replaced are no longer counted.
    await client.query("VACUUM");
    const { rows } = await client.query<{ size: string }>("SELECT pg_database_size(current_database()) AS size");
    return Number(rows[0]?.size) / MiB;
  } finally {
    await client.end();
  }
}
