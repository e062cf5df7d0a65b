/**
 * Owns the start of a replica on its database: raise the boot number, check that the record of what it promised is the
 * one that it wrote, then let `log-settle.ts` check and mend the log.
 *
 * Raising comes first and waits for the row locks of whoever wrote before: after it, nobody else can write, so what is
 * read afterwards stays true.
 */
import { randomUUID } from "node:crypto";
import { and, asc, eq, gt, lte, sql } from "drizzle-orm";
import { drizzle, type NodePgDatabase } from "drizzle-orm/node-postgres";
import type pg from "pg";
import { APPLIED_ZERO, type AppliedState } from "../../catalog/apply.ts";
import { bytesEqual } from "../../model/bytes.ts";
import { invariant } from "../../model/errors.ts";
import { assertIdentity, configurationsOf, isIntact } from "../log-record.ts";
import type { LogState, StoreIdentity } from "../port.ts";
import { appliedState, ledger, log, peers, replicaState } from "./schema.ts";
import { loadRowTypes } from "./row-types.ts";
import { believedApplied, PROMISES_DAMAGED, PROMISES_MISSING, whyTablesDamaged } from "../log-damage.ts";
import { type LogPlace, promisesOf, readEpochRuns, type ReplicaStateRow, settleLog } from "./log-settle.ts";
import { asUnavailable } from "./failure.ts";
import { connect, LONG_TIMEOUT_MS, type PostgresSession, promiseHash } from "./session.ts";

/** Few statements, run all the time, by key: planned once. An append is durable whatever the database's default is. */
const LOG_SETTINGS = "SET synchronous_commit = on; SET plan_cache_mode = force_generic_plan; SET jit = off";
/**
 * An apply may be lost: the log replays it. Its plans are made before there are statistics and must never become scans
 * of a table that has grown since: nested loops over indexes only.
 */
const APPLY_SETTINGS = `SET synchronous_commit = off; SET plan_cache_mode = force_generic_plan; SET jit = off;
  SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off`;

