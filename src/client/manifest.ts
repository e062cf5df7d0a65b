/**
 * Owns fetching what a confirmed root covers: manifest, pages, schema and class vocabularies.
 *
 * Any replica may serve it; everything is hashed against what the majority confirmed before it is used.
 */
import type { CatalogQuery, VersionAnswer } from "../model/api.ts";
import { bytesEqual, formatDigest, parseDigest, type Digest } from "../model/bytes.ts";
import type { ObjectKind } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { manifestLeaf, PACKED_LEAF_BYTES_MAX, unpackLeaves, type UnpackedLeaf } from "../merkle/manifest.ts";
import { decodePage, pageTotals } from "../merkle/page.ts";
import { objectDigest } from "../merkle/root.ts";
import { encodeTotals, subtractTotals, sumTotals, type SplitTotals } from "../merkle/totals.ts";
import { frontierAppend, isFrontier, rootOfFrontier, treeHash, type Hash } from "../merkle/tree.ts";
import { expectAnswer, expectOneOf } from "./answers.ts";
import type { CallOptions } from "./confirm.ts";
import { readFromAny, type Ask } from "./read.ts";
import type { Session } from "./session.ts";
import type { ManifestPage, ShardEntry } from "./types.ts";

/** What names a version in messages and in queries. */
export type VersionHead = Pick<VersionAnswer, "dataset" | "version" | "root" | "treeHash" | "pageCount" | "totals"> & {
  /** Log index of the confirmation: replicas answer as of it. */
  readonly asOf: number;
};

/** The start of a manifest that a draft keeps as it is, and what comes after it. */
export interface ManifestRest {
  /** Pages that come before. */
  readonly position: number;
  /** Frontier of the tree over them, and their totals. */
  readonly frontier: readonly Hash[];
  readonly totals: readonly SplitTotals[];
  readonly pages: readonly ManifestPage[];
}

/** Entries of one answer, so that it stays well below a message. */
const ENTRIES_PER_ANSWER = Math.min(
  LIMITS.apiRowsMax,
  Math.floor((LIMITS.messageBytesMax - 16 * 1024) / PACKED_LEAF_BYTES_MAX),
);

/**
 * All manifest entries, from one replica that has them right.
 * @throws ShardpactError `root_mismatch` when no replica has, `unavailable`, `aborted`
 */
export async function fetchManifest(
  session: Session,
  head: VersionHead,
  o: CallOptions = {},
): Promise<readonly ManifestPage[]> {
  const what = `the manifest of ${head.dataset}@v${head.version}`;
  return readFromAny(session, { ...o, what, asOf: head.asOf }, async (ask) => {
    const entries: ManifestPage[] = [];
    const hashes: Hash[] = [];
    while (entries.length < head.pageCount) {
      const { leaves } = await askForLeaves(ask, head, entries.length, ENTRIES_PER_ANSWER);
      if (leaves.length === 0) break;
      for (const { page, totals, hash } of leaves) {
        entries.push({ page, totals });
        hashes.push(hash);
      }
    }
    const got = hashes.length === head.pageCount ? treeHash(hashes) : null;
    const totals = sumTotals(entries.map((entry) => entry.totals));
    const sameTotals = bytesEqual(encodeTotals(totals), encodeTotals(head.totals));
    requireTree(head, sameTotals ? got : null, what, entries.length);
    return entries;
  });
}

/**
 * The last page's entry and the frontier before it, proven without any other page: folded together they are the tree's hash. So
 * it costs as much for a million shards as for a thousand.
 * @throws ShardpactError `root_mismatch` when no replica has it right, `unavailable` (also when all are of an older release),
 * `aborted`
 */
