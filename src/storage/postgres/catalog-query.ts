/**
 * Owns reads of the catalog in Postgres, as of a log index.
 *
 * What confirmations ask on every open are the statements of `prepared.ts`; lists are drizzle queries. All of them see
 * only rows at or below the index, which are final, so it does not matter in how many snapshots they are read.
 */
import { and, asc, desc, eq, gt, inArray, isNull, lt, lte, or, sql, type SQL } from "drizzle-orm";
import { drizzle, type NodePgDatabase } from "drizzle-orm/node-postgres";
import type pg from "pg";
import type { PlacedPage } from "../../catalog/answers.ts";
import type { AppliedEntry, LedgerRow } from "../../catalog/apply.ts";
import type { LogIndex } from "../../consensus/engine.ts";
import type { CatalogAnswer, CatalogQuery } from "../../model/api.ts";
import { LIMITS } from "../../model/limits.ts";
import { answerQuery, type CatalogSource, pinAsOf, runAsOf } from "../answer-query.ts";
import type { Witness } from "./fence.ts";
import { prepare, type Prepared, targetValue, versionFound } from "./prepared.ts";
import {
  datasets,
  ledger,
  ofMembership,
  pins,
  receipts,
  revocations,
  runEpochs,
  runs,
  tagMoves,
  versionPages,
  versions,
} from "./schema.ts";

export interface CatalogReader {
  /** Tells `witness` the newest boot where a statement carries it. */
  query(query: CatalogQuery, asOf: LogIndex, witness: Witness): Promise<CatalogAnswer>;
  outcome(commandId: string): Promise<AppliedEntry | null>;
  chainAt(index: LogIndex): Promise<string | null>;
}

export function createCatalogReader(pool: pg.Pool): CatalogReader {
  const db = drizzle(pool);
  const prepared = prepare(db);
  return {
    query: (query, asOf, witness) => answerQuery(sourceAsOf(db, prepared, asOf, witness), query),
    outcome: async (commandId) => {
      const [row] = await prepared.ledgerOf.execute({ commandId, asOf: Number.MAX_SAFE_INTEGER });
      return row ? appliedEntry(row) : null;
    },
    chainAt: async (index) => {
      const [row] = await db.select({ chain: ledger.chain }).from(ledger).where(eq(ledger.index, index));
      return row?.chain ?? null;
    },
  };
}

