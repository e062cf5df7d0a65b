/**
 * Owns what a boot does about damage in the log's tables: look, mend out of the ledger, cut, and write down what became of it.
 *
 * Everything is looked at first and written in one transaction, under the boot that was just raised.
 */
import type pg from "pg";
import type { Entry, EntryKind, EpochRun, HardState, LogBase, LogIndex } from "../../consensus/engine.ts";
import { invariant } from "../../model/errors.ts";
import { CHECK_APPLIED_MAX, certainEnd, witnessedEpoch } from "../log-damage.ts";
import { isIntact } from "../log-record.ts";
import { plainBytes } from "./columns.ts";
import { ledgerEntries, putEntries } from "./log-rebuild.ts";
import type { replicaState } from "./schema.ts";
import { type PostgresSession, promiseHash } from "./session.ts";

/** How much of the log is held at once while it is checked (an entry may be a whole page), and how many damaged indexes are named. */
const CHECK_ROWS = 512;
const CHECK_BYTES = 4 * 1024 * 1024;
const DAMAGED_NAMED_MAX = 1_000;

export type ReplicaStateRow = typeof replicaState.$inferSelect;
type Promises = PostgresSession["promises"];

export interface LogPlace {
  readonly base: LogBase;
  readonly lastIndex: LogIndex;
}

export interface Found {
  readonly state: ReplicaStateRow;
  readonly applied: LogIndex;
  /** Why the row of promises can't be believed; null when it can. */
  readonly forgotten: string | null;
}

export interface Settled {
  readonly place: LogPlace;
  readonly promises: Promises;
  readonly damaged: readonly LogIndex[];
}

export function promisesOf(row: Pick<ReplicaStateRow, "epoch" | "votedFor" | "voting" | "promisedLast">): Promises {
  const { epoch, votedFor, voting, promisedLast } = row;
  return { hardState: { epoch, votedFor }, voting, promisedLast };
}

export async function settleLog(client: pg.Client, found: Found): Promise<Settled> {
  const { state, applied, forgotten } = found;
  let { base } = await readBase(client, state, applied);
  const last = forgotten === null ? Math.max(state.lastIndex, base.index) : await highestIndex(client, base.index);
  const below = await findDamaged(client, base.index + 1, Math.min(applied, last), applied - CHECK_APPLIED_MAX);
  let { proven, unproven } = await ledgerEntries(client, below);
  if (below.length >= DAMAGED_NAMED_MAX) {
    // So much of it is gone that it is dropped: what is applied need not be in the log.
    base = { index: applied, epoch: await ledgerEpoch(client, applied) };
    [proven, unproven] = [[], []];
  }
  const above = await findDamaged(client, Math.max(applied, base.index) + 1, last, 0);
  if (forgotten === null && above.length === 0) above.push(...(await damagedTail(client, state, last, applied)));
  const lastIndex = certainEnd(above, applied, last);
  const place = { base, lastIndex };
  const before = forgotten === null ? promisesOf(state) : { ...promisesOf(state), promisedLast: null };
  const promisedLast = promisedAfter(before.promisedLast, lastIndex, last);
  const promises =
    forgotten === null
      ? { ...before, promisedLast }
      : { hardState: await witnessed(client, place, applied), voting: false, promisedLast };
  const unchanged = sameBase(base, state) && lastIndex === state.lastIndex && proven.length === 0;
  if (forgotten !== null || !unchanged) await writeSettled(client, state.boot, { place, promises }, proven);
  // What an earlier cut left behind is still told: it may be all that anybody knows of it.
  const behind = above.length > 0 ? [] : await findDamaged(client, lastIndex + 1, promises.promisedLast ?? 0, 0);
  return { place, promises, damaged: [...unproven, ...above, ...behind] };
}

function promisedAfter(before: LogIndex | null, lastIndex: LogIndex, last: LogIndex): LogIndex | null {
  return lastIndex < last || before !== null ? Math.max(before ?? 0, last) : null;
}

function sameBase(base: LogBase, state: ReplicaStateRow): boolean {
  return base.index === state.firstIndex - 1 && base.epoch === state.baseEpoch;
}

async function writeSettled(
  client: pg.Client,
  boot: number,
  { place, promises }: Pick<Settled, "place" | "promises">,
  proven: readonly Entry[],
): Promise<void> {
  const { base, lastIndex } = place;
  const { hardState, voting, promisedLast } = promises;
  await client.query("BEGIN");
  await client.query("SET LOCAL synchronous_commit = on");
  await putEntries(client, proven);
  await client.query("DELETE FROM shardpact.log WHERE index <= $1", [base.index]);
  const written = await client.query(
    `UPDATE shardpact.replica_state SET epoch = $2, voted_for = $3, first_index = $4, base_epoch = $5, last_index = $6,
       last_hash = (SELECT checksum FROM shardpact.log WHERE index = $6), promised_last = $7, voting = $8, state_hash = $9
     WHERE boot = $1`,
    [
      boot,
      hardState.epoch,
      hardState.votedFor,
      base.index + 1,
      base.epoch,
      lastIndex,
      promisedLast,
      voting,
      promiseHash(promises, lastIndex),
    ],
  );
  invariant(written.rowCount === 1, "the row of this boot is there");
  await client.query("COMMIT");
}

