import { describe, expect, it } from "vitest";
import type { VersionPageRow, VersionRow } from "../../src/catalog/rows.ts";
import { formatDigest } from "../../src/model/bytes.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { manifestLeaf } from "../../src/merkle/manifest.ts";
import { decodePage, pageDigest, pageTotals } from "../../src/merkle/page.ts";
import { objectDigest } from "../../src/merkle/root.ts";
import { frontierOf, treeHash } from "../../src/merkle/tree.ts";
import { classesOf, CLASSES, commitOf, createTestCatalog, digestOf, pageOf, SCHEMA, T0 } from "../support/catalog.ts";
import type { CommitPlan, TestCatalog } from "../support/catalog.ts";

const pages = (n: number): Uint8Array[] => Array.from({ length: n }, (_, i) => pageOf(`p${i}`, 1 + (i % 3), i % 2));
const headOf = (catalog: TestCatalog, dataset = "mnist"): { version: number; index: number } => {
  const row = catalog.rows.get(`dataset\n${dataset}`);
  if (row?.table !== "dataset") throw new Error("no head");
  return { version: row.headVersion, index: row.headIndex };
};
const version = (catalog: TestCatalog, v: number): VersionRow => {
  const row = catalog.rows.get(`version\nmnist\n${v}`);
  if (row?.table !== "version") throw new Error(`no v${v}`);
  return row;
};
const openRows = (catalog: TestCatalog): VersionPageRow[] =>
  [...catalog.rows.values()].filter(
    (row) => row.table === "version_page" && row.untilVersion === null,
  ) as VersionPageRow[];
const refuseCommit = (catalog: TestCatalog, plan: CommitPlan): { code: string; details: unknown } => {
  const { body, blob } = commitOf(plan);
  return catalog.refuse("version.commit", body, { blob });
};
/** A catalog whose head has these pages, all of them held. */
const withHead = (list: readonly Uint8Array[], plan: Partial<CommitPlan> = {}): TestCatalog => {
  const catalog = createTestCatalog();
  catalog.commit({ pages: list, ...plan });
  return catalog;
};

