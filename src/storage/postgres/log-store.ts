/**
 * Owns the consensus log in Postgres. This is the hot path of a commit: one statement, one round trip, one flush.
 *
 * The statement rewrites the state row under `WHERE boot = …` and writes log rows only if that found its row; so a
 * process whose boot is over writes nothing. Rows beyond the state row's last index never exist.
 */
import type { Entry, EntryKind, LogIndex } from "../../consensus/engine.ts";
import { invariant, ShardpactError } from "../../model/errors.ts";
import {
  assertAfter,
  checksumOf,
  compactedEntries,
  damagedEntries,
  fencedError,
  foldWrites,
  isIntact,
} from "../log-record.ts";
import type { LogStore, LogWrite, PeerRecord } from "../port.ts";
import { plainBytes } from "./columns.ts";
import { bootSession } from "./log-boot.ts";
import { typedRows } from "./row-types.ts";
import { endDamage, rebuildEntries } from "./log-rebuild.ts";
import { startOver } from "./start-over.ts";
import { compactLog, resetLog } from "./snapshot-log.ts";
import { asUnavailable } from "./failure.ts";
import { closeSession, closeWriters, type PostgresSession, promiseHash, runRead, runWrite } from "./session.ts";

/** Rows of one read, whatever their bytes. */
const READ_ROWS_MAX = 4_096;

