/**
 * Owns making a replica's database out of a snapshot: only where there is none, and without a vote unless nobody of the
 * group can have voted yet.
 */
import { ShardpactError } from "../../model/errors.ts";
import type { SnapshotInfo, SnapshotOptions, StoreIdentity } from "../port.ts";
import { openSnapshot } from "../snapshot/file.ts";
import { isFounding } from "../snapshot/refound.ts";
import { openPostgresStores } from "./open.ts";
import { asUnavailable } from "./failure.ts";
import { connect, LONG_TIMEOUT_MS } from "./session.ts";

export interface RestoreOptions extends SnapshotOptions {
  readonly url: string;
  readonly replica: string;
  readonly engine: StoreIdentity["engine"];
}

export interface Restored {
  readonly info: SnapshotInfo;
  readonly incarnation: string;
  readonly voting: boolean;
}

/**
 * Restores into an empty database. It is a new incarnation: the group that it was taken from knows another one under the
 * replica's name, and promises may have been made since, so it does not vote.
 * @throws ShardpactError `invalid_argument` (the database holds a replica), and as `CatalogStore.installSnapshot`
 */
export async function restorePostgresSnapshot(path: string, options: RestoreOptions): Promise<Restored> {
  const { url, replica, engine, signal } = options;
  const { info, voting } = await inspect(path);
  const identity: StoreIdentity = { groupId: info.groupId, replica, engine };
  await assertEmpty(url, identity);
  await using stores = await openPostgresStores({ url, identity, ...(signal ? { signal } : {}) });
  const { incarnation } = await stores.log.boot();
  // First of all: a restore that is cut off must not leave a replica that votes on an empty log.
  if (!voting) await stores.log.loseVote("restored from a snapshot");
  await stores.catalog.installSnapshot(path, { ...options, digest: info.digest });
  return { info, incarnation, voting };
}

async function inspect(path: string): Promise<{ info: SnapshotInfo; voting: boolean }> {
  await using file = await openSnapshot(path);
  await file.checkBytes();
  return { info: file.info, voting: await isFounding(file) };
}

/** Asked before anything is opened: booting a database takes it away from the replica that runs on it. */
async function assertEmpty(url: string, identity: StoreIdentity): Promise<void> {
  const client = await connect({ url, identity }, "restore", LONG_TIMEOUT_MS);
  try {
    const there = await client.query<{ there: boolean }>(
      "SELECT to_regclass('shardpact.replica_state') IS NOT NULL AS there",
    );
    if (there.rows[0]?.there !== true) return;
    const found = await client.query<{ replica: string; group: string }>(
      `SELECT replica, group_id AS "group" FROM shardpact.replica_state`,
    );
    const owner = found.rows[0];
    if (!owner) return;
    throw new ShardpactError("invalid_argument", `the database holds the replica '${owner.replica}' already`, {
      details: { replica: owner.replica, groupId: owner.group },
      hint: "Restore into an empty database: `createdb` a new one.",
    });
  } catch (error) {
    throw asUnavailable(error, "looking into the database failed");
  } finally {
    await client.end().catch(() => undefined);
  }
}
