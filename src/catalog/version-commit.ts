/**
 * Owns `version.commit`: a version is made as a delta against the head, and its root recomputed by every replica.
 *
 * It reads and writes only the pages that differ: the tree goes on from the frontier that stands before the first
 * changed position, so an append to a million shards costs the appended pages and O(log n) hashes.
 */
import { formatDigest, parseDigest } from "../model/bytes.ts";
import type { Digest } from "../model/bytes.ts";
import type { CommandBody, CommandOf } from "../model/commands.ts";
import { invariant, ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { DIGEST_BYTES } from "../merkle/hash.ts";
import { manifestLeaf } from "../merkle/manifest.ts";
import { computeRoot } from "../merkle/root.ts";
import { subtractTotals, sumTotals } from "../merkle/totals.ts";
import { frontierAppend, rootOfFrontier } from "../merkle/tree.ts";
import { requireLineage } from "./lineage.ts";
import { accept } from "./rule.ts";
import type { Rule } from "./rule.ts";
import type { DatasetRow, Need, PageRow, SplitTotals, VersionPageRow, VersionRow } from "./rows.ts";
import type { View } from "./view.ts";

type Body = CommandBody<"version.commit">;

export const versionCommit: Rule<"version.commit"> = {
  needs(command) {
    const { dataset, expectedHead, kept, schema, classes } = command.body;
    const needs: Need[] = [
      { kind: "dataset", name: dataset },
      { kind: "page", digest: schema, withBytes: false },
      { kind: "page", digest: classes, withBytes: true },
      ...addedDigests(command).map((digest): Need => ({ kind: "page", digest, withBytes: false })),
    ];
    if (expectedHead) {
      needs.push(
        { kind: "version", dataset, version: expectedHead.version },
        { kind: "version_classes", dataset, version: expectedHead.version },
        { kind: "head_pages", dataset, from: kept },
      );
    }
    return needs;
  },

  decide(view, command, { index, timeMs }) {
    const { body } = command;
    const current = view.dataset(body.dataset);
    if (current?.headRoot === body.root) return unchanged(current);
    const head = expectedHead(view, body, current);
    requireCounts(command, head);
    const closed = head ? view.headPages(body.dataset, body.kept) : [];
    invariant(closed.length === (head?.pageCount ?? 0) - body.kept, `open pages of ${body.dataset} tile its head`);
    const added = requirePages(view, command, head, closed, timeMs);
    requireLineage(view, body, head);
    const version = (head?.version ?? 0) + 1;
    const manifest = extendManifest(body, version, head, closed, added);
    requireRoot(body, manifest.root);
    const result = { dataset: body.dataset, version, root: manifest.root, index, unchanged: false };
    return accept(
      result,
      datasetRow(current, result),
      versionRow(command, { version, index, timeMs }, manifest),
      ...closed.map((row) => ({ ...row, untilVersion: version })),
      ...manifest.opened,
    );
  },
};

/** The digests in the blob; none of a torn one, which `requireCounts` refuses. */
function addedDigests({ body, blob }: CommandOf<"version.commit">): Digest[] {
  if (blob.byteLength !== body.added * DIGEST_BYTES) return [];
  return Array.from({ length: body.added }, (_, i) =>
    formatDigest(blob.subarray(i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES)),
  );
}

/** Somebody, or the same script, committed this content before: nothing to do, whatever head they saw. */
function unchanged({ name, headVersion, headIndex, headRoot }: DatasetRow): ReturnType<typeof accept> {
  return accept({ dataset: name, version: headVersion, root: headRoot, index: headIndex, unchanged: true });
}

/** The head's row, which must be the one that the client expects. */
function expectedHead(view: View, body: Body, current: DatasetRow | null): VersionRow | null {
  const expected = body.expectedHead;
  if (expected?.version === current?.headVersion && expected?.index === current?.headIndex) {
    if (!expected) return null;
    const head = view.version(body.dataset, expected.version);
    invariant(head, `the head of ${body.dataset} has a version row`);
    return head;
  }
  const head = current && { version: current.headVersion, index: current.headIndex, root: current.headRoot };
  const now = head ? `at v${head.version} (index ${head.index})` : "not there yet";
  const then = expected ? `v${expected.version} (index ${expected.index})` : "no version";
  throw new ShardpactError("head_moved", `${body.dataset} is ${now}; the commit expected ${then}`, {
    details: { head, expected },
    hint: "Look at the new head, then publish again on top of it.",
  });
}

function requireCounts(command: CommandOf<"version.commit">, head: VersionRow | null): void {
  const { body, blob } = command;
  const { kept, added } = body;
  if (blob.byteLength !== added * DIGEST_BYTES) {
    throw new ShardpactError(
      "invalid_argument",
      `${added} pages are added, but their digests take ${blob.byteLength} bytes`,
    );
  }
  if (new Set(addedDigests(command)).size !== added) {
    throw new ShardpactError("invalid_argument", "a page is added twice, and with it every name in it");
  }
  const pageCount = head?.pageCount ?? 0;
  if (kept > pageCount) {
    throw new ShardpactError("invalid_argument", `${kept} pages are kept of a head that has ${pageCount}`);
  }
  if (kept + added === 0) throw new ShardpactError("invalid_argument", "a version has at least one page");
  if (kept + added > LIMITS.pagesPerVersionMax) {
    throw new ShardpactError(
      "limit_exceeded",
      `${kept + added} pages; a version has ${LIMITS.pagesPerVersionMax} at most`,
    );
  }
}

/** The added pages' rows. Pages and objects must be held, or in the head: garbage collection may take all others. */
function requirePages(
  view: View,
  command: CommandOf<"version.commit">,
  head: VersionRow | null,
  closed: readonly VersionPageRow[],
  timeMs: number,
): PageRow[] {
  const { schema, classes } = command.body;
  const inHead = new Set<Digest>(closed.map((row) => row.page));
  if (head) inHead.add(head.schema).add(head.classes);
  const missing = new Set<Digest>();
  const find = (digest: Digest, kind: PageRow["kind"]): PageRow[] => {
    const row = view.page(digest);
    if (row?.kind === kind && (row.holdUntilMs >= timeMs || inHead.has(digest))) return [row];
    missing.add(digest);
    return [];
  };
  const pages = addedDigests(command).flatMap((digest) => find(digest, "page"));
  find(schema, "schema");
  find(classes, "classes");
  if (missing.size === 0) return pages;
  const names = [...missing].slice(0, LIMITS.apiRowsMax);
  throw new ShardpactError("page_missing", `${missing.size} pages or objects of the commit are not held: ${names[0]}`, {
    details: { missing: names, missingCount: missing.size },
    hint: "Put them (again), then commit under a new command id.",
  });
}

interface Manifest {
  readonly root: Digest;
  readonly treeHash: Digest;
  readonly pageCount: number;
  readonly totals: readonly SplitTotals[];
  readonly frontier: readonly Digest[];
  readonly opened: readonly VersionPageRow[];
}

function extendManifest(
  body: Body,
  version: number,
  head: VersionRow | null,
  closed: readonly VersionPageRow[],
  added: readonly PageRow[],
): Manifest {
  const before = closed[0]?.frontierBefore ?? head?.frontier ?? [];
  let frontier = before.map(parseDigest);
  const opened = added.map((page, i): VersionPageRow => {
    const position = body.kept + i;
    const row = {
      table: "version_page",
      dataset: body.dataset,
      position,
      fromVersion: version,
      untilVersion: null,
      page: page.digest,
      totals: page.totals,
      frontierBefore: frontier.map(formatDigest),
    } as const;
    frontier = frontierAppend(frontier, position, manifestLeaf({ page: page.digest, totals: page.totals }));
    return row;
  });
  const pageCount = body.kept + added.length;
  const keptTotals = subtractTotals(
    head?.totals ?? [],
    closed.map((row) => row.totals),
  );
  const totals = sumTotals([keptTotals, ...added.map((page) => page.totals)]);
  const stray = totals.find(({ split }) => split >= body.splits.length);
  if (stray) {
    throw new ShardpactError(
      "invalid_argument",
      `pages use split ${stray.split}; ${body.splits.length} splits are named`,
    );
  }
  const treeHash = formatDigest(rootOfFrontier(frontier, pageCount));
  const root = computeRoot({ ...body, pageCount, treeHash, totals });
  return { root, treeHash, pageCount, totals, frontier: frontier.map(formatDigest), opened };
}

function requireRoot(body: Body, got: Digest): void {
  if (got === body.root) return;
  throw new ShardpactError("root_mismatch", `the pages of ${body.dataset} make ${got}, not ${body.root}`, {
    details: { dataset: body.dataset, expected: body.root, got },
  });
}

function datasetRow(
  current: DatasetRow | null,
  { dataset, version, root, index }: { dataset: string; version: number; root: Digest; index: number },
): DatasetRow {
  return {
    table: "dataset",
    name: dataset,
    headVersion: version,
    headIndex: index,
    headRoot: root,
    createdIndex: current?.createdIndex ?? index,
  };
}

function versionRow(
  { id, actor, body }: CommandOf<"version.commit">,
  at: { version: number; index: number; timeMs: number },
  { root, treeHash, pageCount, totals, frontier }: Manifest,
): VersionRow {
  return {
    table: "version",
    dataset: body.dataset,
    ...at,
    actor,
    commandId: id,
    root,
    treeHash,
    pageCount,
    kept: body.kept,
    schema: body.schema,
    classes: body.classes,
    splits: body.splits,
    totals,
    splitRule: body.splitRule,
    message: body.message,
    frontier,
  };
}