export function createPostgresLogStore(session: PostgresSession): LogStore {
  /** Writes follow each other on the one connection. */
  const inTurn = session.logTurn;
  const close = () => closeSession(session);
  return {
    boot: () => inTurn(() => boot(session)),
    append: (writes) => inTurn(() => append(session, writes)),
    read: (from, to, bytesMax) =>
      runRead(session, `reading the log from ${from}`, () => read(session, from, to, bytesMax)),
    recordPeer: (record) => inTurn(() => recordPeer(session, record)),
    loseVote: (reason) => inTurn(() => loseVote(session, reason)),
    rebuild: (indexes) => inTurn(() => rebuildEntries(session, indexes)),
    mended: () => inTurn(() => endDamage(session)),
    startOver: () => inTurn(() => startOver(session)),
    compactTo: (index) => compactLog(session, index),
    resetTo: (position) => resetLog(session, position),
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function boot(session: PostgresSession) {
  if (session.closed && session.lost) throw session.lost;
  // No boot is held from here on: a read that is under way must not take the next one for somebody else's.
  session.boot = 0;
  await closeWriters(session);
  try {
    const state = await bootSession(session);
    session.lost = null;
    return state;
  } catch (error) {
    await closeWriters(session);
    throw asUnavailable(error, `replica ${session.identity.replica} cannot start on its database`);
  }
}

const STATE_SQL = `
WITH state AS (
  UPDATE shardpact.replica_state SET epoch = $2::bigint, voted_for = $3::text, last_index = $4::bigint,
    last_hash = coalesce($5::bytea, (SELECT checksum FROM shardpact.log WHERE index = $4::bigint)), state_hash = $6::bytea
  WHERE boot = $1::bigint RETURNING 1
)`;

const LOG_COLUMNS = "index, epoch, kind, payload, checksum";

/** Rows after the end: none of them exists. */
const ADD_SQL = `, put AS (
  INSERT INTO shardpact.log (${LOG_COLUMNS}) SELECT ${LOG_COLUMNS} FROM ${typedRows("log", 7)}
  WHERE EXISTS (SELECT FROM state)
)`;

const PUT_SQL = ADD_SQL.replace(
  /\)$/,
  `ON CONFLICT (index) DO UPDATE SET epoch = excluded.epoch, kind = excluded.kind, payload = excluded.payload,
    checksum = excluded.checksum
)`,
);

/** Rows that are put again are left to the upsert: one statement may touch a row only once. */
const REMOVE_SQL = `, removed AS (
  DELETE FROM shardpact.log WHERE index >= $8::bigint AND NOT index = ANY($9::bigint[]) AND EXISTS (SELECT FROM state)
)`;

const RESULT_SQL = " SELECT count(*) AS held FROM state";

const STATEMENTS = {
  state: { name: "log_state", text: STATE_SQL + RESULT_SQL },
  add: { name: "log_add", text: STATE_SQL + ADD_SQL + RESULT_SQL },
  put: { name: "log_put", text: STATE_SQL + PUT_SQL + RESULT_SQL },
  remove: { name: "log_remove", text: STATE_SQL + PUT_SQL + REMOVE_SQL + RESULT_SQL },
} as const;

async function append(session: PostgresSession, writes: readonly LogWrite[]): Promise<void> {
  if (session.lost) throw session.lost;
  const { hardState, removeFrom, put, lastIndex } = foldWrites(writes, session.lastIndex);
  assertAfter(session.base.index, removeFrom, put);
  const checksums = put.map(checksumOf);
  const lastHash = put.at(-1)?.index === lastIndex ? checksums.at(-1) : undefined;
  // All of it, every time: what became of the row meanwhile is not believed.
  const promises = hardState === null ? session.promises : { ...session.promises, hardState };
  const values: unknown[] = [
    session.boot,
    promises.hardState.epoch,
    promises.hardState.votedFor,
    lastIndex,
    lastHash === undefined ? null : asBuffer(lastHash),
    promiseHash(promises, lastIndex),
  ];
  const rows = put.map((entry, i) => ({ ...entry, checksum: checksums[i] }));
  if (put.length > 0 || removeFrom !== null) values.push(session.rowTypes.encode("log", rows));
  if (removeFrom !== null) values.push(removeFrom, `{${put.map(({ index }) => index).join(",")}}`);
  // Behind a cut lie rows, until it is mended.
  const end = promises.promisedLast === null ? session.lastIndex : Infinity;
  const statement = STATEMENTS[shapeOf(removeFrom, put, end)];
  await runWrite(session, "log", `appending ${put.length} entries`, async (client) => {
    const result = await client.query<{ held: number }>({ ...statement, values });
    if (result.rows[0]?.held !== 1) throw fencedError(session.identity, session.boot);
  });
  session.lastIndex = lastIndex;
  session.promises = promises;
}

function shapeOf(removeFrom: LogIndex | null, put: readonly Entry[], lastIndex: LogIndex): keyof typeof STATEMENTS {
  if (removeFrom !== null) return "remove";
  if (put.length === 0) return "state";
  return (put[0]?.index ?? 0) > lastIndex ? "add" : "put";
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

interface LogRow {
  readonly index: number;
  readonly epoch: number;
  readonly kind: EntryKind;
  readonly payload: Buffer;
  readonly checksum: Buffer;
}

async function read(
  session: PostgresSession,
  from: LogIndex,
  to: LogIndex,
  bytesMax: number,
): Promise<readonly Entry[]> {
  const { replica } = session.identity;
  invariant(from <= to, `the log is read from ${from} to ${to}`);
  if (to > session.lastIndex)
    throw new ShardpactError("invalid_argument", `replica ${replica}: the log ends at ${session.lastIndex}, not ${to}`);
  const compacted = session.base.index;
  if (from <= compacted) throw compactedEntries(replica, from, compacted);
  const result = await session.pool.query<LogRow>({
    name: "log_read",
    text: `SELECT index, epoch, kind, payload, checksum FROM (
        SELECT *, sum(octet_length(payload)) OVER (ORDER BY index) AS total FROM (
          SELECT * FROM shardpact.log WHERE index BETWEEN $1 AND $2 ORDER BY index LIMIT ${READ_ROWS_MAX}
        ) AS bounded
      ) AS summed WHERE total <= $3 OR index = $1 ORDER BY index`,
    values: [from, to, bytesMax],
  });
  const entries: Entry[] = [];
  for (const { checksum, ...row } of result.rows) {
    const expected = (entries.at(-1)?.index ?? from - 1) + 1;
    const entry: Entry = { ...row, payload: plainBytes(row.payload) };
    if (row.index !== expected || !isIntact(entry, checksum)) {
      if (entries.length > 0) break;
      throw damagedEntries(replica, [expected]);
    }
    entries.push(entry);
  }
  if (entries.length === 0) throw damagedEntries(replica, [from]);
  return entries;
}

async function recordPeer(session: PostgresSession, { peer, incarnation, boot: peerBoot }: PeerRecord): Promise<void> {
  await runWrite(session, "log", `recording peer ${peer}`, async (client) => {
    const result = await client.query(
      `WITH state AS (UPDATE shardpact.replica_state SET boot = boot WHERE boot = $1 RETURNING 1)
       INSERT INTO shardpact.peers (peer, incarnation, boot) SELECT $2, $3, $4 FROM state
       ON CONFLICT (peer) DO UPDATE SET incarnation = excluded.incarnation, boot = excluded.boot`,
      [session.boot, peer, incarnation, peerBoot],
    );
    if (result.rowCount !== 1) throw fencedError(session.identity, session.boot);
  });
}

async function loseVote(session: PostgresSession, reason: string): Promise<void> {
  const promises = { ...session.promises, voting: false };
  await runWrite(session, "log", "giving up the vote", async (client) => {
    const result = await client.query(
      `UPDATE shardpact.replica_state SET voting = false, lost_reason = coalesce(lost_reason, $2), state_hash = $3
       WHERE boot = $1`,
      [session.boot, reason, promiseHash(promises, session.lastIndex)],
    );
    if (result.rowCount !== 1) throw fencedError(session.identity, session.boot);
  });
  session.promises = promises;
}
