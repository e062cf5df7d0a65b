/**
 * Owns small builders for catalog tests: commands as log entries, pages, commits, and a table of rows that loads
 * exactly what a batch declares.
 */
import { applyBatch, APPLIED_ZERO, needsOfBatch } from "../../src/catalog/apply.ts";
import type { AppliedState, BatchOutput, ChosenEntry, LedgerRow, RecordedOutcome } from "../../src/catalog/apply.ts";
import type { Need, Row, VersionPageRow } from "../../src/catalog/rows.ts";
import { rowKey } from "../../src/catalog/view.ts";
import { encodeClasses } from "../../src/merkle/classes.ts";
import type { Classes } from "../../src/merkle/classes.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import { summarizeManifest } from "../../src/merkle/manifest.ts";
import { decodePage, encodePage, pageDigest, pageTotals } from "../../src/merkle/page.ts";
import type { PageEntry } from "../../src/merkle/page.ts";
import { computeRoot, objectDigest } from "../../src/merkle/root.ts";
import { concatBytes, formatDigest, parseDigest, toHex, utf8 } from "../../src/model/bytes.ts";
import type { Digest } from "../../src/model/bytes.ts";
import { encodeCommand, parseCommand, stampCommand } from "../../src/model/commands.ts";
import type { CommandBody, CommandKind, ObjectKind, SplitRule } from "../../src/model/commands.ts";

export const T0 = 1_700_000_000_000;

export interface CommandOptions {
  readonly id?: string;
  readonly actor?: string;
  readonly blob?: Uint8Array;
  readonly timeMs?: number;
}

let commandCount = 0;

/** An id no other test command has. */
export function freshId(): string {
  return toHex(hashBytes(utf8(`command ${commandCount++}`))).slice(0, 32);
}

/** The payload of a log entry that holds this command. */
export function payloadOf<K extends CommandKind>(kind: K, body: CommandBody<K>, o: CommandOptions = {}): Uint8Array {
  const { id = freshId(), actor = "ada", blob = new Uint8Array(0), timeMs = T0 } = o;
  const command = parseCommand({ id, actor, kind, body, blob } as Parameters<typeof parseCommand>[0]);
  return stampCommand(encodeCommand(command), timeMs);
}

export function digestOf(text: string): Digest {
  return formatDigest(hashBytes(utf8(text)));
}

/** A page of `count` shards whose names start with `name`. */
export function pageOf(name: string, count = 2, split = 0): Uint8Array {
  return encodePage(
    Array.from({ length: count }, (_, i): PageEntry => {
      const shard = `${name}-${String(i).padStart(5, "0")}.arrow`;
      return {
        name: shard,
        split,
        rows: 10 + i,
        bytes: 1000 + i,
        digest: digestOf(shard),
        segmentIndex: digestOf(`${shard}i`),
      };
    }),
  );
}

export const SCHEMA = utf8('{"fields":[]}');
export const CLASSES = encodeClasses({ label: ["cat", "dog"] });

export interface CommitPlan {
  readonly dataset?: string;
  readonly pages: readonly Uint8Array[];
  readonly expectedHead?: { version: number; index: number } | null;
  readonly kept?: number;
  readonly splits?: string[];
  readonly splitRule?: SplitRule;
  readonly schema?: Uint8Array;
  readonly classes?: Uint8Array;
  readonly root?: Digest;
}

/** Body and blob of a commit of all these pages; its root is computed from the whole manifest, not from a frontier. */
export function commitOf(plan: CommitPlan): { body: CommandBody<"version.commit">; blob: Uint8Array } {
  const { dataset = "mnist", pages, kept = 0, splits = ["train", "val"], splitRule = { kind: "none" } } = plan;
  const schema = objectDigest("schema", plan.schema ?? SCHEMA);
  const classes = objectDigest("classes", plan.classes ?? CLASSES);
  const { treeHash, totals } = summarizeManifest(
    pages.map((bytes) => ({ page: pageDigest(bytes), totals: pageTotals(decodePage(bytes)) })),
  );
  const fields = {
    schema,
    classes,
    splits,
    splitRule,
    pageCount: pages.length,
    treeHash: formatDigest(treeHash),
    totals,
  };
  const added = pages.slice(kept);
  const body = {
    dataset,
    expectedHead: plan.expectedHead ?? null,
    kept,
    added: added.length,
    root: plan.root ?? computeRoot(fields),
    schema,
    classes,
    splits,
    splitRule,
    message: "",
  };
  return { body, blob: concatBytes(added.map((bytes) => parseDigest(pageDigest(bytes)))) };
}

export function classesOf(classes: Classes): Uint8Array {
  return encodeClasses(classes);
}

