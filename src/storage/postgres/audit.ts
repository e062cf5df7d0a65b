/**
 * Owns the audit of one replica's database: is every row what the ledger's bytes lead to?
 *
 * It replays the exact payloads of the ledger through the pure state machine into memory, and compares chain, answers
 * and every row of every table with what is stored, in one read-only snapshot. It trusts nothing but the payloads; that
 * the payloads are those the group chose is what comparing `applied.chain` with another replica (or a lock file) shows.
 * Memory: the catalog once.
 */
import type pg from "pg";
import { APPLIED_ZERO, type AppliedState, type LedgerRow } from "../../catalog/apply.ts";
import { PRIMARY_KEYS, type Row, type Table } from "../../catalog/rows.ts";
import { rowKey } from "../../catalog/view.ts";
import type { Entry } from "../../consensus/engine.ts";
import { hashBytes } from "../../merkle/hash.ts";
import { objectDigest } from "../../merkle/root.ts";
import { formatDigest } from "../../model/bytes.ts";
import { ShardpactError, toShardpactError } from "../../model/errors.ts";
import { canonicalJson } from "../../model/json.ts";
import { createMemoryDisk, type MemoryDisk, rowsIn } from "../memory/disk.ts";
import { openMemoryStores } from "../memory/open.ts";
import { isIntact } from "../log-record.ts";
import type { ReplicaStores } from "../port.ts";
import { plainBytes } from "./columns.ts";
import { asUnavailable } from "./failure.ts";
import { connect, LONG_TIMEOUT_MS } from "./session.ts";
import { rowFromJson, tableSql } from "./tables.ts";

export interface AuditFinding {
  /** Name in schema `shardpact`. */
  readonly table: string;
  /** Primary key as text. */
  readonly row: string;
  /** Log index, where the row has one. */
  readonly index: number | null;
  readonly problem: string;
}

export interface AuditReport {
  /** Recomputed from the payloads: equal on every honest replica at the same index. */
  readonly applied: AppliedState;
  readonly rows: number;
  /** In the order in which they were found; at most `findingsMax`. */
  readonly findings: readonly AuditFinding[];
}

export interface AuditOptions {
  /** Called with ledger rows replayed and to replay, then with rows compared. */
  readonly onProgress?: (step: "ledger" | "rows", done: number, total: number) => void;
  readonly signal?: AbortSignal;
  readonly findingsMax?: number;
}

const REPLAY_ROWS = 128;
const FETCH_ROWS = 1_000;

interface Audit {
  readonly client: pg.Client;
  readonly disk: MemoryDisk;
  readonly options: AuditOptions;
  readonly findings: AuditFinding[];
  readonly findingsMax: number;
}

/**
 * Recomputes one database from its ledger and reports every difference.
 * @throws ShardpactError `unavailable`, `upgrade_required` (a ledger of a newer build), `aborted`
 */
export async function auditVerify(url: string, options: AuditOptions = {}): Promise<AuditReport> {
  const identity = { groupId: "audit", replica: "audit", engine: "raft" as const };
  const client = await connect({ url, identity }, "audit", LONG_TIMEOUT_MS);
  try {
    await client.query("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY");
    const disk = createMemoryDisk();
    await using stores = openMemoryStores(disk, identity);
    await stores.log.boot();
    const audit = { client, disk, options, findings: [], findingsMax: options.findingsMax ?? 1_000 };
    await replayLedger(audit, stores);
    await compareState(audit);
    await compareLog(audit);
    let rows = 0;
    for (const table of Object.keys(PRIMARY_KEYS) as Table[]) rows += await compareTable(audit, table, rows);
    return { applied: disk.applied, rows, findings: audit.findings };
  } catch (error) {
    throw asUnavailable(error, "auditing the database failed");
  } finally {
    await client.end().catch(() => undefined);
  }
}

function found(audit: Audit, table: string, row: string, index: number | null, problem: string): void {
  if (audit.findings.length < audit.findingsMax) audit.findings.push({ table, row, index, problem });
}

function goOn({ options }: Audit): void {
  if (options.signal?.aborted) throw new ShardpactError("aborted", "the audit was aborted");
}

interface StoredLedgerRow {
  readonly index: number;
  readonly epoch: number;
  readonly kind: LedgerRow["kind"];
  readonly payload: Buffer;
  readonly rest: Readonly<Record<string, unknown>>;
}

/** Applies the ledger's payloads in order; stops at the first that can't be applied, since no later one can either. */
async function replayLedger(audit: Audit, stores: ReplicaStores): Promise<void> {
  const total = await one<number>(audit.client, "SELECT count(*) AS value FROM shardpact.ledger");
  // Chains depend on all that came before: only the first difference says something.
  let chained = true;
  for (let done = 0; ;) {
    goOn(audit);
    const batch = await audit.client.query<StoredLedgerRow>({
      name: "audit_ledger",
      text: `SELECT index, epoch, kind, payload, json_build_object('timeMs', time_ms, 'kind', kind, 'actor', actor,
          'commandId', command_id, 'retryOf', retry_of, 'bodyDigest', encode(body_digest, 'hex'), 'outcome', outcome,
          'chain', encode(chain, 'hex')) AS rest
        FROM shardpact.ledger WHERE index > $1 ORDER BY index LIMIT ${REPLAY_ROWS}`,
      values: [audit.disk.applied.index],
    });
    if (batch.rows.length === 0) return;
    for (const stored of batch.rows) {
      const { index, epoch, kind, payload } = stored;
      const entry: Entry = {
        index,
        epoch,
        kind: kind === "noop" || kind === "config" ? kind : "command",
        payload: plainBytes(payload),
      };
      try {
        await stores.catalog.apply([entry]);
      } catch (error) {
        const { code, message } = toShardpactError(error);
        if (code === "upgrade_required") throw error;
        return found(
          audit,
          "ledger",
          String(audit.disk.applied.index + 1),
          audit.disk.applied.index + 1,
          `cannot be replayed: ${message}`,
        );
      }
      chained = compareLedgerRow(audit, stored, chained);
    }
    done += batch.rows.length;
    audit.options.onProgress?.("ledger", done, total);
  }
}