export async function fetchLastPage(session: Session, head: VersionHead, o: CallOptions = {}): Promise<ManifestRest> {
  const what = `the last page of ${head.dataset}@v${head.version}`;
  const position = head.pageCount - 1;
  return readFromAny(session, { ...o, what, asOf: head.asOf }, async (ask) => {
    const { leaves, frontier } = await askForLeaves(ask, head, position, 1);
    const [leaf, ...more] = leaves;
    const isWhole = leaf !== undefined && more.length === 0 && isFrontier(frontier, position);
    const got = isWhole ? rootOfFrontier(frontierAppend(frontier, position, leaf.hash), head.pageCount) : null;
    requireTree(head, got, what, leaves.length);
    const { page, totals } = leaf as UnpackedLeaf;
    return { position, frontier, totals: subtractTotals(head.totals, [totals]), pages: [{ page, totals }] };
  });
}

interface Leaves {
  readonly leaves: readonly UnpackedLeaf[];
  readonly frontier: readonly Hash[];
}

/** @throws ShardpactError `unavailable` when the replica is of a release that knows no frontiers and one is needed */
async function askForLeaves(ask: Ask, { dataset, version }: VersionHead, from: number, limit: number): Promise<Leaves> {
  const query: CatalogQuery = { kind: "pages", dataset, version, from, limit, packed: true };
  const answer = expectOneOf(query, ["leaves", "pages"], await ask(query));
  if (answer.kind === "leaves") {
    return { leaves: unpackLeaves(answer.leaves), frontier: answer.frontier.map(parseDigest) };
  }
  if (limit === 1 && from > 0) {
    throw new ShardpactError("unavailable", "a replica of an older release knows no frontiers", {
      hint: "Bring all replicas to this release.",
    });
  }
  return { leaves: answer.entries.map((entry) => ({ ...entry, hash: manifestLeaf(entry) })), frontier: [] };
}

/** `got`: the tree's hash as the answer has it; null when it is of no such tree. */
function requireTree(head: VersionHead, got: Hash | null, what: string, entries: number): void {
  if (got !== null && formatDigest(got) === head.treeHash) return;
  const { dataset, version, treeHash: expected, pageCount } = head;
  throw new ShardpactError("root_mismatch", `${what} does not hash to the confirmed root`, {
    details: { dataset, version, expected, got: got && formatDigest(got), pages: pageCount, entries },
  });
}

/**
 * The shard entries of the page at `position`.
 * @throws ShardpactError `root_mismatch` naming the page when no replica has it right, `unavailable`, `aborted`
 */
export async function fetchPage(
  session: Session,
  head: VersionHead,
  position: number,
  page: ManifestPage,
  o: CallOptions = {},
): Promise<readonly ShardEntry[]> {
  const what = `page ${position} of ${head.dataset}@v${head.version}`;
  const details = { dataset: head.dataset, version: head.version, page: position };
  const bytes = await fetchObject(session, "page", page.page, { ...o, what, asOf: head.asOf, details });
  const entries = decodePage(bytes);
  if (!bytesEqual(encodeTotals(pageTotals(entries)), encodeTotals(page.totals))) {
    throw new ShardpactError("root_mismatch", `${what} holds other totals than its manifest entry`, { details });
  }
  return entries;
}

export interface ObjectOptions extends CallOptions {
  readonly what: string;
  readonly asOf: number;
  readonly details?: Readonly<Record<string, unknown>>;
}

/** The bytes of a page, schema or class vocabulary that hash to `digest`, fetched once. @throws as `fetchPage` */
export async function fetchObject(
  session: Session,
  kind: ObjectKind,
  digest: Digest,
  o: ObjectOptions,
): Promise<Uint8Array> {
  const known = session.objects.get(kind, digest);
  if (known !== null) return known;
  const bytes = await askForObject(session, kind, digest, o);
  session.objects.put(kind, digest, bytes);
  return bytes;
}

function askForObject(session: Session, kind: ObjectKind, digest: Digest, o: ObjectOptions): Promise<Uint8Array> {
  return readFromAny(session, o, async (ask) => {
    const query: CatalogQuery = { kind: "object", digest };
    const { bytes } = expectAnswer(query, "object", await ask(query));
    const got = objectDigest(kind, bytes);
    if (got === digest) return bytes;
    throw new ShardpactError("root_mismatch", `${o.what} does not hash to its digest`, {
      details: { ...o.details, expected: digest, got },
    });
  });
}
