/**
 * Owns the connections of one replica to its database: one for the log, one for apply, a small pool for reads.
 *
 * A session is `lost` from its first failed write or broken connection until `boot()` connects anew and raises the boot
 * number: a COMMIT whose answer never came may still happen, and only a higher boot makes sure that it is over.
 */
import pg from "pg";
import { APPLIED_ZERO, type AppliedState } from "../../catalog/apply.ts";
import type { LogBase } from "../../consensus/engine.ts";
import { ShardpactError } from "../../model/errors.ts";
import { type PromiseRecord, promiseChecksum } from "../log-damage.ts";
import type { StoreIdentity } from "../port.ts";
import { asUnavailable } from "./failure.ts";
import { NO_ROW_TYPES, type RowTypes } from "./row-types.ts";

const CONNECT_TIMEOUT_MS = 5_000;
const LOCK_TIMEOUT_MS = 5_000;
const STATEMENT_TIMEOUT_MS = 10_000;
/** Migrations, the checks of a boot, audits. */
export const LONG_TIMEOUT_MS = 600_000;
/** The client gives up a little after the server should have. */
const ANSWER_GRACE_MS = 2_000;
const POOL_CONNECTIONS_MAX = 4;

export interface PostgresSession {
  readonly url: string;
  readonly identity: StoreIdentity;
  readonly pool: pg.Pool;
  log: pg.Client | null;
  apply: pg.Client | null;
  /** 0 until booted. */
  boot: number;
  lastIndex: number;
  /** What else was promised, as it was last written. */
  promises: Omit<PromiseRecord, "lastIndex">;
  /** What stands before the log's first entry. */
  base: LogBase;
  applied: AppliedState;
  /** Of the database as the newest boot found it. */
  rowTypes: RowTypes;
  /** Runs writes of the log one after another; a failed one does not stop the next. */
  readonly logTurn: <T>(work: () => Promise<T>) => Promise<T>;
  /** Why nothing may be written until the next boot. */
  lost: ShardpactError | null;
  closed: boolean;
}

export function createSession(url: string, identity: StoreIdentity): PostgresSession {
  const pool = new pg.Pool({
    ...clientConfig(url, `shardpact ${identity.replica} read`, STATEMENT_TIMEOUT_MS),
    max: POOL_CONNECTIONS_MAX,
  });
  // A broken idle connection is replaced by the pool; without a listener it would end the process.
  pool.on("error", () => undefined);
  return {
    url,
    identity,
    pool,
    log: null,
    apply: null,
    boot: 0,
    lastIndex: 0,
    promises: { hardState: { epoch: 0, votedFor: null }, voting: false, promisedLast: null },
    base: { index: 0, epoch: 0 },
    applied: APPLIED_ZERO,
    rowTypes: NO_ROW_TYPES,
    logTurn: createTurns(),
    lost: new ShardpactError("unavailable", `replica ${identity.replica}: the database is open but not booted`),
    closed: false,
  };
}

/** What stands beside the promises in their row. */
export function promiseHash(promises: PostgresSession["promises"], lastIndex: number): Buffer {
  return Buffer.from(promiseChecksum({ ...promises, lastIndex }));
}

/** Work follows work, in the order of the calls. */
function createTurns(): PostgresSession["logTurn"] {
  let tail: Promise<unknown> = Promise.resolve();
  return (work) => {
    const turn = tail.then(work, work);
    tail = turn.catch(() => undefined);
    return turn;
  };
}

/** A connection that was checked to be one real, durable Postgres session. @throws `unavailable`, `config_invalid` */
export async function connect(
  session: Pick<PostgresSession, "url" | "identity">,
  role: string,
  timeoutMs: number = STATEMENT_TIMEOUT_MS,
): Promise<pg.Client> {
  const client = new pg.Client(clientConfig(session.url, `shardpact ${session.identity.replica} ${role}`, timeoutMs));
  client.on("error", () => undefined);
  try {
    await client.connect();
    await assertUsable(client);
    return client;
  } catch (error) {
    await endClient(client);
    throw asUnavailable(error, `replica ${session.identity.replica} cannot use its database`);
  }
}