function compareLedgerRow(audit: Audit, { index, rest }: StoredLedgerRow, chained: boolean): boolean {
  const expected = audit.disk.ledger[index - 1];
  let holds = chained;
  for (const [field, value] of Object.entries(rest)) {
    const wanted = expected?.[field as keyof LedgerRow];
    if (canonicalJson(value) === canonicalJson(wanted)) continue;
    if (field === "chain" && !chained) continue;
    if (field === "chain") holds = false;
    found(audit, "ledger", String(index), index, `${field} is ${show(value)}, the payloads give ${show(wanted)}`);
  }
  return holds;
}

async function compareState(audit: Audit): Promise<void> {
  const stored = await audit.client.query<{ state: AppliedState }>(
    `SELECT json_build_object('index', applied_index, 'chain', encode(chain, 'hex'),
       'stateDigest', encode(state_digest, 'hex'), 'timeMs', log_time_ms) AS state FROM shardpact.applied_state`,
  );
  const state = stored.rows[0]?.state ?? APPLIED_ZERO;
  for (const field of ["index", "chain", "stateDigest", "timeMs"] as const) {
    const wanted = audit.disk.applied[field];
    if (state[field] === wanted) continue;
    found(audit, "applied_state", field, state.index, `${field} is ${state[field]}, the payloads give ${wanted}`);
  }
}

/** Log entries that are applied must be the ledger's, and all must match their checksums. */
async function compareLog(audit: Audit): Promise<void> {
  const cursor = "SELECT index, epoch, kind, payload, checksum FROM shardpact.log ORDER BY index";
  for await (const row of fetchAll<{
    index: number;
    epoch: number;
    kind: Entry["kind"];
    payload: Buffer;
    checksum: Buffer;
  }>(audit, cursor)) {
    const entry: Entry = { index: row.index, epoch: row.epoch, kind: row.kind, payload: plainBytes(row.payload) };
    const chosen = audit.disk.ledger[row.index - 1];
    if (!isIntact(entry, row.checksum))
      found(audit, "log", String(row.index), row.index, "does not match its checksum");
    else if (chosen && Buffer.compare(chosen.payload, entry.payload) !== 0)
      found(audit, "log", String(row.index), row.index, "is not what the ledger says was chosen");
  }
}

/** Every stored row against every recomputed one. Answers how many were compared. */
async function compareTable(audit: Audit, table: Table, before: number): Promise<number> {
  const expected = new Map(rowsIn(audit.disk, table));
  const name = tableSql(table).slice("shardpact.".length);
  let count = 0;
  for await (const { row: json } of fetchAll<{ row: Readonly<Record<string, unknown>> }>(
    audit,
    `SELECT to_json(t) AS row FROM ${tableSql(table)} t`,
  )) {
    const row = rowFromJson(table, json);
    const key = rowKey(row);
    const wanted = expected.get(key);
    const index = "index" in row ? row.index : null;
    const keyText = key.split("\n").slice(1).join(" ");
    if (!wanted) found(audit, name, keyText, index, "does not follow from the ledger");
    else for (const problem of differences(row, wanted)) found(audit, name, keyText, index, problem);
    if (row.table === "page" && objectDigest(row.kind, row.bytes) !== row.digest)
      found(audit, name, keyText, row.putIndex, `bytes hash to ${objectDigest(row.kind, row.bytes)}`);
    expected.delete(key);
    if (++count % FETCH_ROWS === 0) audit.options.onProgress?.("rows", before + count, before + count);
  }
  for (const [key, row] of expected)
    found(audit, name, key.split("\n").slice(1).join(" "), "index" in row ? row.index : null, "is missing");
  return count;
}

function differences(stored: Row, wanted: Row): string[] {
  return Object.entries(wanted).flatMap(([field, value]) => {
    const other = (stored as unknown as Readonly<Record<string, unknown>>)[field];
    return show(other) === show(value) ? [] : [`${field} is ${show(other)}, the ledger gives ${show(value)}`];
  });
}

/** A value as text that differs if the value does. */
function show(value: unknown): string {
  if (value instanceof Uint8Array) return `${value.byteLength} bytes ${formatDigest(hashBytes(value))}`;
  return canonicalJson(value ?? null);
}

/** All rows of a query through a cursor, so that no table is in memory twice. */
async function* fetchAll<R extends pg.QueryResultRow>(audit: Audit, query: string): AsyncGenerator<R> {
  await audit.client.query(`DECLARE audit_rows NO SCROLL CURSOR FOR ${query}`);
  for (;;) {
    goOn(audit);
    const { rows } = await audit.client.query<R>(`FETCH ${FETCH_ROWS} FROM audit_rows`);
    if (rows.length === 0) break;
    yield* rows;
  }
  await audit.client.query("CLOSE audit_rows");
}

async function one<T>(client: pg.Client, query: string): Promise<T> {
  const { rows } = await client.query<{ value: T }>(query);
  if (!rows[0]) throw new ShardpactError("damaged", `'${query}' answered nothing`);
  return rows[0].value;
}
