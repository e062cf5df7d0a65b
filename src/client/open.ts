/**
 * Owns opening a version: a majority confirms it, the client recomputes the root from the answer's fields, and schema
 * and class vocabularies are checked against it. What comes out needs no more trust in any replica.
 */
import { versionAnswer, type CatalogQuery, type VersionAnswer } from "../model/api.ts";
import { splitRule as splitRuleSchema, type SplitRule } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { formatRef, type Ref, type RefTarget } from "../model/names.ts";
import { decodeClasses } from "../merkle/classes.ts";
import { computeRoot } from "../merkle/root.ts";
import type { ShardStore } from "../shards/port.ts";
import { expectAnswer, refuseRevoked } from "./answers.ts";
import { confirm, type CallOptions, type Stragglers } from "./confirm.ts";
import { requireHistory } from "./history.ts";
import { fetchManifest, fetchObject, fetchPage, type VersionHead } from "./manifest.ts";
import { createPassedOverNotices } from "./passed-over.ts";
import { createPageGate, type PagesInUse, requireNoneRevokedSince } from "./revoked.ts";
import { runCalls } from "./run-calls.ts";
import type { Session } from "./session.ts";
import { summarizeSplits } from "./splits.ts";
import type { Confirmation, ConfirmedVersion, HistoryPoint, ManifestPage, ShardEntry } from "./types.ts";

/** Decoded pages that a version keeps; a page is at most 1,024 entries. */
const PAGES_KEPT = 32;
const STRAGGLERS_WAIT_MS = 50;

export interface Resolved {
  /** The fields, with a root that the client recomputed. */
  readonly version: VersionAnswer;
  readonly splitRule: SplitRule;
  readonly confirmation: Confirmation;
  readonly stragglers: Stragglers;
  /** The revocation in the answer, or one that a voter knows of since. */
  readonly revocation: VersionAnswer["revocation"];
}

/**
 * What a majority says the reference is, revoked or not.
 * @throws ShardpactError `not_found` with the nearest names, `root_mismatch` when the fields do not hash to the root,
 * and all that `confirm` throws
 */
export async function resolve(session: Session, ref: Ref, o: CallOptions = {}): Promise<Resolved> {
  const query: CatalogQuery = { kind: "resolve", ref };
  const { answer, confirmation, laterRevocation, stragglers } = await confirm(session, query, o);
  const version = versionAnswer.parse(expectAnswer(query, "version", answer).version);
  requireAsked(ref, version);
  const rule = splitRuleSchema.safeParse(version.splitRule);
  if (!rule.success) throw new ShardpactError("damaged", `${formatRef(ref)} has a split rule that does not validate`);
  const { schema, classes, splits, pageCount, treeHash, totals } = version;
  const got = computeRoot({ schema, classes, splits, splitRule: rule.data, pageCount, treeHash, totals });
  if (got !== version.root) {
    throw new ShardpactError("root_mismatch", `the fields of ${formatRef(ref)} hash to ${got}, not to its root`, {
      details: { ref: formatRef(ref), expected: version.root, got },
    });
  }
  return { version, splitRule: rule.data, confirmation, stragglers, revocation: version.revocation ?? laterRevocation };
}

function requireAsked({ dataset, target }: Ref, version: VersionAnswer): void {
  const same =
    dataset === version.dataset &&
    (target.kind !== "version" || target.version === version.version) &&
    (target.kind !== "root" || target.root === version.root);
  if (same) return;
  throw new ShardpactError(
    "damaged",
    `the group answered ${version.dataset}@v${version.version} when ${formatRef({ dataset, target })} was asked for`,
  );
}

export interface OpenOptions extends CallOptions {
  /** In order of preference; the caller closes them. */
  readonly stores: readonly ShardStore[];
}

/**
 * A resolved version, ready to be streamed.
 * @throws ShardpactError `revoked` with who, when and why; `root_mismatch`, `unavailable`, `aborted`
 */
