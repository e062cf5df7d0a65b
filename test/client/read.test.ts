import { describe, expect, it } from "vitest";
import { formatDigest, type Digest } from "../../src/model/bytes.ts";
import { fetchLastPage, fetchManifest, fetchObject, fetchPage, type VersionHead } from "../../src/client/manifest.ts";
import { encodePage, pageDigest, pageTotals, type PageEntry } from "../../src/merkle/page.ts";
import { manifestLeaf, packLeaves, summarizeManifest, type ManifestEntry } from "../../src/merkle/manifest.ts";
import { sumTotals } from "../../src/merkle/totals.ts";
import { frontierOf } from "../../src/merkle/tree.ts";
import type { CatalogAnswer, CatalogQuery } from "../../src/model/api.ts";
import { startResponders } from "./responders.ts";

const digestOf = (byte: number): Digest => `b3:${byte.toString(16).padStart(8, "0").repeat(8)}`;
const entriesOf = (page: number): PageEntry[] =>
  [0, 1].map((i) => ({
    name: `p${page}-${i}.arrow`,
    split: i,
    rows: 10 + page,
    bytes: 1_000,
    digest: digestOf(page),
    segmentIndex: digestOf(page + 100),
  }));

type PagesQuery = Extract<CatalogQuery, { kind: "pages" }>;

/** As a replica of this release answers. */
function leavesFrom(manifest: readonly ManifestEntry[], { from, limit }: PagesQuery): CatalogAnswer {
  const frontier = frontierOf(manifest.slice(0, from).map(manifestLeaf)).map(formatDigest);
  return { kind: "leaves", frontier, leaves: packLeaves(manifest.slice(from, from + limit)) };
}

/** As one of an older release does: it does not know leaves. */
function entriesFrom(manifest: readonly ManifestEntry[], { from, limit }: PagesQuery): CatalogAnswer {
  return { kind: "pages", entries: manifest.slice(from, from + limit) as never };
}

function makeVersion(pageCount: number) {
  const pages = Array.from({ length: pageCount }, (_, p) => entriesOf(p));
  const bytes = new Map(pages.map((entries) => [pageDigest(encodePage(entries)) as string, encodePage(entries)]));
  const manifest: ManifestEntry[] = pages.map((entries) => ({
    page: pageDigest(encodePage(entries)),
    totals: pageTotals(entries),
  }));
  const { treeHash, totals } = summarizeManifest(manifest);
  const head: VersionHead = {
    dataset: "mnist",
    version: 1,
    root: digestOf(1),
    treeHash: formatDigest(treeHash),
    pageCount,
    totals,
    asOf: 7,
  };
  const answer = (query: CatalogQuery): CatalogAnswer => {
    if (query.kind === "pages") return leavesFrom(manifest, query);
    const found = query.kind === "object" ? bytes.get(query.digest) : undefined;
    return found
      ? { kind: "object", objectKind: "page", bytes: found }
      : { kind: "not_found", what: "an object", nearest: [] };
  };
  return { head, manifest, answer, pages };
}

