/**
 * Owns seeded histories for catalog tests: chosen entries of every kind, accepted, rejected, retried and malformed; and
 * the questions that can be asked about them.
 */
import type { Entry } from "../../src/consensus/engine.ts";
import { pageDigest } from "../../src/merkle/page.ts";
import { objectDigest } from "../../src/merkle/root.ts";
import type { CatalogQuery } from "../../src/model/api.ts";
import type { CommandBody, CommandKind } from "../../src/model/commands.ts";
import {
  CLASSES,
  commitOf,
  createTestCatalog,
  digestOf,
  pageOf,
  payloadOf,
  SCHEMA,
  T0,
  type TestCatalog,
} from "../support/catalog.ts";
import { seededRandom } from "./store-harness.ts";

interface Script {
  readonly catalog: TestCatalog;
  readonly entries: Entry[];
  readonly random: () => number;
  readonly pages: Map<string, Uint8Array[]>;
  count: number;
}

const DATASETS = ["mnist", "mnist-small", "cifar10"];

/** About `count` entries, decided by the seed. */
export function scriptedEntries(seed: number, count: number): Entry[] {
  const script: Script = {
    catalog: createTestCatalog(),
    entries: [],
    random: seededRandom(seed),
    pages: new Map(),
    count: 0,
  };
  push(script, "config", new TextEncoder().encode("voters"));
  commit(script, "mnist");
  while (script.entries.length < count) pick(script, ACTIONS)(script);
  changeMembers(script);
  return script.entries;
}

/** A configuration and a signature under it. */
function changeMembers(script: Script): void {
  push(script, "config", new TextEncoder().encode(`{"number":1}`));
  const index = script.entries.length;
  const signed = {
    index,
    chain: "c".repeat(64),
    configuration: digestOf("one"),
    replica: "r1",
    signature: "5".repeat(128),
  };
  push(script, "command", payloadOf("configuration.sign", signed, { id: idOf(0xc0f), timeMs: T0 }));
}

/** Every kind of query, about things that are there, were there, and never were. */
export function questions(asOf: number): CatalogQuery[] {
  const page = pageDigest(pageOf("mnist 0", 1));
  const datasets = [...DATASETS, "mnst"];
  const targets = [
    { kind: "head" as const },
    { kind: "version" as const, version: 1 },
    { kind: "version" as const, version: 2 },
    { kind: "version" as const, version: 99 },
    { kind: "tag" as const, tag: "prod" },
    { kind: "tag" as const, tag: "prd" },
    { kind: "root" as const, root: digestOf("no root") },
  ];
  return [
    ...datasets.flatMap((dataset): CatalogQuery[] => [
      ...targets.map((target): CatalogQuery => ({ kind: "resolve", ref: { dataset, target } })),
      { kind: "pages", dataset, version: 1, from: 0, limit: 10 },
      { kind: "pages", dataset, version: 2, from: 1, limit: 1 },
      { kind: "pages", dataset, version: 1, from: 0, limit: 10, packed: true },
      { kind: "pages", dataset, version: 2, from: 1, limit: 1, packed: true },
      { kind: "pages", dataset, version: 2, from: 99, limit: 1, packed: true },
      { kind: "versions", dataset, after: 0, limit: 100 },
      { kind: "versions", dataset, after: 1, limit: 1 },
      { kind: "tags", dataset },
      { kind: "tag_history", dataset, after: 0, limit: 100 },
      { kind: "tag_history", dataset, after: Math.floor(asOf / 2), limit: 1 },
      { kind: "runs", dataset, after: "", limit: 100 },
      { kind: "pins", dataset, run: null },
      { kind: "revocations", dataset },
    ]),
    { kind: "object", digest: objectDigest("schema", SCHEMA) },
    { kind: "object", digest: page },
    { kind: "object", digest: digestOf("nothing") },
    { kind: "datasets", after: "", limit: 2 },
    { kind: "datasets", after: "mnist", limit: 100 },
    ...["run-1", "run-2", "rn-1"].flatMap((run): CatalogQuery[] => [
      { kind: "run", run },
      { kind: "receipts", run, after: 0 },
      { kind: "receipts", run, after: Math.floor(asOf / 2) },
    ]),
    ...["live-1", "live-2", "run-1", "liv-1"].map((run): CatalogQuery => ({
      kind: "run_epochs",
      run,
      after: -1,
      limit: 9,
    })),
    { kind: "run_epochs", run: "live-1", after: 1, limit: 2 },
    { kind: "runs", dataset: null, after: "run-1", limit: 3 },
    { kind: "pins", dataset: null, run: "run-3" },
    { kind: "pins", dataset: null, run: null },
    { kind: "revoked_shards", digests: [] },
    { kind: "revoked_shards", digests: [digestOf("shard 1"), digestOf("shard 2"), digestOf("shard 3")] },
    { kind: "revocations_since", after: 0, limit: 100 },
    { kind: "revocations_since", after: Math.floor(asOf / 2), limit: 1 },
    { kind: "ledger", after: 0, limit: 5 },
    { kind: "ledger", after: Math.max(0, asOf - 3), limit: 1000 },
    { kind: "configurations", after: 0, limit: 1000 },
    { kind: "configurations", after: Math.floor(asOf / 2), limit: 2 },
    { kind: "outcome", commandId: idOf(1) },
    { kind: "outcome", commandId: idOf(1_000_000) },
  ];
}

