/**
 * Owns the tables of a replica's database, schema `shardpact`: the consensus log on one side, the catalog on the other.
 *
 * Column names here are the row names of `catalog/rows.ts` in snake case, so rows are written and read by these
 * definitions alone. Nothing has a default that a database computes: equal logs must give equal rows. Views, triggers,
 * comments and roles are SQL, in `migrations/`.
 */
import { sql } from "drizzle-orm";
import { boolean, check, index, integer as int4, json, pgSchema, primaryKey, uniqueIndex } from "drizzle-orm/pg-core";
import type { Outcome } from "../../catalog/apply.ts";
import type { RunRow, SplitTotals } from "../../catalog/rows.ts";
import type { ObjectKind, OrderSpec, RunPlan, SplitRule } from "../../model/commands.ts";
import type { EntryKind } from "../../consensus/engine.ts";
import { bytes, digest, digests, hash, integer, textC } from "./columns.ts";

export const shardpact = pgSchema("shardpact");

/** One row: who this replica is, what it promised, where its log ends. Every append rewrites it under `WHERE boot = …`. */
export const replicaState = shardpact.table(
  "replica_state",
  {
    only: boolean().primaryKey(),
    groupId: textC("group_id").notNull(),
    replica: textC().notNull(),
    engine: textC().notNull(),
    incarnation: textC().notNull(),
    systemId: textC("system_id").notNull(),
    boot: integer().notNull(),
    epoch: integer().notNull(),
    votedFor: textC("voted_for"),
    firstIndex: integer("first_index").notNull(),
    /** Epoch of the entry before the first, 0 when there was none. */
    baseEpoch: integer("base_epoch").notNull(),
    lastIndex: integer("last_index").notNull(),
    lastHash: bytes("last_hash"),
    voting: boolean().notNull(),
    lostReason: textC("lost_reason"),
    /** Where the log once ended, while it is cut before damage. */
    promisedLast: integer("promised_last"),
    /** Over epoch, vote, voting, last index and promised last (`log-damage.ts`). */
    stateHash: bytes("state_hash"),
  },
  (t) => [check("replica_state_only", sql`${t.only}`)],
);

/** One row, apart from `replica_state` so that an append never waits for the row lock of a long apply. */
export const appliedState = shardpact.table(
  "applied_state",
  {
    only: boolean().primaryKey(),
    boot: integer().notNull(),
    appliedIndex: integer("applied_index").notNull(),
    chain: hash().notNull(),
    stateDigest: hash("state_digest").notNull(),
    logTimeMs: integer("log_time_ms").notNull(),
  },
  (t) => [check("applied_state_only", sql`${t.only}`)],
);

export const log = shardpact.table(
  "log",
  {
    index: integer().primaryKey(),
    epoch: integer().notNull(),
    kind: textC().$type<EntryKind>().notNull(),
    payload: bytes().notNull(),
    checksum: bytes().notNull(),
  },
  (t) => [
    index("log_config")
      .on(t.index)
      .where(sql`${t.kind} = 'config'`),
  ],
);

export const peers = shardpact.table("peers", {
  peer: textC().primaryKey(),
  incarnation: textC().notNull(),
  boot: integer().notNull(),
});

export const ledger = shardpact.table(
  "ledger",
  {
    index: integer().primaryKey(),
    epoch: integer().notNull(),
    timeMs: integer("time_ms").notNull(),
    kind: textC().notNull(),
    actor: textC(),
    commandId: textC("command_id"),
    retryOf: integer("retry_of"),
    bodyDigest: hash("body_digest"),
    payload: bytes().notNull(),
    outcome: json().$type<Outcome>().notNull(),
    chain: hash().notNull(),
  },
  (t) => [
    uniqueIndex("ledger_command_id").on(t.commandId),
    index("ledger_config")
      .on(t.index)
      .where(sql`${t.kind} = 'config'`),
    index("ledger_membership")
      .on(t.index)
      .where(sql`${t.kind} = 'config' OR (${t.kind} = 'configuration.sign' AND ${t.commandId} IS NOT NULL)`),
  ],
);
/** What `ledger_membership` holds: configurations, and the signatures under them. */
export const ofMembership = sql`(${ledger.kind} = 'config' OR (${ledger.kind} = 'configuration.sign' AND ${ledger.commandId} IS NOT NULL))`;

export const datasets = shardpact.table("datasets", {
  name: textC().primaryKey(),
  headVersion: integer("head_version").notNull(),
  headIndex: integer("head_index").notNull(),
  headRoot: digest("head_root").notNull(),
  createdIndex: integer("created_index").notNull(),
});

export const versions = shardpact.table(
  "versions",
  {
    dataset: textC().notNull(),
    version: integer().notNull(),
    index: integer().notNull(),
    timeMs: integer("time_ms").notNull(),
    actor: textC().notNull(),
    commandId: textC("command_id").notNull(),
    root: digest().notNull(),
    treeHash: digest("tree_hash").notNull(),
    pageCount: integer("page_count").notNull(),
    kept: integer().notNull(),
    schema: digest().notNull(),
    classes: digest().notNull(),
    splits: json().$type<readonly string[]>().notNull(),
    totals: json().$type<readonly SplitTotals[]>().notNull(),
    splitRule: json("split_rule").$type<SplitRule>().notNull(),
    message: textC().notNull(),
    frontier: digests().notNull(),
  },
  (t) => [primaryKey({ columns: [t.dataset, t.version] }), index("versions_root").on(t.root)],
);

