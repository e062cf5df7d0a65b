/**
 * Owns how a catalog query is answered as of a log index, over whatever store holds the rows.
 *
 * Every row is read by the index that made it, and what may change later (a tag, a run's end, a pin's release) is read
 * as it stood; so an answer as of an index is the same on every replica, however far it has applied, and whether its
 * store needs one look or several.
 */
import type { LedgerRow } from "../catalog/apply.ts";
import {
  type ListKind,
  type ListRows,
  leavesAnswer,
  notFoundAnswer,
  objectAnswer,
  pagesAnswer,
  type PlacedPage,
  rowsAnswer,
  versionAnswer,
} from "../catalog/answers.ts";
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
  VersionRow,
} from "../catalog/rows.ts";
import type { LogIndex } from "../consensus/engine.ts";
import { computeRoot, objectDigest } from "../merkle/root.ts";
import type { CatalogAnswer, CatalogQuery } from "../model/api.ts";
import { type Digest, utf8 } from "../model/bytes.ts";
import { canonicalJson } from "../model/json.ts";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import type { Maybe } from "../model/maybe.ts";
import { formatRef, type Ref, type RefTarget } from "../model/names.ts";

/** A version with its revocation, as of an index. */
export interface VersionFound {
  readonly row: VersionRow;
  readonly revocation: RevocationRow | null;
}

/** What a store can look up. Lists are in key order, past `after`, at most `limit`; all as of the source's index. */
export interface CatalogSource {
  version(dataset: string, target: RefTarget): Maybe<VersionFound | null>;
  dataset(name: string): Maybe<DatasetRow | null>;
  datasets(after: string, limit: number): Maybe<readonly DatasetRow[]>;
  versions(dataset: string, after: number, limit: number): Maybe<readonly VersionFound[]>;
  /** Pages of a version that is there, from a position on. */
  pages(dataset: string, version: number, from: number, limit: number): Maybe<readonly PlacedPage[]>;
  /** Frontier of the tree before a page of such a version; null when it has none at the position. */
  frontierBefore(dataset: string, version: number, position: number): Maybe<readonly Digest[] | null>;
  object(digest: Digest): Maybe<PageRow | null>;
  tags(dataset: string, limit: number): Maybe<readonly TagRow[]>;
  tagMoves(dataset: string, after: number, limit: number): Maybe<readonly TagMoveRow[]>;
  run(run: string): Maybe<RunRow | null>;
  /** Newest first. */
  newestReceipts(run: string, limit: number): Maybe<readonly ReceiptRow[]>;
  receipts(run: string, after: number, limit: number): Maybe<readonly ReceiptRow[]>;
  /** Of a run that follows, by epoch. */
  runEpochs(run: string, after: number, limit: number): Maybe<readonly RunEpochRow[]>;
  runs(dataset: string | null, after: string, limit: number): Maybe<readonly RunRow[]>;
  /** Of each dataset and run the last time that the pin was taken. */
  pins(dataset: string | null, run: string | null, limit: number): Maybe<readonly PinRow[]>;
  /** Of the dataset's versions, by index. */
  revocations(dataset: string, limit: number): Maybe<readonly RevocationRow[]>;
  revoked(subjects: readonly string[]): Maybe<readonly RevocationRow[]>;
  revocationsSince(after: number, limit: number): Maybe<readonly RevocationRow[]>;
  ledger(after: number, limit: number): Maybe<readonly LedgerRow[]>;
  /** Entries of kind `config`, and signatures that are no retries. */
  configurations(after: number, limit: number): Maybe<readonly LedgerRow[]>;
  ledgerOf(commandId: string): Maybe<LedgerRow | null>;
}

const ROWS_MAX = LIMITS.apiRowsMax;

/** The answer to any query. `not_found` is an answer. */
export async function answerQuery(source: CatalogSource, query: CatalogQuery): Promise<CatalogAnswer> {
  switch (query.kind) {
    case "resolve":
      return await resolve(source, query.ref);
    case "pages":
      return await pagesOf(source, query);
    case "object": {
      const page = soundObject(await source.object(query.digest));
      return page ? objectAnswer(page) : { kind: "not_found", what: `object ${query.digest}`, nearest: [] };
    }
    case "datasets":
      return rowsAnswer("datasets", await source.datasets(query.after, query.limit), query);
    case "versions":
      return await listOf(
        source,
        query.dataset,
        "versions",
        await source.versions(query.dataset, query.after, query.limit),
        query,
      );
    case "tags":
      return await listOf(source, query.dataset, "tags", await source.tags(query.dataset, ROWS_MAX), {});
    case "tag_history":
      return await listOf(
        source,
        query.dataset,
        "tag_history",
        await source.tagMoves(query.dataset, query.after, query.limit),
        query,
      );
    case "run":
      return await runAnswer(source, query.run);
    case "receipts": {
      const rows = fitting(await source.receipts(query.run, query.after, LIMITS.answerReceiptsMax));
      if (rows.length === 0 && !(await source.run(query.run))) return await runNotFound(source, query.run);
      return rowsAnswer("receipts", rows, query);
    }
    case "run_epochs": {
      const rows = await source.runEpochs(query.run, query.after, query.limit);
      if (rows.length === 0 && !(await source.run(query.run))) return await runNotFound(source, query.run);
      return rowsAnswer("run_epochs", rows, query);
    }
    case "runs":
      return await listOf(
        source,
        query.dataset,
        "runs",
        await source.runs(query.dataset, query.after, query.limit),
        query,
      );
    case "pins":
      return await listOf(source, query.dataset, "pins", await source.pins(query.dataset, query.run, ROWS_MAX), {});
    case "revocations":
      return await listOf(source, query.dataset, "revocations", await source.revocations(query.dataset, ROWS_MAX), {});
    case "revoked_shards":
      return rowsAnswer("revoked_shards", await source.revoked(query.digests));
    case "revocations_since":
      return rowsAnswer("revocations_since", await source.revocationsSince(query.after, query.limit), query);
    case "ledger":
      return rowsAnswer("ledger", await source.ledger(query.after, query.limit), query);
    case "configurations":
      return rowsAnswer("configurations", await source.configurations(query.after, query.limit), query);
    case "outcome": {
      const row = await source.ledgerOf(query.commandId);
      return rowsAnswer("outcome", row ? [row] : []);
    }
  }
}

