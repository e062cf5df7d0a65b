/**
 * Owns the start of a replica on its database: raise the boot number, then read and check what is there.
 *
 * Raising comes first and waits for the row locks of whoever wrote before: after it, nobody else can write, so what is
 * read afterwards stays true.
 */
import { randomUUID } from "node:crypto";
import { and, asc, eq, gte, lt, lte, sql } from "drizzle-orm";
import { drizzle, type NodePgDatabase } from "drizzle-orm/node-postgres";
import type pg from "pg";
import { APPLIED_ZERO, type AppliedState } from "../../catalog/apply.ts";
import type { EpochRun, LogIndex } from "../../consensus/engine.ts";
import { bytesEqual } from "../../model/bytes.ts";
import { invariant } from "../../model/errors.ts";
import { assertIdentity, configurationsOf, isIntact } from "../log-record.ts";
import type { LogState, StoreIdentity } from "../port.ts";
import { appliedState, ledger, log, peers, replicaState } from "./schema.ts";
import { loadRowTypes } from "./row-types.ts";
import { asUnavailable, connect, LONG_TIMEOUT_MS, type PostgresSession } from "./session.ts";

/** Few statements, run all the time, by key: planned once. An append is durable whatever the database's default is. */
const LOG_SETTINGS = "SET synchronous_commit = on; SET plan_cache_mode = force_generic_plan; SET jit = off";
/**
 * An apply may be lost: the log replays it. Its plans are made before there are statistics and must never become scans
 * of a table that has grown since: nested loops over indexes only.
 */
const APPLY_SETTINGS = `SET synchronous_commit = off; SET plan_cache_mode = force_generic_plan; SET jit = off;
  SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off`;

/** How much of the log is held at once while it is checked, and how many damaged indexes are named. */
const CHECK_ROWS = 512;
const DAMAGED_NAMED_MAX = 1_000;

