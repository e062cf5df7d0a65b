import { expect, test } from "vitest";
import { type Base, draftVersion } from "../../src/client/draft.ts";
import { manifestLeaf, summarizeManifest, type ManifestEntry } from "../../src/merkle/manifest.ts";
import { cutPages, encodePage, type PageEntry, pageDigest, pageTotals } from "../../src/merkle/page.ts";
import { computeRoot, objectDigest } from "../../src/merkle/root.ts";
import { sumTotals } from "../../src/merkle/totals.ts";
import { frontierOf } from "../../src/merkle/tree.ts";
import { formatDigest, utf8 } from "../../src/model/bytes.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import type { PreparedVersion } from "../../src/shards/prepare.ts";
import { canonicalSchema } from "../../src/shards/schema.ts";
import { encodeClasses } from "../../src/merkle/classes.ts";
import { Field, Int32, Schema } from "apache-arrow";
import { collect } from "../support/collect.ts";
import { shardList } from "../support/shard-list.ts";

const schema = canonicalSchema(new Schema([new Field("x", new Int32(), true)]));
const classes = encodeClasses({});

function entries(names: readonly string[]): PageEntry[] {
  return names.map((name) => {
    const digest = formatDigest(hashBytes(utf8(name)));
    return { name, split: 0, rows: 3, bytes: 100, digest, segmentIndex: digest };
  });
}

function prepared(names: readonly string[], splits = ["train"]): PreparedVersion {
  const close = () => Promise.resolve();
  const shards = shardList(entries(names));
  const splitRule = splits.length > 1 ? { kind: "folders" as const } : { kind: "none" as const };
  return { schema, classes, splits, splitRule, shards, threads: null, close, [Symbol.asyncDispose]: close };
}

const names = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => `part-${String(i).padStart(6, "0")}.arrow`);

function baseOf(count: number): { base: Base; all: PageEntry[]; manifest: ManifestEntry[] } {
  const all = entries(names(count));
  const pages = cutPages(all);
  const manifest = pages.map((page) => ({ page: pageDigest(encodePage(page)), totals: pageTotals(page) }));
  const head = {
    version: 4,
    index: 99,
    splits: ["train"],
    splitRule: { kind: "none" as const },
    positional: undefined,
  };
  const before = manifest.slice(0, -1);
  const rest = {
    position: before.length,
    frontier: frontierOf(before.map(manifestLeaf)),
    totals: sumTotals(before.map(({ totals }) => totals)),
    pages: manifest.slice(-1),
  };
  return { base: { ...head, rest, schema, classes, tail: pages.at(-1) ?? [] }, all, manifest };
}

test("an append writes the last page anew and what comes after it, and has the root of the whole", async () => {
  for (const [count, added, pages] of [
    [2_500, 10, 1],
    [2_048, 10, 2],
    [1_020, 10, 2],
    [3, 1, 1],
  ] as const) {
    const { base, all, manifest: old } = baseOf(count);
    const draft = await draftVersion("d", base, prepared(names(added)), "");
    expect(
      (await collect(draft.objects)).filter(({ kind }) => kind === "page").length,
      String(count),
    ).toBeLessThanOrEqual(pages);
    expect(draft.kept).toBeGreaterThanOrEqual(Math.ceil(count / 1024) - 1);
    const whole = [...all, ...entries(names(added)).map((entry) => ({ ...entry, name: `v5/${entry.name}` }))];
    const manifest = cutPages(whole).map((page) => ({ page: pageDigest(encodePage(page)), totals: pageTotals(page) }));
    const { treeHash, totals } = summarizeManifest(manifest);
    const root = computeRoot({
      ...{ schema: objectDigest("schema", schema), classes: objectDigest("classes", classes), splits: ["train"] },
      ...{ splitRule: { kind: "none" }, pageCount: manifest.length, treeHash: formatDigest(treeHash), totals },
    });
    expect(draft.root).toBe(root);
    expect([draft.rows, draft.shards]).toEqual([(count + added) * 3, count + added]);
    expect([...old.slice(0, draft.kept).map((p) => p.page), ...draft.added]).toEqual(manifest.map((p) => p.page));
  }
});

test("what is appended keeps its split's folder in front, and meets no name that is there", async () => {
  const { base } = baseOf(5);
  const folders: Base = { ...base, splits: ["train", "val"], splitRule: { kind: "folders" } };
  const draft = await draftVersion(
    "d",
    folders,
    prepared(["train/a.arrow", "train/sub/a.arrow"], ["train", "val"]),
    "",
  );
  const page = (await collect(draft.objects)).find(({ kind }) => kind === "page");
  expect(new TextDecoder("latin1").decode(page?.bytes)).toContain("train/v5/a.arrowtrain/v5/sub/a.arrow");
});

test("without an append the version holds the new shards and no others", async () => {
  const { base, manifest } = baseOf(2_500);
  const rest = { position: 0, frontier: [], totals: [], pages: manifest };
  const draft = await draftVersion("d", { ...base, rest, tail: null }, prepared(names(2_500)), "");
  expect([draft.kept, (await collect(draft.objects)).length, draft.shards]).toEqual([3, 0, 2_500]);
});