export async function confirmedVersion(
  session: Session,
  resolved: Resolved,
  o: OpenOptions,
): Promise<ConfirmedVersion> {
  const { version, splitRule, confirmation } = resolved;
  const name = `${version.dataset}@v${version.version}`;
  refuseRevoked(name, resolved.revocation);
  const head: VersionHead = { ...version, asOf: confirmation.index };
  const reads = { ...o, asOf: head.asOf };
  const [schema, classes] = await Promise.all([
    fetchObject(session, "schema", version.schema, { ...reads, what: `the schema of ${name}` }),
    fetchObject(session, "classes", version.classes, { ...reads, what: `the class vocabularies of ${name}` }),
    waitForStragglers(session, resolved),
  ]);
  const { pages, inUse } = pageReader(session, head);
  const checked = { index: confirmation.index };
  const reopen = async (target: RefTarget, signal?: AbortSignal): Promise<ConfirmedVersion> => {
    const again = signal === undefined ? {} : { signal };
    const found = await resolve(session, { dataset: version.dataset, target }, again);
    return confirmedVersion(session, found, { ...again, stores: o.stores });
  };
  const { splits, pageRows } = await summarizeSplits(version, splitRule, () => allEntries(pages, o.signal));
  return {
    dataset: version.dataset,
    version: version.version,
    root: version.root,
    index: version.index,
    confirmation: { ...confirmation, diverged: resolved.stragglers.diverged() },
    rows: splits.reduce((sum, s) => sum + s.rows, 0),
    bytes: version.totals.reduce((sum, t) => sum + t.bytes, 0),
    splits,
    splitRule,
    pageRows,
    schema,
    classes: decodeClasses(classes),
    stores: o.stores,
    onPassedOver: createPassedOverNotices(session.notice),
    ...pages,
    reconfirm: (signal, since) => reconfirm(session, version, inUse, checked, since, signal),
    ...runCalls(session, version, reopen),
  };
}

/** Waits a little for the last voters, so that one that disagrees is named in the confirmation. */
export async function waitForStragglers(session: Session, { stragglers }: Resolved): Promise<void> {
  await Promise.race([stragglers.settled, session.timing.sleep(STRAGGLERS_WAIT_MS)]);
}

type PageReader = Pick<ConfirmedVersion, "manifest" | "page">;

/** Manifest fetched once, pages kept up to a bound; no page is handed out that holds a revoked shard. */
function pageReader(session: Session, head: VersionHead): { pages: PageReader; inUse: PagesInUse } {
  const name = `${head.dataset}@v${head.version}`;
  let manifest: readonly ManifestPage[] | null = null;
  const kept = new Map<number, readonly ShardEntry[]>();
  const positions = new Set<number>();
  const gate = createPageGate(session, name);
  const calls = (signal?: AbortSignal): CallOptions => (signal === undefined ? {} : { signal });
  const fetchEntries = async (position: number, signal?: AbortSignal): Promise<readonly ShardEntry[]> => {
    const known = kept.get(position);
    if (known) return known;
    const entry = (await pages.manifest(signal))[position];
    if (entry) return fetchPage(session, head, position, entry, calls(signal));
    throw new ShardpactError("invalid_argument", `${name} has ${head.pageCount} pages; there is no page ${position}`);
  };
  const pages: PageReader = {
    manifest: async (signal) => (manifest ??= await fetchManifest(session, head, calls(signal))),
    page: async (position, signal) => {
      const known = kept.get(position);
      if (known) return known;
      if (position < head.pageCount) positions.add(position);
      const entries = await gate.pass(fetchEntries(position, signal), calls(signal));
      const [oldest] = kept.keys();
      if (kept.size >= PAGES_KEPT && oldest !== undefined) kept.delete(oldest);
      kept.set(position, entries);
      return entries;
    },
  };
  return { pages, inUse: { name, positions, entries: fetchEntries } };
}

/** A few pages at a time. */
async function* allEntries(pages: PageReader, signal?: AbortSignal): AsyncGenerator<readonly ShardEntry[]> {
  const { length } = await pages.manifest(signal);
  for (let from = 0; from < length; from += LIMITS.pagesInFlightMax) {
    const positions = Array.from({ length: Math.min(LIMITS.pagesInFlightMax, length - from) }, (_, i) => from + i);
    yield* await Promise.all(positions.map((position) => pages.page(position, signal)));
  }
}

/** The version again, and what was revoked of the pages in use. `checked`: up to where that is known. */
async function reconfirm(
  session: Session,
  version: VersionAnswer,
  inUse: PagesInUse,
  checked: { index: number },
  since?: HistoryPoint,
  signal?: AbortSignal,
): Promise<Confirmation> {
  const ref: Ref = { dataset: version.dataset, target: { kind: "version", version: version.version } };
  const calls = signal === undefined ? {} : { signal };
  const again = await resolve(session, ref, calls);
  if (again.version.root !== version.root) {
    throw new ShardpactError(
      "group_forked",
      `${formatRef(ref)} was ${version.root} at index ${version.index} and is ${again.version.root} now`,
      { hint: "The group's history changed: stop, and compare the replicas with `shardpact audit verify`." },
    );
  }
  if (since) await requireHistory(session, "the state to resume from", since, again, calls);
  refuseRevoked(formatRef(ref), again.revocation);
  checked.index = Math.max(checked.index, await requireNoneRevokedSince(session, inUse, checked.index, calls));
  return again.confirmation;
}