/** What a store does, over a plain map: loads exactly the declared rows, applies, writes. */
export interface TestCatalog {
  readonly rows: Map<string, Row>;
  readonly ledger: LedgerRow[];
  state: AppliedState;
  apply(entries: readonly ChosenEntry[]): BatchOutput;
  /** Applies one command and returns its outcome's result. Throws when it was rejected. */
  run<K extends CommandKind>(kind: K, body: CommandBody<K>, o?: CommandOptions): Readonly<Record<string, unknown>>;
  /** Applies one command that must be rejected, and returns the error. */
  refuse<K extends CommandKind>(kind: K, body: CommandBody<K>, o?: CommandOptions): { code: string; details: unknown };
  put(kind: ObjectKind, bytes: Uint8Array, o?: CommandOptions): Readonly<Record<string, unknown>>;
  /** Puts pages, schema and classes, then commits. */
  commit(plan: CommitPlan, o?: CommandOptions): Readonly<Record<string, unknown>>;
}

export function createTestCatalog(): TestCatalog {
  const rows = new Map<string, Row>();
  const ledger: LedgerRow[] = [];
  const outcomes = new Map<string, RecordedOutcome>();
  const catalog: TestCatalog = {
    rows,
    ledger,
    state: APPLIED_ZERO,
    apply(entries) {
      const { needs, commandIds } = needsOfBatch(entries);
      const known = new Map(commandIds.flatMap((id) => (outcomes.has(id) ? [[id, outcomes.get(id)!]] : [])));
      const output = applyBatch({ entries, state: catalog.state, rows: load(rows, needs), outcomes: known });
      for (const { row } of output.changes) rows.set(rowKey(row), row);
      for (const row of output.ledger) {
        ledger.push(row);
        if (row.commandId && row.bodyDigest) {
          outcomes.set(row.commandId, { index: row.index, bodyDigest: row.bodyDigest, outcome: row.outcome });
        }
      }
      catalog.state = output.state;
      return output;
    },
    run(kind, body, o) {
      const { outcome } = applyOne(catalog, payloadOf(kind, body, o));
      if (!outcome.ok) throw new Error(`${kind} was rejected: ${outcome.error.code}: ${outcome.error.message}`);
      return outcome.result;
    },
    refuse(kind, body, o) {
      const { outcome } = applyOne(catalog, payloadOf(kind, body, o));
      if (outcome.ok) throw new Error(`${kind} was accepted: ${JSON.stringify(outcome.result)}`);
      return { code: outcome.error.code, details: outcome.error.details };
    },
    put: (kind, bytes, o) =>
      catalog.run("page.put", { kind, digest: objectDigest(kind, bytes) }, { ...o, blob: bytes }),
    commit(plan, o) {
      catalog.put("schema", plan.schema ?? SCHEMA, o);
      catalog.put("classes", plan.classes ?? CLASSES, o);
      for (const page of plan.pages.slice(plan.kept ?? 0)) catalog.put("page", page, o);
      const { body, blob } = commitOf(plan);
      return catalog.run("version.commit", body, { ...o, blob });
    },
  };
  return catalog;
}

/** The next entry of a catalog's log. */
export function entryAfter(
  state: AppliedState,
  payload: Uint8Array,
  kind: ChosenEntry["kind"] = "command",
): ChosenEntry {
  return { index: state.index + 1, epoch: 1, kind, payload };
}

function applyOne(catalog: TestCatalog, payload: Uint8Array): BatchOutput["applied"][number] {
  const applied = catalog.apply([entryAfter(catalog.state, payload)]).applied[0];
  if (!applied) throw new Error("one entry gives one answer");
  return applied;
}

function load(rows: ReadonlyMap<string, Row>, needs: readonly Need[]): Row[] {
  const all = [...rows.values()];
  return needs.flatMap((need): Row[] =>
    all.filter((row) => isWanted(need, row, rows)).map((row) => withBytes(need, row)),
  );
}

function isWanted(need: Need, row: Row, rows: ReadonlyMap<string, Row>): boolean {
  switch (need.kind) {
    case "head_pages":
      return row.table === "version_page" && isOpen(row, need.dataset) && row.position >= need.from;
    case "version_classes": {
      const version = rows.get(`version\n${need.dataset}\n${need.version}`);
      return version?.table === "version" && row.table === "page" && row.digest === version.classes;
    }
    default: {
      const { kind, withBytes: _, ...key } = { withBytes: false, ...need };
      return row.table === kind && Object.entries(key).every(([name, value]) => row[name as keyof Row] === value);
    }
  }
}

function isOpen(row: VersionPageRow, dataset: string): boolean {
  return row.dataset === dataset && row.untilVersion === null;
}

function withBytes(need: Need, row: Row): Row {
  return row.table === "page" && need.kind === "page" && !need.withBytes ? { ...row, bytes: new Uint8Array(0) } : row;
}