describe("version.commit", () => {
  it("makes v1 of a new dataset, and rows that say all of it", () => {
    const catalog = createTestCatalog();
    const list = pages(3);
    const result = catalog.commit({ pages: list });
    const { root } = commitOf({ pages: list }).body;
    expect(result).toEqual({ dataset: "mnist", version: 1, root, index: catalog.state.index, unchanged: false });
    expect(version(catalog, 1)).toMatchObject({
      pageCount: 3,
      kept: 0,
      actor: "ada",
      totals: [
        { split: 0, rows: 10 + 10 + 11 + 12, bytes: 4 * 1000 + 3, shards: 4 },
        { split: 1, rows: 21, bytes: 2001, shards: 2 },
      ],
    });
    expect(openRows(catalog).map((row) => row.page)).toEqual(list.map(pageDigest));
    expect(catalog.rows.get(`shard\n${pageDigest(list[1]!)}\n1`)).toMatchObject({ name: "p1-00001.arrow", rows: 11 });
  });

  it("any delta makes the root of the whole manifest, and the frontier before each page (I22)", () => {
    for (let n = 1; n <= 9; n++) {
      for (let kept = 0; kept <= n; kept++) {
        const catalog = withHead(pages(n));
        const next = [...pages(n).slice(0, kept), pageOf("new", 3), pageOf("newer", 1, 1)];
        const result = catalog.commit({ pages: next, kept, expectedHead: headOf(catalog) });
        expect(result["version"]).toBe(2);
        const leaves = next.map((b) => manifestLeaf({ page: pageDigest(b), totals: pageTotals(decodePage(b)) }));
        expect(version(catalog, 2).treeHash).toBe(formatDigest(treeHash(leaves)));
        expect(version(catalog, 2).frontier).toEqual(frontierOf(leaves).map(formatDigest));
        const open = openRows(catalog).sort((a, b) => a.position - b.position);
        expect(open.map((row) => row.page)).toEqual(next.map(pageDigest));
        open.forEach((row, i) => expect(row.frontierBefore).toEqual(frontierOf(leaves.slice(0, i)).map(formatDigest)));
      }
    }
  });

  it("closes the pages that it does not keep, so that an older version can still be read (I23)", () => {
    const catalog = withHead(pages(3));
    catalog.commit({ pages: [...pages(3).slice(0, 1), pageOf("x")], kept: 1, expectedHead: headOf(catalog) });
    const rows = [...catalog.rows.values()].filter((row) => row.table === "version_page") as VersionPageRow[];
    const at = (v: number): string[] =>
      rows
        .filter((row) => row.fromVersion <= v && (row.untilVersion === null || v < row.untilVersion))
        .sort((a, b) => a.position - b.position)
        .map((row) => row.page);
    expect(at(1)).toEqual(pages(3).map(pageDigest));
    expect(at(2)).toEqual([pages(3)[0]!, pageOf("x")].map(pageDigest));
  });

  it("can only drop pages, and brings back head pages without another put", () => {
    const catalog = withHead(pages(4));
    catalog.commit({ pages: pages(2), kept: 2, expectedHead: headOf(catalog) });
    expect(version(catalog, 2)).toMatchObject({ pageCount: 2 });
    const late = T0 + LIMITS.pageHoldMs + 1;
    const [a, b] = pages(2) as [Uint8Array, Uint8Array];
    const { body, blob } = commitOf({ pages: [b, a], expectedHead: headOf(catalog) });
    expect(catalog.run("version.commit", body, { blob, timeMs: late })["version"]).toBe(3);
  });

  it("the same root as the head changes nothing, whatever head was expected", () => {
    const catalog = withHead(pages(2));
    const before = new Map(catalog.rows);
    const { body, blob } = commitOf({ pages: pages(2) });
    for (const expectedHead of [null, headOf(catalog), { version: 9, index: 9 }]) {
      const result = catalog.run("version.commit", { ...body, expectedHead }, { blob });
      expect(result).toEqual({ dataset: "mnist", ...headOf(catalog), root: body.root, unchanged: true });
    }
    expect(catalog.rows).toEqual(before);
  });

  it("appends splits and classes", () => {
    const catalog = withHead(pages(2));
    const classes = classesOf({ label: ["cat", "dog", "emu"], other: ["x"] });
    const splits = ["train", "val", "test"];
    const list = [...pages(2), pageOf("t", 1, 2)];
    catalog.commit({ pages: list, kept: 2, expectedHead: headOf(catalog), classes, splits });
    expect(version(catalog, 2)).toMatchObject({ splits, classes: objectDigest("classes", classes) });
  });
});