/** Raises boot, connects the writers and answers with the state. @throws as `LogStore.boot` */
export async function bootSession(session: PostgresSession): Promise<LogState> {
  const client = await connect(session, "boot", LONG_TIMEOUT_MS);
  try {
    const db = drizzle(client);
    const systemId = await readSystemId(client);
    const { state, applied } = await raiseBoot(db, session.identity, systemId);
    session.log = await connectWriter(session, "log");
    session.apply = await connectWriter(session, "apply");
    session.boot = state.boot;
    session.lastIndex = state.lastIndex;
    session.base = { index: state.firstIndex - 1, epoch: state.baseEpoch };
    session.applied = applied;
    session.rowTypes = await loadRowTypes(client);
    const configurations = await readConfigurations(db, state);
    const damaged = new Set([...configurations.damaged, ...(await findDamaged(db, state, applied.index))]);
    return {
      incarnation: state.incarnation,
      boot: state.boot,
      hardState: { epoch: state.epoch, votedFor: state.votedFor },
      firstIndex: state.firstIndex,
      lastIndex: state.lastIndex,
      base: session.base,
      epochRuns: await readEpochRuns(client, state.lastIndex),
      configurations: configurationsOf(session.identity, configurations.intact),
      applied,
      peers: await db.select().from(peers).orderBy(asc(peers.peer)),
      damaged: [...damaged].toSorted((a, b) => a - b),
      voting: state.voting,
    };
  } finally {
    await client.end().catch(() => undefined);
  }
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

type ReplicaStateRow = typeof replicaState.$inferSelect;

/** One transaction: makes the rows of a new database, checks whose they are, raises boot in both. */
async function raiseBoot(
  db: NodePgDatabase,
  identity: StoreIdentity,
  systemId: string,
): Promise<{ state: ReplicaStateRow; applied: AppliedState }> {
  return await db.transaction(async (tx) => {
    await tx.execute(sql`SET LOCAL synchronous_commit = on`);
    const fresh = { only: true, boot: 0 };
    await tx
      .insert(replicaState)
      .values({
        ...fresh,
        ...identity,
        incarnation: randomUUID(),
        systemId,
        epoch: 0,
        firstIndex: 1,
        baseEpoch: 0,
        lastIndex: 0,
        voting: true,
      })
      .onConflictDoNothing();
    const zero = { appliedIndex: 0, chain: APPLIED_ZERO.chain, stateDigest: APPLIED_ZERO.stateDigest, logTimeMs: 0 };
    await tx
      .insert(appliedState)
      .values({ ...fresh, ...zero })
      .onConflictDoNothing();
    const [found] = await tx.select().from(replicaState);
    invariant(found, "replica_state has its row");
    assertIdentity(
      { ...identity, groupId: found.groupId, replica: found.replica, engine: found.engine as StoreIdentity["engine"] },
      identity,
    );
    const known = systemId !== "" && found.systemId !== "";
    const reason = `the database moved from ${found.systemId} to ${systemId} (a restore or a failover)`;
    const lost = known && found.systemId !== systemId ? { voting: false, lostReason: reason } : {};
    const [state] = await tx
      .update(replicaState)
      .set({ boot: sql`${replicaState.boot} + 1`, ...(systemId === "" ? {} : { systemId }), ...lost })
      .returning();
    invariant(state, "replica_state has its row");
    const [applied] = await tx.update(appliedState).set({ boot: state.boot }).returning();
    invariant(applied, "applied_state has its row");
    const { chain, stateDigest, logTimeMs: timeMs } = applied;
    return { state, applied: { index: applied.appliedIndex, chain, stateDigest, timeMs } };
  });
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
async function readConfigurations(db: NodePgDatabase, { firstIndex, lastIndex }: ReplicaStateRow) {
  const compacted = await db
    .select({ index: ledger.index, payload: ledger.payload })
    .from(ledger)
    .where(and(eq(ledger.kind, "config"), lt(ledger.index, firstIndex)))
    .orderBy(asc(ledger.index));
  const rows = await db
    .select()
    .from(log)
    .where(and(eq(log.kind, "config"), lte(log.index, lastIndex)))
    .orderBy(asc(log.index));
  return {
    intact: [
      ...compacted,
      ...rows.filter((row) => isIntact(row, row.checksum)).map(({ index, payload }) => ({ index, payload })),
    ],
    damaged: rows.filter((row) => !isIntact(row, row.checksum)).map((row) => row.index),
  };
}

/** Where the epoch changes along the log. */
async function readEpochRuns(client: pg.Client, lastIndex: LogIndex): Promise<readonly EpochRun[]> {
  const found = await client.query<EpochRun>(
    `SELECT epoch, index AS first
     FROM (SELECT index, epoch, lag(epoch) OVER (ORDER BY index) AS before FROM shardpact.log WHERE index <= $1) AS entry
     WHERE before IS DISTINCT FROM epoch ORDER BY index`,
    [lastIndex],
  );
  return found.rows;
}

/** Rows missing at or below the last index, and rows above the applied index that are not what was written. */
async function findDamaged(
  db: NodePgDatabase,
  state: ReplicaStateRow,
  applied: LogIndex,
): Promise<readonly LogIndex[]> {
  const damaged = await findMissing(db, state);
  for (let from = applied + 1; from <= state.lastIndex && damaged.length < DAMAGED_NAMED_MAX;) {
    const rows = await db
      .select()
      .from(log)
      .where(and(gte(log.index, from), lte(log.index, state.lastIndex)))
      .orderBy(asc(log.index))
      .limit(CHECK_ROWS);
    for (const row of rows) if (!isIntact(row, row.checksum)) damaged.push(row.index);
    const last = rows.at(-1);
    if (!last) break;
    from = last.index + 1;
  }
  const [tail] = await db.select({ checksum: log.checksum }).from(log).where(eq(log.index, state.lastIndex));
  if (tail && state.lastHash && !bytesEqual(tail.checksum, state.lastHash)) damaged.push(state.lastIndex);
  return damaged;
}

async function findMissing(db: NodePgDatabase, state: ReplicaStateRow): Promise<LogIndex[]> {
  const inLog = and(gte(log.index, state.firstIndex), lte(log.index, state.lastIndex));
  const there = await db.$count(log, inLog);
  if (there === state.lastIndex - state.firstIndex + 1) return [];
  const missing = await db.execute<{ index: string }>(
    sql`SELECT i AS index FROM generate_series(${state.firstIndex}::bigint, ${state.lastIndex}::bigint) AS i
        WHERE NOT EXISTS (SELECT FROM ${log} WHERE ${log.index} = i) ORDER BY i LIMIT ${DAMAGED_NAMED_MAX}`,
  );
  return missing.rows.map((row) => Number(row.index));
}
