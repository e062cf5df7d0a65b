/**
 * Owns fetching what a confirmed root covers: manifest, pages, schema and class vocabularies.
 *
 * Any replica may serve it; everything is hashed against what the majority confirmed before it is used.
 */
import type { CatalogQuery, VersionAnswer } from "../model/api.ts";
import { formatDigest, type Digest } from "../model/bytes.ts";
import type { ObjectKind } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { summarizeManifest } from "../merkle/manifest.ts";
import { decodePage, pageTotals } from "../merkle/page.ts";
import { objectDigest } from "../merkle/root.ts";
import { encodeTotals } from "../merkle/totals.ts";
import { bytesEqual } from "../model/bytes.ts";
import { expectAnswer } from "./answers.ts";
import type { CallOptions } from "./confirm.ts";
import { readFromAny } from "./read.ts";
import type { Session } from "./session.ts";
import type { ManifestPage, ShardEntry } from "./types.ts";

/** What names a version in messages and in queries. */
export type VersionHead = Pick<VersionAnswer, "dataset" | "version" | "root" | "treeHash" | "pageCount" | "totals"> & {
  /** Log index of the confirmation: replicas answer as of it. */
  readonly asOf: number;
  readonly splitCount: number;
};

/** Entries of one answer, so that its msgpack stays well below a message: a digest and about 60 bytes for each split. */
function entriesPerAnswer(splitCount: number): number {
  return Math.min(LIMITS.apiRowsMax, Math.floor(LIMITS.messageBytesMax / 2 / (96 + 64 * splitCount)));
}

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
    const limit = entriesPerAnswer(head.splitCount);
    while (entries.length < head.pageCount) {
      const { dataset, version } = head;
      const query: CatalogQuery = { kind: "pages", dataset, version, from: entries.length, limit };
      const answer = expectAnswer(query, "pages", await ask(query));
      if (answer.entries.length === 0) break;
      entries.push(...answer.entries);
    }
    requireTree(head, entries, what);
    return entries;
  });
}

function requireTree(head: VersionHead, entries: readonly ManifestPage[], what: string): void {
  const summary = summarizeManifest(entries);
  const got = formatDigest(summary.treeHash);
  const sameTotals = bytesEqual(encodeTotals(summary.totals), encodeTotals(head.totals));
  if (entries.length === head.pageCount && got === head.treeHash && sameTotals) return;
  throw new ShardpactError("root_mismatch", `${what} does not hash to the confirmed root`, {
    details: {
      dataset: head.dataset,
      version: head.version,
      expected: head.treeHash,
      got,
      pages: [head.pageCount, entries.length],
    },
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
