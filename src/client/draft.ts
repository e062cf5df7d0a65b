/**
 * Owns the draft of a version: prepared shards laid out as pages against the head they follow, with the root that the
 * group must come to. Decides, and changes nothing.
 */
import { formatDigest, type Digest } from "../model/bytes.ts";
import { canonicalJson, type ObjectKind, type SplitRule } from "../model/commands.ts";
import { invariant, isShardpactError, ShardpactError } from "../model/errors.ts";
import { createPageCutter, encodePage, pageDigest, pageTotals, type PageEntry } from "../merkle/page.ts";
import { manifestLeaf, type ManifestEntry } from "../merkle/manifest.ts";
import { computeRoot, objectDigest } from "../merkle/root.ts";
import { sumTotals } from "../merkle/totals.ts";
import { frontierAppend, rootOfFrontier } from "../merkle/tree.ts";
import type { PreparedVersion } from "../shards/prepare.ts";
import { firstSchemaDifference } from "../shards/schema.ts";
import { compareUtf8 } from "../shards/vocabulary.ts";
import type { CallOptions } from "./confirm.ts";
import {
  fetchLastPage,
  fetchManifest,
  fetchObject,
  fetchPage,
  type ManifestRest,
  type VersionHead,
} from "./manifest.ts";
import { resolve } from "./open.ts";
import type { Session } from "./session.ts";
import type { ManifestPage, ShardEntry } from "./types.ts";

/** The version that a new one follows. */
export interface Base {
  readonly version: number;
  readonly index: number;
  /** What the draft's pages are compared with: all of its pages, or, for an append, its last one. */
  readonly rest: ManifestRest;
  readonly schema: Uint8Array;
  /** Encoded class vocabularies. */
  readonly classes: Uint8Array;
  readonly splits: readonly string[];
  readonly splitRule: SplitRule;
  /** Entries of its last page, which an append fills up; null when nothing is appended. Then `rest` is all. */
  readonly tail: readonly ShardEntry[] | null;
  /** Shares of its positional splits, if it has those: what the next version has unless told otherwise. */
  readonly positional: Readonly<Record<string, number>> | undefined;
}

/** Bytes that the catalog must hold before the commit. */
export interface DraftObject {
  readonly kind: ObjectKind;
  readonly digest: Digest;
  readonly bytes: Uint8Array;
}

export interface Draft {
  readonly dataset: string;
  readonly message: string;
  readonly expectedHead: { readonly version: number; readonly index: number } | null;
  readonly root: Digest;
  readonly kept: number;
  /** Digests of the pages after the kept ones. */
  readonly added: readonly Digest[];
  readonly schema: Digest;
  readonly classes: Digest;
  readonly splits: readonly string[];
  readonly splitRule: SplitRule;
  /** What the base does not hold already. Made as they are asked for, each time anew: a million shards have a thousand pages. */
  readonly objects: Iterable<DraftObject> | AsyncIterable<DraftObject>;
  readonly rows: number;
  readonly bytes: number;
  readonly shards: number;
}

/**
 * The head, or the version that is expected to be it; null when there is none (and none is expected).
 * @throws as `resolve`
 */
export async function findBase(
  session: Session,
  dataset: string,
  expected: number | null | undefined,
  o: CallOptions & { readonly append?: boolean },
): Promise<Base | null> {
  if (expected === null) return null;
  const target =
    expected === undefined ? ({ kind: "head" } as const) : ({ kind: "version", version: expected } as const);
  try {
    const { version, splitRule, confirmation } = await resolve(session, { dataset, target }, o);
    const head: VersionHead = { ...version, asOf: confirmation.index };
    const reads = { ...callsOf(o), asOf: head.asOf };
    const name = `${dataset}@v${version.version}`;
    const [{ rest, tail }, schema, classes] = await Promise.all([
      o.append === true ? fetchTail(session, head, callsOf(o)) : fetchAll(session, head, callsOf(o)),
      fetchObject(session, "schema", version.schema, { ...reads, what: `the schema of ${name}` }),
      fetchObject(session, "classes", version.classes, { ...reads, what: `the class vocabularies of ${name}` }),
    ]);
    const { splits, index } = version;
    const positional = splitRule.kind === "positional" ? sharesOf(splits, splitRule.ppm) : undefined;
    return { version: version.version, index, rest, schema, classes, splits, splitRule, tail, positional };
  } catch (error) {
    if (isShardpactError(error, "not_found") && expected === undefined) return null;
    throw error;
  }
}