type PagesQuery = Extract<CatalogQuery, { kind: "pages" }>;

async function pagesOf(source: CatalogSource, query: PagesQuery): Promise<CatalogAnswer> {
  const { dataset, version, from, limit } = query;
  const target = { kind: "version", version } as const;
  const found = await source.version(dataset, target);
  if (!found) return await notFound(source, { dataset, target });
  if (!query.packed) return pagesAnswer(await source.pages(dataset, version, from, limit));
  const [rows, frontier] = await Promise.all([
    source.pages(dataset, version, from, limit),
    from === 0 ? [] : source.frontierBefore(dataset, version, from),
  ]);
  return leavesAnswer(rows, frontier ?? []);
}

/** A run's row as it stood: its end may lie after the index. */
export function runAsOf(row: RunRow, asOf: LogIndex): RunRow {
  return row.endIndex === null || row.endIndex <= asOf ? row : { ...row, endIndex: null, outcome: null };
}

/** A pin's row as it stood: its release may lie after the index. */
export function pinAsOf(row: PinRow, asOf: LogIndex): PinRow {
  return row.releasedIndex === null || row.releasedIndex <= asOf ? row : { ...row, releasedIndex: null };
}

/** How revocations name a version. */
export function versionSubject(dataset: string, version: number): string {
  return `${dataset}@v${version}`;
}

async function resolve(source: CatalogSource, ref: Ref): Promise<CatalogAnswer> {
  const found = await source.version(ref.dataset, ref.target);
  if (!found) return await notFound(source, ref);
  return { kind: "version", version: versionAnswer(soundVersion(found.row), found.revocation) };
}

/** @throws ShardpactError `damaged` when the root does not follow from the row: whoever reads relies on what it covers */
function soundVersion(row: VersionRow): VersionRow {
  const root = computeRoot(row);
  if (root === row.root) return row;
  throw damagedRow(`${row.dataset}@v${row.version}`, { expected: row.root, got: root });
}

/** @throws ShardpactError `damaged` when the bytes do not hash to the digest that they stand under */
function soundObject(row: PageRow | null): PageRow | null {
  const got = row && objectDigest(row.kind, row.bytes);
  if (row === null || got === row.digest) return row;
  throw damagedRow(`${row.kind} ${row.digest}`, { expected: row.digest, got });
}

function damagedRow(what: string, details: Readonly<Record<string, unknown>>): ShardpactError {
  return new ShardpactError("damaged", `the row of ${what} is not what was applied`, { details });
}

/** Names the part of the reference that is not there, and what is near it. */
async function notFound(source: CatalogSource, ref: Ref): Promise<CatalogAnswer> {
  const dataset = await source.dataset(ref.dataset);
  if (!dataset) return await datasetNotFound(source, ref.dataset);
  const what = formatRef(ref);
  if (ref.target.kind === "tag") {
    const tags = await source.tags(ref.dataset, ROWS_MAX);
    return notFoundAnswer(
      `tag ${what}`,
      ref.target.tag,
      tags.map((row) => row.tag),
    );
  }
  return { kind: "not_found", what: `version ${what}`, nearest: [`v${dataset.headVersion}`] };
}

async function datasetNotFound(source: CatalogSource, name: string): Promise<CatalogAnswer> {
  const names = await source.datasets("", ROWS_MAX);
  return notFoundAnswer(
    `dataset ${name}`,
    name,
    names.map((row) => row.name),
  );
}

/** A list within a dataset (null: all); an empty one may mean that there is no such dataset. */
async function listOf<K extends ListKind>(
  source: CatalogSource,
  dataset: string | null,
  kind: K,
  rows: readonly ListRows[K][],
  page: { readonly after?: string | number; readonly limit?: number },
): Promise<CatalogAnswer> {
  if (rows.length === 0 && dataset !== null && !(await source.dataset(dataset)))
    return await datasetNotFound(source, dataset);
  return rowsAnswer(kind, rows, page);
}

async function runAnswer(source: CatalogSource, run: string): Promise<CatalogAnswer> {
  const row = await source.run(run);
  if (row) return rowsAnswer("run", [row, ...fitting(await source.newestReceipts(run, LIMITS.answerReceiptsMax))]);
  return await runNotFound(source, run);
}

/** Of receipts, which may be large, as many as an answer holds; one at least. */
function fitting(rows: readonly ReceiptRow[]): readonly ReceiptRow[] {
  let bytes = 0;
  const end = rows.findIndex(({ receipt }, i) => {
    bytes += utf8(canonicalJson(receipt)).byteLength;
    return i > 0 && bytes > LIMITS.answerReceiptsBytesMax;
  });
  return end === -1 ? rows : rows.slice(0, end);
}

async function runNotFound(source: CatalogSource, run: string): Promise<CatalogAnswer> {
  const names = await source.runs(null, "", ROWS_MAX);
  return notFoundAnswer(
    `run ${run}`,
    run,
    names.map((known) => known.run),
  );
}