/** Lists and single rows, all filtered by `index ≤ asOf`. */
function sourceAsOf(db: NodePgDatabase, prepared: Prepared, asOf: LogIndex, witness: Witness): CatalogSource {
  return {
    version: async (dataset, target) => {
      const [found] = await prepared[target.kind].execute({ dataset, target: targetValue(target), asOf });
      if (!found) return null;
      witness(found.boot);
      return versionFound(found);
    },
    dataset: async (name) => (await readDatasets(db, asOf, eq(datasets.name, name), 1))[0] ?? null,
    datasets: (after, limit) => readDatasets(db, asOf, gt(datasets.name, after), limit),
    versions: async (dataset, after, limit) => {
      const revoked = and(
        eq(revocations.subject, sql`${versions.dataset} || '@v' || ${versions.version}`),
        lte(revocations.index, asOf),
      );
      const wanted = and(eq(versions.dataset, dataset), gt(versions.version, after), lte(versions.index, asOf));
      const rows = await db
        .select()
        .from(versions)
        .leftJoin(revocations, revoked)
        .where(wanted)
        .orderBy(asc(versions.version))
        .limit(limit);
      return rows.map(versionFound);
    },
    pages: (dataset, version, from, limit) => readPages(db, dataset, version, from, limit),
    frontierBefore: async (dataset, version, position) => {
      const [row] = await db
        .select({ frontier: versionPages.frontierBefore })
        .from(versionPages)
        .where(and(eq(versionPages.position, position), pagesOfVersion(dataset, version)));
      return row?.frontier ?? null;
    },
    object: async (digest) => {
      const [found] = await prepared.object.execute({ target: digest, asOf });
      if (!found) return null;
      witness(found.boot);
      return { table: "page", ...found.pages };
    },
    tags: async (dataset, limit) => {
      const rows = await db
        .selectDistinctOn([tagMoves.tag], {
          dataset: tagMoves.dataset,
          tag: tagMoves.tag,
          version: tagMoves.toVersion,
          index: tagMoves.index,
        })
        .from(tagMoves)
        .where(and(eq(tagMoves.dataset, dataset), lte(tagMoves.index, asOf)))
        .orderBy(asc(tagMoves.tag), desc(tagMoves.index))
        .limit(limit);
      return rows.map((row) => ({ table: "tag", ...row }));
    },
    tagMoves: async (dataset, after, limit) => {
      const wanted = and(eq(tagMoves.dataset, dataset), gt(tagMoves.index, after), lte(tagMoves.index, asOf));
      const rows = await db.select().from(tagMoves).where(wanted).orderBy(asc(tagMoves.index)).limit(limit);
      return rows.map((row) => ({ table: "tag_move", ...row }));
    },
    run: async (run) => {
      const [row] = await db
        .select()
        .from(runs)
        .where(and(eq(runs.run, run), lte(runs.index, asOf)));
      return row ? runAsOf({ table: "run", ...row }, asOf) : null;
    },
    receipts: async (run, after, limit) => {
      const wanted = and(eq(receipts.run, run), gt(receipts.index, after), lte(receipts.index, asOf));
      const rows = await db.select().from(receipts).where(wanted).orderBy(asc(receipts.index)).limit(limit);
      return rows.map((row) => ({ table: "receipt", ...row }));
    },
    newestReceipts: async (run, limit) => {
      const wanted = and(eq(receipts.run, run), lte(receipts.index, asOf));
      const rows = await db.select().from(receipts).where(wanted).orderBy(desc(receipts.index)).limit(limit);
      return rows.map((row) => ({ table: "receipt", ...row }));
    },
    runs: async (dataset, after, limit) => {
      const inDataset = dataset === null ? undefined : sql`(${runs.plan} ->> 'dataset') collate "C" = ${dataset}`;
      const wanted = and(inDataset, gt(runs.run, after), lte(runs.index, asOf));
      const rows = await db.select().from(runs).where(wanted).orderBy(asc(runs.run)).limit(limit);
      return rows.map((row) => runAsOf({ table: "run", ...row }, asOf));
    },
    runEpochs: async (run, after, limit) => {
      const wanted = and(eq(runEpochs.run, run), gt(runEpochs.epoch, after), lte(runEpochs.index, asOf));
      const rows = await db.select().from(runEpochs).where(wanted).orderBy(asc(runEpochs.epoch)).limit(limit);
      return rows.map((row) => ({ table: "run_epoch", ...row }));
    },
    pins: async (dataset, run, limit) => {
      const wanted = and(
        dataset === null ? undefined : eq(pins.dataset, dataset),
        run === null ? undefined : eq(pins.run, run),
        lte(pins.index, asOf),
      );
      const rows = await db
        .selectDistinctOn([pins.dataset, pins.run])
        .from(pins)
        .where(wanted)
        .orderBy(asc(pins.dataset), asc(pins.run), desc(pins.index))
        .limit(limit);
      return rows.map((row) => pinAsOf({ table: "pin", ...row }, asOf));
    },
    revocations: async (dataset, limit) => {
      // 'A' follows '@' in byte order, and no dataset name holds either.
      const ofDataset = and(gt(revocations.subject, `${dataset}@`), lt(revocations.subject, `${dataset}A`));
      const wanted = and(ofDataset, lte(revocations.index, asOf));
      const rows = await db.select().from(revocations).where(wanted).orderBy(asc(revocations.index)).limit(limit);
      return rows.map((row) => ({ table: "revocation", ...row }));
    },
    revoked: async (subjects) => {
      if (subjects.length === 0) return [];
      const wanted = and(inArray(revocations.subject, [...subjects]), lte(revocations.index, asOf));
      const rows = await db.select().from(revocations).where(wanted).limit(LIMITS.apiRowsMax);
      return rows.map((row) => ({ table: "revocation", ...row }));
    },
    revocationsSince: async (after, limit) => {
      const wanted = and(gt(revocations.index, after), lte(revocations.index, asOf));
      const rows = await db.select().from(revocations).where(wanted).orderBy(asc(revocations.index)).limit(limit);
      return rows.map((row) => ({ table: "revocation", ...row }));
    },
    ledger: async (after, limit) => {
      const wanted = and(gt(ledger.index, after), lte(ledger.index, asOf));
      return (await db.select().from(ledger).where(wanted).orderBy(asc(ledger.index)).limit(limit)).map(ledgerRow);
    },
    configurations: async (after, limit) => {
      const wanted = and(ofMembership, gt(ledger.index, after), lte(ledger.index, asOf));
      return (await db.select().from(ledger).where(wanted).orderBy(asc(ledger.index)).limit(limit)).map(ledgerRow);
    },
    ledgerOf: async (commandId) => {
      const [row] = await prepared.ledgerOf.execute({ commandId, asOf });
      return row ? ledgerRow(row) : null;
    },
  };
}

/** The head as of an index is the highest version committed by then. */
async function readDatasets(db: NodePgDatabase, asOf: LogIndex, which: SQL, limit: number) {
  const head = db
    .select({ headVersion: versions.version, headIndex: versions.index, headRoot: versions.root })
    .from(versions)
    .where(and(eq(versions.dataset, datasets.name), lte(versions.index, asOf)))
    .orderBy(desc(versions.version))
    .limit(1)
    .as("head");
  const rows = await db
    .select({
      name: datasets.name,
      headVersion: head.headVersion,
      headIndex: head.headIndex,
      headRoot: head.headRoot,
      createdIndex: datasets.createdIndex,
    })
    .from(datasets)
    .innerJoinLateral(head, sql`true`)
    .where(and(which, lte(datasets.createdIndex, asOf)))
    .orderBy(asc(datasets.name))
    .limit(limit);
  return rows.map((row) => ({ table: "dataset" as const, ...row }));
}

/** Frontiers are left out: for a thousand pages they are most of the bytes, and whoever wants one asks for one. */
function readPages(
  db: NodePgDatabase,
  dataset: string,
  version: number,
  from: number,
  limit: number,
): Promise<readonly PlacedPage[]> {
  const { position, page, totals } = versionPages;
  return db
    .select({ position, page, totals })
    .from(versionPages)
    .where(and(sql`${position} >= ${from}`, pagesOfVersion(dataset, version)))
    .orderBy(asc(position))
    .limit(limit);
}

function pagesOfVersion(dataset: string, version: number): SQL | undefined {
  return and(
    eq(versionPages.dataset, dataset),
    lte(versionPages.fromVersion, version),
    or(isNull(versionPages.untilVersion), gt(versionPages.untilVersion, version)),
  );
}

type StoredLedgerRow = typeof ledger.$inferSelect;

function ledgerRow(row: StoredLedgerRow): LedgerRow {
  return { ...row, kind: row.kind as LedgerRow["kind"] };
}

function appliedEntry({ index, epoch, commandId, outcome, timeMs, chain }: StoredLedgerRow): AppliedEntry {
  return { index, epoch, commandId, retry: false, firstIndex: index, outcome, timeMs, chain };
}
