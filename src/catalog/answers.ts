/**
 * Owns how rows become answers, so that every store gives the same bytes for the same rows.
 *
 * Voters sign canonical JSON of these answers: whatever could differ between stores (order of rows, extra columns,
 * representation of bytes) is decided here and nowhere else.
 */
import type { CatalogAnswer, QueryKind, RevocationAnswer, VersionAnswer } from "../model/api.ts";
import { type Digest, formatDigest } from "../model/bytes.ts";
import { decodeCommand, readStamp } from "../model/commands.ts";
import { LIMITS } from "../model/limits.ts";
import { nearestNames } from "../model/nearest.ts";
import { hashBytes } from "../merkle/hash.ts";
import { packLeaves } from "../merkle/manifest.ts";
import type { LedgerRow } from "./apply.ts";
import type {
  DatasetRow,
  PageRow,
  PinRow,
  ReceiptRow,
  RevocationRow,
  RunEpochRow,
  RunRow,
  TagMoveRow,
  TagRow,
  VersionPageRow,
  VersionRow,
} from "./rows.ts";

export type JsonRow = Readonly<Record<string, unknown>>;

/** `revocation`: of this version, or null. */
export function versionAnswer(row: VersionRow, revocation: RevocationRow | null): VersionAnswer {
  const { dataset, version, root, index, timeMs, actor, message, treeHash, pageCount, schema, classes } = row;
  return {
    dataset,
    version,
    root,
    index,
    timeMs,
    actor,
    message,
    treeHash,
    pageCount,
    schema,
    classes,
    splits: [...row.splits],
    totals: row.totals.map(({ split, rows, bytes, shards }) => ({ split, rows, bytes, shards })),
    splitRule: row.splitRule,
    revocation: revocation && revocationAnswer(revocation),
  };
}

export function revocationAnswer({ subject, index, timeMs, actor, reason }: RevocationRow): RevocationAnswer {
  return { subject, index, timeMs, actor, reason };
}

/** What an answer tells of a version's page. */
export type PlacedPage = Pick<VersionPageRow, "position" | "page" | "totals">;

/** Manifest entries by position. */
export function pagesAnswer(rows: readonly PlacedPage[]): CatalogAnswer {
  const entries = byPosition(rows).map(({ page, totals }) => ({
    page,
    totals: totals.map(({ split, rows: count, bytes, shards }) => ({ split, rows: count, bytes, shards })),
  }));
  return { kind: "pages", entries };
}

/** The same packed, and the frontier before the first. */
export function leavesAnswer(rows: readonly PlacedPage[], frontier: readonly Digest[]): CatalogAnswer {
  return { kind: "leaves", frontier: [...frontier], leaves: packLeaves(byPosition(rows)) };
}

function byPosition(rows: readonly PlacedPage[]): readonly PlacedPage[] {
  return rows.toSorted((a, b) => a.position - b.position);
}

export function objectAnswer({ kind, bytes }: PageRow): CatalogAnswer {
  return { kind: "object", objectKind: kind, bytes };
}

/** `wanted` is not among `names` (all that there are, or as many as are cheap to read). */
export function notFoundAnswer(what: string, wanted: string, names: Iterable<string>): CatalogAnswer {
  return { kind: "not_found", what, nearest: nearestNames(wanted, names) };
}

/** What each list query is answered from. */
export interface ListRows {
  datasets: DatasetRow;
  /** Each with its revocation. */
  versions: { readonly row: VersionRow; readonly revocation: RevocationRow | null };
  tags: TagRow;
  tag_history: TagMoveRow;
  run: RunRow | ReceiptRow;
  receipts: ReceiptRow;
  run_epochs: RunEpochRow;
  runs: RunRow;
  pins: PinRow;
  revocations: RevocationRow;
  revoked_shards: RevocationRow;
  revocations_since: RevocationRow;
  ledger: LedgerRow;
  configurations: LedgerRow;
  outcome: LedgerRow;
}
export type ListKind = keyof ListRows & QueryKind;

/** Where a list goes on, and how far: `after` is exclusive. */
export interface ListPage {
  readonly after?: string | number;
  readonly limit?: number;
}

/**
 * The answer to a list query (which is itself a `ListPage`): rows past `after`, sorted by key, at most `limit`, as JSON.
 * Stores may pass more rows than that; they may not leave one out. `run`: its row, then its receipts, newest first.
 */
export function rowsAnswer<K extends ListKind>(
  kind: K,
  rows: readonly ListRows[K][],
  page: ListPage = {},
): CatalogAnswer {
  const list: List<ListRows[K]> = LISTS[kind];
  const { after, limit = LIMITS.apiRowsMax } = page;
  const keyed = rows.map((row) => ({ row, key: list.key(row) }));
  const wanted = after === undefined ? keyed : keyed.filter(({ key }) => compareKeys(key, [after]) > 0);
  wanted.sort((a, b) => compareKeys(a.key, b.key));
  return { kind: "rows", rows: wanted.slice(0, limit).map(({ row }) => list.json(row)) };
}

type Key = readonly (string | number)[];

interface List<R> {
  /** What rows are sorted by; its first part is what `after` is compared with. */
  readonly key: (row: R) => Key;
  readonly json: (row: R) => JsonRow;
}

const LISTS: { readonly [K in ListKind]: List<ListRows[K]> } = {
  datasets: { key: (row) => [row.name], json: withoutTable },
  versions: { key: ({ row }) => [row.version], json: ({ row, revocation }) => versionAnswer(row, revocation) },
  tags: { key: (row) => [row.tag], json: withoutTable },
  tag_history: { key: (row) => [row.index], json: withoutTable },
  run: { key: (row) => [row.table === "run" ? Number.NEGATIVE_INFINITY : -row.index], json: withTable },
  receipts: { key: (row) => [row.index], json: withoutTable },
  run_epochs: { key: (row) => [row.epoch], json: withoutTable },
  runs: { key: (row) => [row.run], json: withoutTable },
  pins: { key: (row) => [row.dataset, row.run], json: withoutTable },
  revocations: { key: (row) => [row.index], json: withoutTable },
  revoked_shards: { key: (row) => [row.subject], json: withoutTable },
  revocations_since: { key: (row) => [row.index], json: withoutTable },
  ledger: { key: (row) => [row.index], json: ledgerJson },
  configurations: { key: (row) => [row.index], json: configurationJson },
  outcome: { key: (row) => [row.index], json: ledgerJson },
};

function withoutTable(row: { readonly table: string }): JsonRow {
  const { table: _table, ...rest } = row;
  return rest;
}

/** Two kinds of rows in one answer are told apart by `table`. */
function withTable(row: RunRow | ReceiptRow): JsonRow {
  return { ...row };
}

/** The payload is named by its plain BLAKE3: it may be a quarter of a megabyte. */
function ledgerJson({ payload, ...rest }: LedgerRow): JsonRow {
  return { ...rest, payload: formatDigest(hashBytes(payload)), payloadBytes: payload.byteLength };
}

/** A configuration's own text, or the body of a signature. */
function configurationJson({ index, kind, chain, payload }: LedgerRow): JsonRow {
  if (kind === "config") return { index, kind, chain, payload: new TextDecoder().decode(payload) };
  return { index, kind, body: decodeCommand(readStamp(payload).encoded).body };
}

/** Numbers by value, text by UTF-16 code units (names are ASCII: the order of COLLATE "C"). A prefix equals. */
function compareKeys(a: Key, b: Key): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const [x, y] = [a[i] ?? 0, b[i] ?? 0];
    if (x !== y) return x < y ? -1 : 1;
  }
  return 0;
}