type BasePages = Pick<Base, "rest" | "tail">;

async function fetchAll(session: Session, head: VersionHead, o: CallOptions): Promise<BasePages> {
  const pages = await fetchManifest(session, head, o);
  return { rest: { position: 0, frontier: [], totals: [], pages }, tail: null };
}

/** An append needs one page and the frontier before it, however many there are. */
async function fetchTail(session: Session, head: VersionHead, o: CallOptions): Promise<BasePages> {
  const rest = await fetchLastPage(session, head, o);
  const [last] = rest.pages;
  invariant(last, "a version has a last page");
  return { rest, tail: await fetchPage(session, head, rest.position, last, o) };
}

function callsOf({ timeoutMs, signal }: CallOptions): CallOptions {
  return { ...(timeoutMs === undefined ? {} : { timeoutMs }), ...(signal === undefined ? {} : { signal }) };
}

function sharesOf(splits: readonly string[], ppm: Readonly<Record<string, number>>): Record<string, number> {
  const heldOut = Object.entries(ppm).map(([name, share]): [string, number] => [name, share / 1_000_000]);
  const left = 1_000_000 - Object.values(ppm).reduce((sum, share) => sum + share, 0);
  const rest = splits.find((name) => !Object.hasOwn(ppm, name));
  return Object.fromEntries(rest === undefined || left <= 0 ? heldOut : [[rest, left / 1_000_000], ...heldOut]);
}

const NO_PAGES: ManifestRest = { position: 0, frontier: [], totals: [], pages: [] };

/**
 * Pages, root and delta of the prepared shards on top of `base`. Pages that the base starts with are kept. With a base that
 * has a `tail` the version holds the base's shards too: its last page is filled up, the pages before it are not looked at.
 * @throws ShardpactError `schema_differs` with the first differing column, `split_changed`, `invalid_argument` (two
 * shards of one name)
 */
export async function draftVersion(
  dataset: string,
  base: Base | null,
  prepared: PreparedVersion,
  message: string,
): Promise<Draft> {
  if (base) requireLineage(dataset, base, prepared);
  const splits = splitsAfter(base, prepared.splits);
  const rest = base?.rest ?? NO_PAGES;
  const pages: ManifestEntry[] = [];
  let frontier = rest.frontier;
  for await (const { digest, totals } of pagesOf(entriesAfter(dataset, base, prepared, splits))) {
    const entry = { page: digest, totals };
    frontier = frontierAppend(frontier, rest.position + pages.length, manifestLeaf(entry));
    pages.push(entry);
  }
  const pageCount = rest.position + pages.length;
  const totals = sumTotals([rest.totals, ...pages.map((page) => page.totals)]);
  const schema = objectDigest("schema", prepared.schema);
  const classes = objectDigest("classes", prepared.classes);
  const { splitRule } = prepared;
  const root = computeRoot({
    schema,
    classes,
    splits,
    splitRule,
    pageCount,
    treeHash: formatDigest(rootOfFrontier(frontier, pageCount)),
    totals,
  });
  const same = commonPrefix(rest.pages, pages);
  const held = new Set<Digest>(rest.pages.map((entry) => entry.page));
  if (base) held.add(objectDigest("schema", base.schema)).add(objectDigest("classes", base.classes));
  async function* objects(): AsyncGenerator<DraftObject> {
    if (!held.has(schema)) yield { kind: "schema", digest: schema, bytes: prepared.schema };
    if (!held.has(classes)) yield { kind: "classes", digest: classes, bytes: prepared.classes };
    for await (const { digest, bytes } of pagesOf(entriesAfter(dataset, base, prepared, splits))) {
      if (!held.has(digest)) yield { kind: "page", digest, bytes };
    }
  }
  return {
    dataset,
    message,
    expectedHead: base && { version: base.version, index: base.index },
    root,
    kept: rest.position + same,
    added: pages.slice(same).map((entry) => entry.page),
    schema,
    classes,
    splits,
    splitRule,
    objects: { [Symbol.asyncIterator]: objects },
    rows: totals.reduce((sum, t) => sum + t.rows, 0),
    bytes: totals.reduce((sum, t) => sum + t.bytes, 0),
    shards: totals.reduce((sum, t) => sum + t.shards, 0),
  };
}