describe("version.commit refuses", () => {
  it("another head than expected: `head_moved`, with the head (I24)", () => {
    const catalog = withHead(pages(2));
    const { root } = version(catalog, 1);
    const next = { pages: [...pages(2), pageOf("x")] };
    const head = { ...headOf(catalog), root };
    for (const expectedHead of [null, { version: 2, index: head.index }, { version: 1, index: head.index + 1 }]) {
      expect(refuseCommit(catalog, { ...next, expectedHead })).toEqual({
        code: "head_moved",
        details: { head, expected: expectedHead },
      });
    }
    const gone = refuseCommit(catalog, { ...next, dataset: "other", expectedHead: { version: 1, index: 1 } });
    expect(gone).toMatchObject({ code: "head_moved", details: { head: null } });
  });

  it("pages and objects that are absent or no longer held: `page_missing`, naming them (I25)", () => {
    const catalog = createTestCatalog();
    const list = pages(2);
    const all = [...list.map(pageDigest), objectDigest("schema", SCHEMA), objectDigest("classes", CLASSES)];
    expect(refuseCommit(catalog, { pages: list })).toEqual({
      code: "page_missing",
      details: { missing: all, missingCount: 4 },
    });
    for (const page of list) catalog.put("page", page);
    catalog.put("schema", SCHEMA);
    catalog.put("classes", CLASSES);
    const { body, blob } = commitOf({ pages: list });
    const late = T0 + LIMITS.pageHoldMs + 1;
    expect(catalog.refuse("version.commit", body, { blob, timeMs: late }).code).toBe("page_missing");
    catalog.put("page", list[0]!, { timeMs: late });
    expect(catalog.refuse("version.commit", body, { blob }).details).toMatchObject({ missing: all.slice(1) });
  });

  it("an object of another kind in a page's place", () => {
    const catalog = createTestCatalog();
    for (const page of pages(1)) catalog.put("page", page);
    catalog.put("schema", SCHEMA);
    catalog.put("classes", CLASSES);
    const { body, blob } = commitOf({ pages: pages(1) });
    const swapped = { ...body, schema: body.classes, classes: body.schema };
    expect(catalog.refuse("version.commit", swapped, { blob }).code).toBe("page_missing");
  });

  it("a root that the pages do not make: `root_mismatch`", () => {
    const catalog = withHead(pages(1));
    const plan = { pages: [...pages(1), pageOf("x")], kept: 1, expectedHead: headOf(catalog) };
    catalog.put("page", pageOf("x"));
    expect(refuseCommit(catalog, { ...plan, root: digestOf("wrong") })).toMatchObject({
      code: "root_mismatch",
      details: { expected: digestOf("wrong"), got: commitOf(plan).body.root },
    });
    // The root covers every field: a commit that changes one of them under the old root is refused too.
    const { body, blob } = commitOf(plan);
    expect(catalog.refuse("version.commit", { ...body, splits: ["train", "val", "test"] }, { blob }).code).toBe(
      "root_mismatch",
    );
  });

  it.each<[string, string, Partial<CommitPlan>]>([
    ["another schema", "schema_differs", { schema: new Uint8Array([1]) }],
    ["another split rule", "split_changed", { splitRule: { kind: "folders" } }],
    ["a split renamed", "split_changed", { splits: ["train", "test"] }],
    ["a split dropped", "split_changed", { splits: ["train"] }],
    ["a class renamed", "schema_differs", { classes: classesOf({ label: ["cat", "cow"] }) }],
    ["classes reordered", "schema_differs", { classes: classesOf({ label: ["dog", "cat"] }) }],
    ["a class dropped", "schema_differs", { classes: classesOf({ label: ["cat"] }) }],
    ["a class column dropped", "schema_differs", { classes: classesOf({}) }],
  ])("%s: `%s` (I26)", (_what, code, change) => {
    const catalog = withHead(pages(2));
    const next = pageOf("x");
    catalog.put("page", next);
    if (change.schema) catalog.put("schema", change.schema);
    if (change.classes) catalog.put("classes", change.classes);
    const plan = { pages: [...pages(2), next], kept: 2, expectedHead: headOf(catalog), ...change };
    expect(refuseCommit(catalog, plan).code).toBe(code);
  });

  it("figures that do not add up", () => {
    const catalog = withHead(pages(2));
    const { body, blob } = commitOf({ pages: [...pages(2), pageOf("x")], kept: 2, expectedHead: headOf(catalog) });
    const refuse = (over: Partial<typeof body>, bytes = blob): string =>
      catalog.refuse("version.commit", { ...body, ...over }, { blob: bytes }).code;
    catalog.put("page", pageOf("x"));
    expect(refuse({ kept: 3 })).toBe("invalid_argument");
    expect(refuse({ added: 2 })).toBe("invalid_argument");
    expect(refuse({}, blob.slice(1))).toBe("invalid_argument");
    expect(refuse({ added: 2 }, new Uint8Array([...blob, ...blob]))).toBe("invalid_argument");
    expect(refuse({ kept: 0, added: 0 }, new Uint8Array(0))).toBe("invalid_argument");
  });

  it("a split that no name is given for, and too many pages", () => {
    const catalog = createTestCatalog();
    for (const page of pages(2)) catalog.put("page", page);
    catalog.put("schema", SCHEMA);
    catalog.put("classes", CLASSES);
    expect(refuseCommit(catalog, { pages: pages(2), splits: ["train"] }).code).toBe("invalid_argument");
    const n = LIMITS.pagesPerVersionMax + 1;
    const blob = new Uint8Array(n * 32).map((_, i) => (i % 32 < 2 ? (i >> (5 + 8 * (i % 32))) & 255 : 0));
    const { body } = commitOf({ pages: pages(1) });
    expect(catalog.refuse("version.commit", { ...body, added: n }, { blob }).code).toBe("limit_exceeded");
  });
});