describe("reads from any replica", () => {
  it("fetches a manifest in several answers and checks it against the tree", async () => {
    const group = startResponders(3);
    const { head, manifest, answer } = makeVersion(1_500);
    group.answer = answer;
    expect(await fetchManifest(group.session(), head)).toEqual(manifest);
  });

  it("names a replica with a bad page and takes it from another", async () => {
    const group = startResponders(3);
    const { head, manifest, answer, pages } = makeVersion(2);
    group.answer = answer;
    for (const r of group.replicas.slice(0, 2)) {
      r.answerRead = (query) => {
        const given = answer(query);
        return given.kind === "object" ? { ...given, bytes: given.bytes.map((b, i) => (i === 40 ? b ^ 1 : b)) } : given;
      };
    }
    const [first] = manifest;
    if (!first) throw new Error("two pages");
    // What a session has proven it doesn't fetch again: each of these asks anew.
    for (let i = 0; i < 40; i++) expect(await fetchPage(group.session(), head, 0, first)).toEqual(pages[0]);
    expect(new Set(group.notices.map((n) => n.details["replica"]))).toEqual(new Set(["r1", "r2"]));
    expect(group.notices[0]).toMatchObject({ code: "replica_bad_bytes", details: { what: "page 0 of mnist@v1" } });
  });

  it("is root_mismatch naming the page when every replica's copy is bad", async () => {
    const group = startResponders(3);
    const { head, manifest, answer } = makeVersion(2);
    const other = encodePage(entriesOf(9));
    group.answer = (query) =>
      query.kind === "object" ? { kind: "object", objectKind: "page", bytes: other } : answer(query);
    const [, second] = manifest;
    if (!second) throw new Error("two pages");
    await expect(fetchPage(group.session(), head, 1, second)).rejects.toMatchObject({
      code: "root_mismatch",
      details: { dataset: "mnist", version: 1, page: 1, replicas: ["r1", "r2", "r3"] },
    });
  });

  it("refuses a manifest with a missing, changed or swapped entry", async () => {
    const { head, manifest } = makeVersion(3);
    const [a, b, c] = manifest;
    if (!a || !b || !c) throw new Error("three pages");
    const bad = [
      [a, b],
      [a, c, b],
      [a, b, { ...c, totals: b.totals }],
      [a, b, c, c],
    ];
    for (const [entries, answer] of bad.flatMap((each) => [
      [each, leavesFrom] as const,
      [each, entriesFrom] as const,
    ])) {
      const group = startResponders(3);
      group.answer = (query) =>
        query.kind === "pages"
          ? answer(entries, { ...query, limit: entries.length })
          : { kind: "not_found", what: "", nearest: [] };
      await expect(fetchManifest(group.session(), head, { timeoutMs: 1_000 })).rejects.toMatchObject({
        code: "root_mismatch",
      });
    }
  });

  it("takes entries from a replica that does not know leaves", async () => {
    const group = startResponders(3);
    const { head, manifest, answer } = makeVersion(1_500);
    group.answer = (query) => (query.kind === "pages" ? entriesFrom(manifest, query) : answer(query));
    expect(await fetchManifest(group.session(), head)).toEqual(manifest);
  });

  it.each([1, 2, 3, 64, 977])("proves the last of %i pages by the frontier before it", async (pageCount) => {
    const group = startResponders(3);
    const { head, manifest, answer } = makeVersion(pageCount);
    group.answer = answer;
    const before = manifest.slice(0, -1);
    expect(await fetchLastPage(group.session(), head)).toEqual({
      position: pageCount - 1,
      frontier: frontierOf(before.map(manifestLeaf)),
      totals: sumTotals(before.map(({ totals }) => totals)),
      pages: manifest.slice(-1),
    });
  });

  it("refuses a last page with another frontier, another size or nothing", async () => {
    const { head, manifest, answer } = makeVersion(6);
    const [first, ...others] = manifest;
    const last = manifest.at(-1);
    if (!first || !last) throw new Error("six pages");
    const right = leavesFrom(manifest, { kind: "pages", dataset: "mnist", version: 1, from: 5, limit: 1 });
    if (right.kind !== "leaves") throw new Error("leaves");
    const { frontier, leaves } = right;
    const bad: Record<string, CatalogAnswer> = {
      "a hash changed": { ...right, frontier: [frontier[0] ?? digestOf(1), digestOf(2)] },
      "hashes swapped": { ...right, frontier: frontier.toReversed() },
      "a hash missing": { ...right, frontier: frontier.slice(1) },
      "a hash too many": { ...right, frontier: [...frontier, digestOf(2)] },
      "no frontier": { ...right, frontier: [] },
      "the frontier of all pages": { ...right, frontier: frontierOf(manifest.map(manifestLeaf)).map(formatDigest) },
      "the page before": leavesFrom(manifest, { kind: "pages", dataset: "mnist", version: 1, from: 4, limit: 1 }),
      "another page": { ...right, leaves: packLeaves([first]) },
      "other totals": { ...right, leaves: packLeaves([{ ...last, totals: first.totals }]) },
      "two pages": { ...right, leaves: packLeaves([last, last]) },
      "no page": { ...right, leaves: new Uint8Array(0) },
      "half a page": { ...right, leaves: leaves.subarray(0, leaves.byteLength - 1) },
      "the manifest without its first page": leavesFrom(others, {
        ...{ kind: "pages", dataset: "mnist", version: 1, from: 4, limit: 1 },
      }),
    };
    for (const [what, wrong] of Object.entries(bad)) {
      const group = startResponders(3);
      group.answer = (query) => (query.kind === "pages" ? wrong : answer(query));
      const all = fetchLastPage(group.session(), head, { timeoutMs: 1_000 });
      await expect(all, what).rejects.toMatchObject({ code: expect.stringMatching(/root_mismatch|damaged/) });
      // One that is right is found.
      const [, second] = group.replicas;
      if (second) second.answerRead = answer;
      expect((await fetchLastPage(group.session(), head)).pages, what).toEqual([last]);
    }
  });

  it("asks others for a frontier when a replica does not know any", async () => {
    const group = startResponders(3);
    const { head, manifest, answer } = makeVersion(6);
    group.answer = (query) => (query.kind === "pages" ? entriesFrom(manifest, query) : answer(query));
    const none = fetchLastPage(group.session(), head, { timeoutMs: 200 });
    await expect(none).rejects.toMatchObject({
      code: "unavailable",
      cause: { hint: "Bring all replicas to this release." },
    });
    const [, second] = group.replicas;
    if (second) second.answerRead = answer;
    expect((await fetchLastPage(group.session(), head)).pages).toEqual(manifest.slice(-1));
    expect(group.notices).toEqual([]);
  });

  it("goes on to the next replica when one is down, and is unavailable when all are", async () => {
    const group = startResponders(3);
    const { head, manifest, answer } = makeVersion(1);
    group.answer = answer;
    const session = group.session();
    for (const r of group.replicas.slice(0, 2)) await r.transport.close();
    expect(await fetchManifest(session, head)).toEqual(manifest);
    await group.replicas[2]?.transport.close();
    await expect(fetchManifest(session, head, { timeoutMs: 200 })).rejects.toMatchObject({ code: "unavailable" });
  });

  it("says not_found when no replica has an object", async () => {
    const group = startResponders(3);
    group.answer = () => ({ kind: "not_found", what: "an object", nearest: [] });
    const o = { what: "the schema of mnist@v1", asOf: 7 };
    await expect(fetchObject(group.session(), "schema", digestOf(3), o)).rejects.toMatchObject({ code: "not_found" });
  });
});