/**
 * Runs one write; a failed one makes the session unusable until the next boot.
 * @throws what the session was lost with, or `fenced`, `damaged`, `unavailable`
 */
export async function runWrite<T>(
  session: PostgresSession,
  client: "log" | "apply",
  doing: string,
  write: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const connection = session[client];
  if (session.lost) throw session.lost;
  if (!connection) throw new ShardpactError("unavailable", `replica ${session.identity.replica} is not connected`);
  try {
    return await write(connection);
  } catch (error) {
    const lost = asUnavailable(error, `replica ${session.identity.replica}: ${doing} failed`);
    // A write of a connection that a boot has replaced says nothing about the new one.
    if (session[client] === connection) {
      session.lost ??= lost;
      void closeWriters(session);
    }
    throw lost;
  }
}

/** Ends the writing connections; a statement in flight is cut off. */
export async function closeWriters(session: PostgresSession): Promise<void> {
  const clients = [session.log, session.apply];
  session.log = null;
  session.apply = null;
  await Promise.all(clients.filter((client) => client !== null).map(endClient));
}

export async function closeSession(session: PostgresSession): Promise<void> {
  if (session.closed) return;
  session.closed = true;
  session.lost = new ShardpactError("closed", `the stores of replica ${session.identity.replica} are closed`);
  await closeWriters(session);
  await session.pool.end();
}

/** Runs a read on the pool; a failure of it does not lose the session. */
export async function runRead<T>(session: PostgresSession, doing: string, read: () => Promise<T>): Promise<T> {
  if (session.closed && session.lost) throw session.lost;
  try {
    return await read();
  } catch (error) {
    throw asUnavailable(error, `replica ${session.identity.replica}: ${doing} failed`);
  }
}

function clientConfig(url: string, name: string, timeoutMs: number): pg.ClientConfig {
  return {
    connectionString: url,
    application_name: name,
    keepAlive: true,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    lock_timeout: Math.max(LOCK_TIMEOUT_MS, timeoutMs / 2),
    statement_timeout: timeoutMs,
    query_timeout: timeoutMs + ANSWER_GRACE_MS,
    idle_in_transaction_session_timeout: timeoutMs,
    types: { getTypeParser },
  };
}

/** bigint columns as safe integers. */
function getTypeParser(oid: number, format?: string): (value: string) => unknown {
  if (oid === pg.types.builtins.INT8 && format !== "binary") return safeInteger;
  return pg.types.getTypeParser(oid, format as "text") as (value: string) => unknown;
}

function safeInteger(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new ShardpactError("value_out_of_range", `${text} is not a safe integer`);
  return value;
}

/** Ends a connection without waiting for a server that does not answer. */
async function endClient(client: pg.Client): Promise<void> {
  const ended = client.end().catch(() => undefined);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, 1_000);
  });
  await Promise.race([ended, late]);
  clearTimeout(timer);
}

interface ServerFacts {
  readonly pid: number;
  readonly fsync: string;
  readonly encoding: string;
  readonly recovering: boolean;
}

async function assertUsable(client: pg.Client): Promise<void> {
  const found = await client.query<ServerFacts>(
    `SELECT pg_backend_pid() AS pid, current_setting('fsync') AS fsync, current_setting('server_encoding') AS encoding,
       pg_is_in_recovery() AS recovering`,
  );
  const facts = found.rows[0];
  const refuse = (message: string, hint: string): never => {
    throw new ShardpactError("config_invalid", message, { hint, details: { ...facts } });
  };
  if (!facts) return refuse("Postgres told nothing about itself", "Check the server.");
  if (facts.fsync !== "on") refuse("Postgres runs with fsync=off", "A replica promises durability: set fsync=on.");
  if (facts.encoding !== "UTF8")
    refuse(`the database is encoded in ${facts.encoding}`, "Create it with ENCODING 'UTF8'.");
  if (facts.recovering) refuse("Postgres is a read-only standby", "Point the replica at its primary.");
  // A pooler makes up the process id that it tells its clients.
  const { processID } = client as unknown as { processID: number | null };
  if (processID !== facts.pid)
    refuse(
      "between the replica and Postgres is a connection pooler",
      "Connect to Postgres itself: locks and fencing need a session.",
    );
}