function idOf(n: number): string {
  return n.toString(16).padStart(32, "0");
}

function upTo(script: Script, max: number): number {
  return Math.floor(script.random() * max);
}

function pick<T>(script: Script, from: readonly T[]): T {
  return from[upTo(script, from.length)] as T;
}

function push(script: Script, kind: Entry["kind"], payload: Uint8Array): void {
  const entry: Entry = {
    index: script.entries.length + 1,
    epoch: 1 + Math.floor(script.entries.length / 10),
    kind,
    payload,
  };
  script.entries.push(entry);
  script.catalog.apply([entry]);
}

function command<K extends CommandKind>(script: Script, kind: K, body: CommandBody<K>, blob?: Uint8Array): void {
  const timeMs = T0 + script.entries.length * 1_000 - upTo(script, 3_000);
  const actor = pick(script, ["ada", "grace", "Jürgen 🦊"]);
  push(
    script,
    "command",
    payloadOf(kind, body, { id: idOf(++script.count), actor, timeMs, ...(blob ? { blob } : {}) }),
  );
}

function put(script: Script, kind: "page" | "schema" | "classes", bytes: Uint8Array): void {
  command(script, "page.put", { kind, digest: objectDigest(kind, bytes) }, bytes);
}

/** The next version of a dataset: keeps some pages, adds some. */
function commit(script: Script, dataset: string): void {
  const old = script.pages.get(dataset) ?? [];
  const kept = upTo(script, old.length + 1);
  const added = Array.from({ length: 1 + upTo(script, 3) }, (_, i) =>
    pageOf(`${dataset} ${script.entries.length === 1 ? i : script.count + i}`, 1 + upTo(script, 4), upTo(script, 2)),
  );
  const pages = [...old.slice(0, kept), ...added];
  if (old.length === 0) {
    put(script, "schema", SCHEMA);
    put(script, "classes", CLASSES);
  }
  for (const page of added) put(script, "page", page);
  const { body, blob } = commitOf({ dataset, pages, kept, expectedHead: headOf(script, dataset) });
  command(script, "version.commit", { ...body, message: `version of ${pages.length} pages: "ü" \\ {}` }, blob);
  if (script.catalog.ledger.at(-1)?.outcome.ok === true) script.pages.set(dataset, pages);
}

function headOf({ catalog }: Script, dataset: string): { version: number; index: number } | null {
  const row = catalog.rows.get(`dataset\n${dataset}`);
  return row?.table === "dataset" ? { version: row.headVersion, index: row.headIndex } : null;
}

function someVersion(script: Script): { dataset: string; version: number; root: CommandBody<"pin.create">["root"] } {
  const dataset = pick(script, DATASETS);
  const version = 1 + upTo(script, (headOf(script, dataset)?.version ?? 0) + 1);
  const row = script.catalog.rows.get(`version\n${dataset}\n${version}`);
  return { dataset, version, root: row?.table === "version" ? row.root : digestOf("no root") };
}

function someRun(script: Script): string {
  return `run-${1 + upTo(script, 6)}`;
}