interface DraftPage {
  readonly digest: Digest;
  readonly bytes: Uint8Array;
  readonly totals: ManifestEntry["totals"];
}

async function* pagesOf(entries: AsyncIterable<PageEntry>): AsyncGenerator<DraftPage> {
  const cutter = createPageCutter();
  const pageOf = (page: readonly PageEntry[]): DraftPage => {
    const bytes = encodePage(page);
    return { digest: pageDigest(bytes), bytes, totals: pageTotals(page) };
  };
  for await (const entry of entries) {
    const full = cutter.add(entry);
    if (full) yield pageOf(full);
  }
  const last = cutter.finish();
  if (last) yield pageOf(last);
}

/**
 * Entries from the first page on that may differ from the base's. No two have one name, across all pages: a page alone can't
 * tell, and the group does not look into a million names at every commit.
 */
async function* entriesAfter(
  dataset: string,
  base: Base | null,
  prepared: PreparedVersion,
  splits: readonly string[],
): AsyncGenerator<PageEntry> {
  const ordinals = prepared.splits.map((name) => splits.indexOf(name));
  const tail = base?.tail ?? null;
  const inTail = new Set(tail?.map(({ name }) => name));
  if (tail) yield* tail;
  let last: string | null = null;
  for await (const { entry } of prepared.shards) {
    const order = last === null ? -1 : compareUtf8(last, entry.name);
    invariant(order <= 0, "prepared shards come in bytewise order of their names");
    const name = tail && base ? appendedName(entry.name, base, prepared.splitRule) : entry.name;
    if (order === 0 || inTail.has(name)) throw sameName(dataset, name);
    last = entry.name;
    yield { ...entry, name, split: ordinals[entry.split] ?? entry.split };
  }
}

function sameName(dataset: string, name: string): ShardpactError {
  return new ShardpactError("invalid_argument", `two shards of the version would be named '${name}'`, {
    details: { dataset, name },
    hint: "Rename one of the files: a version tells its shards apart by name.",
  });
}

/**
 * Under a folder of the version that brings it, below the split's: so that it meets no name of a million that are not looked at.
 */
function appendedName(name: string, { version }: Base, rule: SplitRule): string {
  const folder = `v${version + 1}`;
  const [first = "", ...rest] = name.split("/");
  const inSplit = rest.length > 0 && (rule.kind === "folders" || rule.kind === "key" || rule.kind === "none");
  return inSplit ? [first, folder, ...rest].join("/") : `${folder}/${name}`;
}

/** The base's splits keep their ordinals, which its pages and runs use; new ones come after. */
function splitsAfter(base: Base | null, splits: readonly string[]): readonly string[] {
  return base ? [...base.splits, ...splits.filter((name) => !base.splits.includes(name))] : splits;
}

function commonPrefix(a: readonly ManifestPage[], b: readonly ManifestEntry[]): number {
  let kept = 0;
  while (kept < a.length && kept < b.length && a[kept]?.page === b[kept]?.page) kept++;
  return kept;
}

/** The group checks this too; here it costs nothing yet, and the column has a name. */
function requireLineage(dataset: string, base: Base, prepared: PreparedVersion): void {
  const head = `${dataset}@v${base.version}`;
  const difference = firstSchemaDifference(base.schema, prepared.schema);
  if (difference) {
    const what = difference.field === "" ? "the schema's metadata" : `column '${difference.field}'`;
    throw new ShardpactError(
      "schema_differs",
      `${what} differs from ${head}: ${difference.b} here, ${difference.a} there`,
      {
        details: { dataset, field: difference.field, expected: difference.a, got: difference.b },
        hint: "Convert the files, or publish them under another dataset name.",
      },
    );
  }
  if (canonicalJson(base.splitRule) === canonicalJson(prepared.splitRule)) return;
  throw new ShardpactError("split_changed", `${head} is split by another rule than these files`, {
    details: { dataset, expected: base.splitRule, got: prepared.splitRule },
    hint: "Rows would move between splits: lay the files out as before, or publish under another dataset name.",
  });
}
