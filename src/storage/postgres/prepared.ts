/**
 * Owns the statements that confirmations and opens ask again and again: one each, planned once per connection.
 */
import { and, asc, desc, eq, lte, sql, type SQL } from "drizzle-orm";
import type { NodePgDatabase } from "drizzle-orm/node-postgres";
import type { RefTarget } from "../../model/names.ts";
import type { VersionFound } from "../answer-query.ts";
import { ledger, pages, replicaState, revocations, tagMoves, versions } from "./schema.ts";

const at = {
  dataset: sql.placeholder("dataset"),
  target: sql.placeholder("target"),
  asOf: sql.placeholder("asOf"),
};
const revocationOfVersion = and(
  eq(revocations.subject, sql`${versions.dataset} || '@v' || ${versions.version}`),
  lte(revocations.index, at.asOf),
);

/** A read that brings the newest boot with it needs no second statement to show that it was allowed (`fence.ts`). */
const newestBoot = sql<number>`(SELECT boot FROM ${replicaState})`.mapWith(Number).as("newest_boot");

export type Prepared = ReturnType<typeof prepare>;

/** Statements that are planned once per connection. */
export function prepare(db: NodePgDatabase) {
  const version = (name: string, which: SQL, order: SQL) =>
    db
      .select({ versions, revocations, boot: newestBoot })
      .from(versions)
      .leftJoin(revocations, revocationOfVersion)
      .where(and(eq(versions.dataset, at.dataset), lte(versions.index, at.asOf), which))
      .orderBy(order)
      .limit(1)
      .prepare(name);
  const tagged = db
    .select({ version: tagMoves.toVersion })
    .from(tagMoves)
    .where(and(eq(tagMoves.dataset, at.dataset), eq(tagMoves.tag, at.target), lte(tagMoves.index, at.asOf)))
    .orderBy(desc(tagMoves.index))
    .limit(1);
  return {
    head: version("version_head", sql`true`, desc(versions.version)),
    version: version("version_number", eq(versions.version, at.target), asc(versions.version)),
    tag: version("version_tag", eq(versions.version, sql`(${tagged})`), asc(versions.version)),
    // The same root may come back later; the first version that had it answers for all time.
    root: version(
      "version_root",
      sql`${versions.root} = decode(substr(${at.target}::text, 4), 'hex')`,
      asc(versions.version),
    ),
    object: db
      .select({ pages, boot: newestBoot })
      .from(pages)
      .where(and(sql`${pages.digest} = decode(substr(${at.target}::text, 4), 'hex')`, lte(pages.putIndex, at.asOf)))
      .prepare("object"),
    ledgerOf: db
      .select()
      .from(ledger)
      .where(and(eq(ledger.commandId, sql.placeholder("commandId")), lte(ledger.index, at.asOf)))
      .prepare("ledger_of"),
  };
}

export function targetValue(target: RefTarget): string | number | null {
  switch (target.kind) {
    case "head":
      return null;
    case "version":
      return target.version;
    case "tag":
      return target.tag;
    case "root":
      return target.root;
  }
}

interface VersionJoined {
  readonly versions: typeof versions.$inferSelect;
  readonly revocations: typeof revocations.$inferSelect | null;
}

/** A row as the catalog knows it, and its revocation if there is one. */
export function versionFound(found: VersionJoined): VersionFound {
  return {
    row: { table: "version", ...found.versions },
    revocation: found.revocations && { table: "revocation", ...found.revocations },
  };
}