/** The base is proven by the ledger, which holds the entry's epoch; one that is wrong is taken from there. */
async function readBase(client: pg.Client, state: ReplicaStateRow, applied: LogIndex): Promise<{ base: LogBase }> {
  const base: LogBase = { index: state.firstIndex - 1, epoch: state.baseEpoch };
  const right = base.index >= 0 && base.index <= applied;
  if (right && base.epoch === (await ledgerEpoch(client, base.index))) return { base };
  const first = await client.query<{ first: number | null }>("SELECT min(index) AS first FROM shardpact.log");
  const index = Math.min((first.rows[0]?.first ?? applied + 1) - 1, applied);
  return { base: { index, epoch: await ledgerEpoch(client, index) } };
}

async function ledgerEpoch(client: pg.Client, index: LogIndex): Promise<number> {
  if (index === 0) return 0;
  const found = await client.query<{ epoch: number }>("SELECT epoch FROM shardpact.ledger WHERE index = $1", [index]);
  return found.rows[0]?.epoch ?? 0;
}

async function highestIndex(client: pg.Client, least: LogIndex): Promise<LogIndex> {
  const found = await client.query<{ last: number | null }>("SELECT max(index) AS last FROM shardpact.log");
  return Math.max(found.rows[0]?.last ?? 0, least);
}

/** Votes and terms are forgotten: it listens from the highest epoch that it has proof of. */
async function witnessed(client: pg.Client, place: LogPlace, applied: LogIndex): Promise<HardState> {
  const runs = await readEpochRuns(client, place.lastIndex);
  return { epoch: witnessedEpoch(runs, await ledgerEpoch(client, applied)), votedFor: null };
}

/** Where the epoch changes along the log. */
export async function readEpochRuns(client: pg.Client, lastIndex: LogIndex): Promise<readonly EpochRun[]> {
  const found = await client.query<EpochRun>(
    `SELECT epoch, index AS first
     FROM (SELECT index, epoch, lag(epoch) OVER (ORDER BY index) AS before FROM shardpact.log WHERE index <= $1) AS entry
     WHERE before IS DISTINCT FROM epoch ORDER BY index`,
    [lastIndex],
  );
  return found.rows;
}

/**
 * Rows of [from, to] that are missing, or are not what was written. Below `looked` only those are read whose epoch is not
 * that of the row before, and configurations: what an engine starts from.
 */
async function findDamaged(client: pg.Client, from: LogIndex, to: LogIndex, looked: LogIndex): Promise<LogIndex[]> {
  const damaged = new Set(await findMissing(client, from, to));
  for (let next = from; next <= to && damaged.size < DAMAGED_NAMED_MAX;) {
    const { rows } = await client.query<LogRow>(
      `SELECT index, epoch, kind, payload, checksum FROM (
         SELECT *, sum(octet_length(payload)) OVER (ORDER BY index) AS total FROM (
           SELECT * FROM (
             SELECT *, lag(epoch) OVER (ORDER BY index) AS before FROM shardpact.log WHERE index BETWEEN $5 AND $2
           ) AS entry
           WHERE index >= $1 AND (index >= $3 OR kind = 'config' OR before IS DISTINCT FROM epoch) ORDER BY index LIMIT $4
         ) AS bounded
       ) AS summed WHERE total - octet_length(payload) < $6 ORDER BY index`,
      [next, to, looked, CHECK_ROWS, Math.max(next - 1, 0), CHECK_BYTES],
    );
    for (const row of rows) {
      const entry: Entry = { index: row.index, epoch: row.epoch, kind: row.kind, payload: plainBytes(row.payload) };
      if (!isIntact(entry, row.checksum)) damaged.add(row.index);
    }
    const last = rows.at(-1);
    if (!last) break;
    next = last.index + 1;
  }
  return [...damaged].toSorted((a, b) => a - b);
}

interface LogRow {
  readonly index: number;
  readonly epoch: number;
  readonly kind: EntryKind;
  readonly payload: Buffer;
  readonly checksum: Buffer;
}

async function findMissing(client: pg.Client, from: LogIndex, to: LogIndex): Promise<LogIndex[]> {
  if (from > to) return [];
  const there = await client.query<{ count: number }>(
    "SELECT count(*) AS count FROM shardpact.log WHERE index BETWEEN $1 AND $2",
    [from, to],
  );
  if (there.rows[0]?.count === to - from + 1) return [];
  // The gaps between neighbours, the ends included.
  const { rows: gaps } = await client.query<{ first: number; last: number }>(
    `SELECT before + 1 AS first, index - 1 AS last FROM (
       SELECT index, lag(index, 1, $1::bigint - 1) OVER (ORDER BY index) AS before
       FROM (SELECT index FROM shardpact.log WHERE index BETWEEN $1 AND $2 UNION ALL SELECT $2::bigint + 1) AS there
     ) AS neighbours WHERE index > before + 1 ORDER BY index LIMIT $3`,
    [from, to, DAMAGED_NAMED_MAX],
  );
  const missing: LogIndex[] = [];
  for (const { first, last } of gaps)
    for (let index = first; index <= last && missing.length < DAMAGED_NAMED_MAX; index++) missing.push(index);
  return missing;
}

/** The last row is the one that the last append wrote: a log that lost its end together with `last_index` shows here. */
async function damagedTail(
  client: pg.Client,
  state: ReplicaStateRow,
  last: LogIndex,
  applied: LogIndex,
): Promise<LogIndex[]> {
  if (last !== state.lastIndex || last <= applied || state.lastHash === null) return [];
  const { rows } = await client.query<{ same: boolean }>(
    "SELECT checksum = $2 AS same FROM shardpact.log WHERE index = $1",
    [last, Buffer.from(state.lastHash)],
  );
  return rows[0]?.same === false ? [last] : [];
}