export const versionPages = shardpact.table(
  "version_pages",
  {
    dataset: textC().notNull(),
    position: integer().notNull(),
    fromVersion: integer("from_version").notNull(),
    untilVersion: integer("until_version"),
    page: digest().notNull(),
    totals: json().$type<readonly SplitTotals[]>().notNull(),
    frontierBefore: digests("frontier_before").notNull(),
  },
  (t) => [
    primaryKey({ columns: [t.dataset, t.position, t.fromVersion] }),
    index("version_pages_page").on(t.page),
    index("version_pages_open")
      .on(t.dataset, t.position)
      .where(sql`${t.untilVersion} is null`),
  ],
);

export const pages = shardpact.table("pages", {
  digest: digest().primaryKey(),
  kind: textC().$type<ObjectKind>().notNull(),
  bytes: bytes().notNull(),
  totals: json().$type<readonly SplitTotals[]>().notNull(),
  putIndex: integer("put_index").notNull(),
  actor: textC().notNull(),
  holdUntilMs: integer("hold_until_ms").notNull(),
});

export const shards = shardpact.table(
  "shards",
  {
    page: digest().notNull(),
    ordinal: int4().notNull(),
    name: textC().notNull(),
    split: int4().notNull(),
    rows: integer().notNull(),
    bytes: integer().notNull(),
    digest: digest().notNull(),
    segmentIndex: digest("segment_index").notNull(),
  },
  (t) => [primaryKey({ columns: [t.page, t.ordinal] }), index("shards_digest").on(t.digest)],
);

export const tags = shardpact.table(
  "tags",
  {
    dataset: textC().notNull(),
    tag: textC().notNull(),
    version: integer().notNull(),
    index: integer().notNull(),
  },
  (t) => [primaryKey({ columns: [t.dataset, t.tag] })],
);

export const tagMoves = shardpact.table(
  "tag_moves",
  {
    dataset: textC().notNull(),
    tag: textC().notNull(),
    index: integer().notNull(),
    timeMs: integer("time_ms").notNull(),
    actor: textC().notNull(),
    fromVersion: integer("from_version"),
    toVersion: integer("to_version").notNull(),
  },
  (t) => [primaryKey({ columns: [t.dataset, t.tag, t.index] })],
);

export const runs = shardpact.table(
  "runs",
  {
    run: textC().primaryKey(),
    plan: json().$type<RunPlan>().notNull(),
    meta: json().$type<Readonly<Record<string, string>>>().notNull(),
    actor: textC().notNull(),
    index: integer().notNull(),
    timeMs: integer("time_ms").notNull(),
    endIndex: integer("end_index"),
    outcome: textC().$type<NonNullable<RunRow["outcome"]>>(),
  },
  (t) => [index("runs_dataset").on(sql`(${t.plan} ->> 'dataset') collate "C"`, t.run)],
);

export const runEpochs = shardpact.table(
  "run_epochs",
  {
    run: textC().notNull(),
    epoch: integer().notNull(),
    dataset: textC().notNull(),
    version: integer().notNull(),
    root: digest().notNull(),
    orderSpec: json("order_spec").$type<OrderSpec>().notNull(),
    actor: textC().notNull(),
    index: integer().notNull(),
    timeMs: integer("time_ms").notNull(),
  },
  (t) => [primaryKey({ columns: [t.run, t.epoch] }), index("run_epochs_version").on(t.dataset, t.version)],
);

export const pins = shardpact.table(
  "pins",
  {
    dataset: textC().notNull(),
    run: textC().notNull(),
    version: integer().notNull(),
    root: digest().notNull(),
    note: textC().notNull(),
    actor: textC().notNull(),
    index: integer().notNull(),
    timeMs: integer("time_ms").notNull(),
    releasedIndex: integer("released_index"),
  },
  (t) => [primaryKey({ columns: [t.dataset, t.run, t.index] }), index("pins_run").on(t.run)],
);

export const receipts = shardpact.table(
  "receipts",
  {
    run: textC().notNull(),
    rank: int4().notNull(),
    index: integer().notNull(),
    timeMs: integer("time_ms").notNull(),
    receipt: json().$type<Readonly<Record<string, unknown>>>().notNull(),
  },
  (t) => [primaryKey({ columns: [t.run, t.rank, t.index] })],
);

export const revocations = shardpact.table("revocations", {
  subject: textC().primaryKey(),
  index: integer().notNull(),
  timeMs: integer("time_ms").notNull(),
  actor: textC().notNull(),
  reason: textC().notNull(),
});

export const leases = shardpact.table(
  "leases",
  {
    dataset: textC().notNull(),
    version: integer().notNull(),
    run: textC().notNull(),
    untilMs: integer("until_ms").notNull(),
    index: integer().notNull(),
  },
  (t) => [primaryKey({ columns: [t.dataset, t.version, t.run] })],
);