/** A run that follows: begun where it is not there, else a rank that comes to one of its next epochs. */
function follow(s: Script): void {
  const run = `live-${1 + upTo(s, 2)}`;
  const { dataset, version, root } = { ...someVersion(s), ...headVersion(s, "mnist") };
  const order = { alg: "sp-order/1" as const, strength: "full" as const, seed: "7", n: 10, K: 1, g: 1 };
  const begun = [...s.catalog.rows.values()].flatMap((row) =>
    row.table === "run_epoch" && row.run === run ? [row] : [],
  );
  const last = begun.at(-1);
  if (!last) {
    const fixed = { selection: digestOf("all"), order, world: 2, batchSize: 8, last: "drop" as const };
    command(s, "run.begin", { run, plan: { dataset, version, root, ...fixed, follow: true }, meta: {}, epoch: 0 });
    return;
  }
  const epoch = Math.max(1, last.epoch + 2 - upTo(s, 3));
  command(s, "epoch.cut", { run, epoch, dataset, from: last.version, version, root, order });
}

function headVersion({ catalog }: Script, dataset: string) {
  const row = catalog.rows.get(`dataset\n${dataset}`);
  return row?.table === "dataset" ? { dataset, version: row.headVersion, root: row.headRoot } : {};
}

const ACTIONS: readonly ((script: Script) => void)[] = [
  (s) => commit(s, pick(s, DATASETS)),
  (s) => commit(s, pick(s, DATASETS)),
  // Stale: the head has moved on.
  (s) => {
    const page = pageOf(`stale ${s.count}`);
    put(s, "page", page);
    const { body, blob } = commitOf({ dataset: "mnist", pages: [page], expectedHead: { version: 7, index: 7 } });
    command(s, "version.commit", body, blob);
  },
  (s) => {
    const { dataset, version } = someVersion(s);
    const expected = pick(s, [undefined, undefined, null, 1]);
    const tag = pick(s, ["prod", "stable"]);
    command(s, "tag.move", { dataset, tag, version, ...(expected === undefined ? {} : { expected }) });
  },
  // Taken, released and taken again, at the versions that there are.
  (s) => command(s, "pin.create", { ...someVersion(s), run: someRun(s), note: "'; DROP TABLE pins; --" }),
  (s) => command(s, "pin.release", { dataset: pick(s, DATASETS), run: someRun(s) }),
  (s) => {
    const version = someVersion(s);
    const order = {
      alg: "sp-order/1" as const,
      strength: "window" as const,
      seed: "18446744073709551615",
      n: 10,
      K: 2,
      g: 1,
    };
    const plan = { ...version, selection: digestOf("all"), order, world: 2, batchSize: 8, last: "drop" as const };
    command(s, "run.begin", { run: someRun(s), plan, meta: { host: 'gpu "7"', z: "1", a: "" } });
  },
  follow,
  follow,
  follow,
  (s) =>
    command(s, "run.receipt", { run: someRun(s), rank: upTo(s, 3), receipt: { b: [1.5, null, true], a: { "": "é" } } }),
  (s) => command(s, "run.end", { run: someRun(s), outcome: pick(s, ["done", "failed", "stopped"]) }),
  (s) => {
    const { dataset, version } = someVersion(s);
    if (s.random() < 0.3) command(s, "version.revoke", { dataset, version, reason: "wrong labels" });
  },
  (s) => command(s, "shard.revoke", { digest: digestOf(`shard ${upTo(s, 4)}`), reason: "broken" }),
  (s) => {
    const { dataset, version } = someVersion(s);
    command(s, "reader.lease", { dataset, version, run: someRun(s), ttlMs: 1 + upTo(s, 60_000) });
  },
  // A retry, under a later time.
  (s) => {
    const old = pick(s, s.entries);
    push(s, old.kind, old.payload);
  },
  // Another body under a known id.
  (s) => {
    const body = { dataset: "mnist", tag: `tag-${s.count}`, version: 1 };
    push(s, "command", payloadOf("tag.move", body, { id: idOf(1 + upTo(s, s.count)), timeMs: T0 }));
  },
  (s) => push(s, "noop", new Uint8Array(0)),
  // Not a command: too short, or a header that is not JSON.
  (s) => push(s, "command", new Uint8Array(upTo(s, 12)).fill(1)),
  (s) => push(s, "command", new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0x7b, 0, 0xff, 0x7d])),
];