/** Raises boot, connects the writers, checks and mends what is there, and answers with the state. @throws as `LogStore.boot` */
export async function bootSession(session: PostgresSession): Promise<LogState> {
  const client = await connect(session, "boot", LONG_TIMEOUT_MS);
  try {
    const db = drizzle(client);
    const systemId = await readSystemId(client);
    const { state, applied: stored, forgotten } = await raiseBoot(db, session.identity, systemId);
    const { applied, tablesDamaged } = await seeTables(client, stored);
    session.log = await connectWriter(session, "log");
    session.apply = await connectWriter(session, "apply");
    session.boot = state.boot;
    session.applied = applied;
    session.rowTypes = await loadRowTypes(client);
    const { place, promises, damaged } = await settleLog(client, { state, applied: applied.index, forgotten });
    session.lastIndex = place.lastIndex;
    session.base = place.base;
    session.promises = promises;
    return {
      incarnation: state.incarnation,
      boot: state.boot,
      hardState: promises.hardState,
      firstIndex: place.base.index + 1,
      lastIndex: place.lastIndex,
      base: place.base,
      epochRuns: await readEpochRuns(client, place.lastIndex),
      configurations: configurationsOf(session.identity, await readConfigurations(db, place)),
      applied,
      peers: await db.select().from(peers).orderBy(asc(peers.peer)),
      damaged,
      promisedLast: promises.promisedLast,
      tablesDamaged,
      voting: promises.voting,
      lostReason: state.lostReason,
    };
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function seeTables(
  client: pg.Client,
  applied: AppliedState,
): Promise<{ readonly applied: AppliedState; readonly tablesDamaged: string | null }> {
  const counted = await client.query<{ rows: number }>("SELECT count(*) AS rows FROM shardpact.ledger");
  const newest = await ledgerPoint(client, Number.MAX_SAFE_INTEGER);
  const tablesDamaged = whyTablesDamaged({ applied, ledgerRows: counted.rows[0]?.rows ?? 0, newest });
  if (tablesDamaged === null) return { applied, tablesDamaged };
  const row = await ledgerPoint(client, applied.index);
  return { applied: believedApplied(applied, { index: row?.index ?? 0, row }), tablesDamaged };
}

/** The newest ledger row at or below an index. */
async function ledgerPoint(client: pg.Client, index: number) {
  const { rows } = await client.query<{ index: number; chain: string; timeMs: number }>(
    `SELECT index, encode(chain, 'hex') AS chain, time_ms AS "timeMs" FROM shardpact.ledger WHERE index <= $1
     ORDER BY index DESC LIMIT 1`,
    [index],
  );
  return rows[0] ?? null;
}

async function connectWriter(session: PostgresSession, role: "log" | "apply"): Promise<pg.Client> {
  const client = await connect(session, role);
  await client.query(role === "log" ? LOG_SETTINGS : APPLY_SETTINGS);
  const lose = (error: Error): void => {
    if (session[role] === client)
      session.lost ??= asUnavailable(error, `replica ${session.identity.replica} lost its database`);
  };
  client.on("error", lose);
  client.on("end", () => lose(new Error("the connection ended")));
  return client;
}

/** One transaction: makes the rows of a new database, checks whose they are, raises boot in both. */
async function raiseBoot(
  db: NodePgDatabase,
  identity: StoreIdentity,
  systemId: string,
): Promise<{ state: ReplicaStateRow; applied: AppliedState; forgotten: string | null }> {
  return await db.transaction(async (tx) => {
    await tx.execute(sql`SET LOCAL synchronous_commit = on`);
    const zero = { appliedIndex: 0, chain: APPLIED_ZERO.chain, stateDigest: APPLIED_ZERO.stateDigest, logTimeMs: 0 };
    await tx
      .insert(appliedState)
      .values({ only: true, boot: 0, ...zero })
      .onConflictDoNothing();
    const made = await tx
      .insert(replicaState)
      .values(freshState(identity, systemId))
      .onConflictDoNothing()
      .returning({ boot: replicaState.boot });
    const [found] = await tx.select().from(replicaState).for("update");
    invariant(found, "replica_state has its row");
    assertIdentity(
      { ...identity, groupId: found.groupId, replica: found.replica, engine: found.engine as StoreIdentity["engine"] },
      identity,
    );
    const forgotten = made.length > 0 ? await whyMissing(tx) : whyUnreadable(found);
    const known = systemId !== "" && found.systemId !== "";
    const moved =
      known && found.systemId !== systemId
        ? `the database moved from ${found.systemId} to ${systemId} (a restore or a failover)`
        : null;
    const voting = found.voting && moved === null && forgotten === null;
    const lostReason = voting ? null : (found.lostReason ?? moved ?? forgotten);
    // What can't be read stays unreadable until the log was looked at: a crash in between must find it so again.
    const stateHash = forgotten === null ? promiseHash(promisesOf({ ...found, voting }), found.lastIndex) : UNREADABLE;
    const [state] = await tx
      .update(replicaState)
      .set({
        boot: sql`${replicaState.boot} + 1`,
        ...(systemId === "" ? {} : { systemId }),
        voting,
        lostReason,
        stateHash,
      })
      .returning();
    invariant(state, "replica_state has its row");
    const [applied] = await tx.update(appliedState).set({ boot: state.boot }).returning();
    invariant(applied, "applied_state has its row");
    const { chain, stateDigest, logTimeMs: timeMs } = applied;
    return { state, applied: { index: applied.appliedIndex, chain, stateDigest, timeMs }, forgotten };
  });
}

const UNREADABLE = Buffer.alloc(0);

function freshState(identity: StoreIdentity, systemId: string) {
  return {
    only: true,
    boot: 0,
    ...identity,
    incarnation: randomUUID(),
    systemId,
    epoch: 0,
    firstIndex: 1,
    baseEpoch: 0,
    lastIndex: 0,
    voting: true,
  };
}

/** A replica without its row that has applied something has had one. */
async function whyMissing(tx: Pick<NodePgDatabase, "execute">): Promise<string | null> {
  const found = await tx.execute<{ there: boolean }>(
    sql`SELECT EXISTS (SELECT FROM ${log}) OR EXISTS (SELECT FROM ${ledger}) AS there`,
  );
  return found.rows[0]?.there === true ? PROMISES_MISSING : null;
}

function whyUnreadable(found: ReplicaStateRow): string | null {
  // Written by a release before there was a checksum.
  if (found.stateHash === null) return null;
  return bytesEqual(found.stateHash, promiseHash(promisesOf(found), found.lastIndex)) ? null : PROMISES_DAMAGED;
}

/** Cluster, timeline, database: another one means that commits may be missing. Empty where it may not be read. */
async function readSystemId(client: pg.Client): Promise<string> {
  try {
    const found = await client.query<{ id: string }>(
      `SELECT concat_ws('/', c.system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8), d.oid) AS id
       FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()`,
    );
    return found.rows[0]?.id ?? "";
  } catch (error) {
    if ((error as { code?: string }).code === "42501") return "";
    throw error;
  }
}

/** Those of the log, and before them those that only the ledger still holds. */
async function readConfigurations(db: NodePgDatabase, { base, lastIndex }: LogPlace) {
  const compacted = await db
    .select({ index: ledger.index, payload: ledger.payload })
    .from(ledger)
    .where(and(eq(ledger.kind, "config"), lte(ledger.index, base.index)))
    .orderBy(asc(ledger.index));
  const rows = await db
    .select()
    .from(log)
    .where(and(eq(log.kind, "config"), gt(log.index, base.index), lte(log.index, lastIndex)))
    .orderBy(asc(log.index));
  const intact = rows.filter((row) => isIntact(row, row.checksum));
  return [...compacted, ...intact.map(({ index, payload }) => ({ index, payload }))];
}
