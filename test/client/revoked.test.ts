/**
 * Shards that are revoked while a version is in use: found on every page that was handed out, for one question to the group.
 */
import { Field, Int32, Schema } from "apache-arrow";
import { beforeAll, beforeEach, expect, it } from "vitest";
import { draftVersion, type Draft, type DraftObject } from "../../src/client/draft.ts";
import { confirmedVersion, resolve } from "../../src/client/open.ts";
import { encodeClasses } from "../../src/merkle/classes.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import { summarizeManifest } from "../../src/merkle/manifest.ts";
import { decodePage, pageTotals } from "../../src/merkle/page.ts";
import type { CatalogAnswer, CatalogQuery, RevocationAnswer } from "../../src/model/api.ts";
import { type Digest, formatDigest, utf8 } from "../../src/model/bytes.ts";
import { parseRef } from "../../src/model/names.ts";
import { canonicalSchema } from "../../src/shards/schema.ts";
import { collect } from "../support/collect.ts";
import { shardList } from "../support/shard-list.ts";
import { startResponders, type Responders } from "./responders.ts";

/** More than a version keeps decoded. */
const PAGES = 36;
const digestOf = (name: string): Digest => formatDigest(hashBytes(utf8(name)));
const nameOf = (i: number): string => `s-${String(i).padStart(6, "0")}.arrow`;

let draft: Draft;
let objects: readonly DraftObject[];
/** Of shards, by index. */
let revoked: RevocationAnswer[] = [];
let asked: CatalogQuery["kind"][] = [];

beforeAll(async () => {
  const close = () => Promise.resolve();
  const entries = Array.from({ length: PAGES * 1_024 }, (_, i) => {
    const [name, digest] = [nameOf(i), digestOf(nameOf(i))];
    return { name, split: 0, rows: 1, bytes: 100, digest, segmentIndex: digest };
  });
  const schema = canonicalSchema(new Schema([new Field("x", new Int32(), true)]));
  const fields = { schema, classes: encodeClasses({}), splits: ["train"], splitRule: { kind: "none" as const } };
  const prepared = { ...fields, shards: shardList(entries), threads: null, close, [Symbol.asyncDispose]: close };
  draft = await draftVersion("mnist", null, prepared, "");
  objects = await collect(draft.objects);
});
beforeEach(() => {
  revoked = [];
  asked = [];
});

/** A group that holds the draft as mnist@v1, and revokes shards. */
function startGroup(): Responders {
  const group = startResponders(3);
  const pages = objects.filter(({ kind }) => kind === "page");
  const manifest = pages.map((p) => ({ page: p.digest, totals: pageTotals(decodePage(p.bytes)) }));
  const { treeHash, totals } = summarizeManifest(manifest);
  const version = {
    ...{ dataset: "mnist", version: 1, root: draft.root, index: 5, timeMs: 0, actor: "ada", message: "" },
    ...{ treeHash: formatDigest(treeHash), pageCount: pages.length, totals: [...totals] },
    ...{ schema: draft.schema, classes: draft.classes, splits: [...draft.splits], splitRule: draft.splitRule },
    revocation: null,
  };
  group.answer = (query: CatalogQuery): CatalogAnswer => {
    asked.push(query.kind);
    if (query.kind === "resolve") return { kind: "version", version };
    if (query.kind === "pages") return { kind: "pages", entries: manifest.slice(query.from, query.from + query.limit) };
    if (query.kind === "revoked_shards") {
      return { kind: "rows", rows: revoked.filter((row) => query.digests.some((digest) => digest === row.subject)) };
    }
    if (query.kind === "revocations_since") {
      const rows = revoked.filter((row) => row.index > query.after && row.index <= group.index);
      return { kind: "rows", rows: rows.slice(0, query.limit) };
    }
    const found = query.kind === "object" ? objects.find((o) => o.digest === query.digest) : undefined;
    if (!found) return { kind: "not_found", what: "an object", nearest: [] };
    return { kind: "object", objectKind: found.kind, bytes: found.bytes };
  };
  return group;
}

function revoke(group: Responders, subject: string): void {
  group.index += 1;
  revoked.push({ subject, index: group.index, timeMs: 0, actor: "eve", reason: "mislabelled" });
}

async function openWith(group: Responders) {
  const resolved = await resolve(group.session(), parseRef("mnist@v1"), { timeoutMs: 5_000 });
  return confirmedVersion(group.session(), resolved, { stores: [], timeoutMs: 5_000 });
}

it("a confirmation costs two questions to each voter, however many pages are in use", async () => {
  const group = startGroup();
  const version = await openWith(group);
  for (let page = 0; page < PAGES; page++) await version.page(page);
  asked = [];
  await version.reconfirm();
  expect(new Set(asked)).toEqual(new Set(["resolve", "revocations_since"]));
  expect(asked.length).toBeLessThanOrEqual(2 * group.replicas.length);
});

it("a shard that is revoked later is found, on the first page and on the last one of many", async () => {
  for (const shard of [3, PAGES * 1_024 - 1]) {
    revoked = [];
    const group = startGroup();
    const version = await openWith(group);
    for (let page = 0; page < PAGES; page++) await version.page(page);
    await version.reconfirm();
    revoke(group, "mnist@v7");
    revoke(group, digestOf("no shard of this version"));
    await version.reconfirm();
    revoke(group, digestOf(nameOf(shard)));
    const error = { code: "revoked", message: expect.stringContaining(`shard ${nameOf(shard)} of mnist@v1`) as string };
    await expect(version.reconfirm()).rejects.toMatchObject(error);
    // It stays refused: nothing was learned by being told.
    await expect(version.reconfirm()).rejects.toMatchObject(error);
  }
});

it("pages that are not in use don't matter, until they are asked for", async () => {
  const group = startGroup();
  const version = await openWith(group);
  await version.page(0);
  revoke(group, digestOf(nameOf(5_000)));
  await version.reconfirm();
  await expect(version.page(4)).rejects.toMatchObject({ code: "revoked" });
});

it("more revocations than one answer holds are all looked at", async () => {
  const group = startGroup();
  const version = await openWith(group);
  await version.page(0);
  for (let i = 0; i < 300; i++) revoke(group, digestOf(`other ${i}`));
  await version.reconfirm();
  for (let i = 0; i < 300; i++) revoke(group, digestOf(`another ${i}`));
  revoke(group, digestOf(nameOf(7)));
  await expect(version.reconfirm()).rejects.toMatchObject({ code: "revoked" });
});

it("one that a single voter knows of, after what was agreed, counts too", async () => {
  const group = startGroup();
  const version = await openWith(group);
  await version.page(0);
  const [r1] = group.replicas;
  const laterRevocation = { subject: digestOf(nameOf(9)), index: 99, timeMs: 0, actor: "eve", reason: "bad" };
  if (r1) r1.tamper = (said) => ({ ...said, own: { ...said.own, laterRevocation } });
  await expect(version.reconfirm()).rejects.toMatchObject({ code: "revoked" });
});

it("pages that are wanted together cost one question, and none about their shards", async () => {
  const group = startGroup();
  const version = await openWith(group);
  await version.manifest();
  asked = [];
  await Promise.all([0, 1, 2, 3].map((page) => version.page(page)));
  expect(asked.filter((kind) => kind === "revocations_since").length).toBeLessThanOrEqual(group.replicas.length);
  expect(new Set(asked)).toEqual(new Set(["object", "revocations_since"]));
});

it("a page is refused for what was revoked before it was asked for, also while other pages are on their way", async () => {
  const group = startGroup();
  const version = await openWith(group);
  await version.page(0);
  const first = version.page(1);
  await new Promise((done) => setImmediate(done));
  revoke(group, digestOf(nameOf(2 * 1_024 + 5)));
  const error = { code: "revoked", message: expect.stringContaining(nameOf(2 * 1_024 + 5)) as string };
  await expect(version.page(2)).rejects.toMatchObject(error);
  expect(await first).toHaveLength(1_024);
  // Remembered, and looked for on every page.
  revoke(group, digestOf("no shard of this version"));
  await expect(version.page(2)).rejects.toMatchObject(error);
  expect(await version.page(3)).toHaveLength(1_024);
});

it("where very much is revoked, a page's shards are asked about", async () => {
  const group = startGroup();
  for (let i = 0; i < 3_000; i++) revoke(group, digestOf(`other ${i}`));
  revoke(group, digestOf(nameOf(1_024)));
  for (let i = 0; i < 300; i++) revoke(group, digestOf(`another ${i}`));
  const version = await openWith(group);
  expect(await version.page(0)).toHaveLength(1_024);
  await expect(version.page(1)).rejects.toMatchObject({ code: "revoked" });
  expect(asked).toContain("revoked_shards");
  asked = [];
  expect(await version.page(2)).toHaveLength(1_024);
  expect(asked).not.toContain("revocations_since");
});

it("what a single voter says of a page's shards counts, and is forgotten when it says so no more", async () => {
  const group = startGroup();
  const version = await openWith(group);
  const [r1] = group.replicas;
  const laterRevocation = { subject: digestOf(nameOf(9)), index: 99, timeMs: 0, actor: "eve", reason: "bad" };
  if (r1) r1.tamper = (said) => ({ ...said, own: { ...said.own, laterRevocation } });
  await expect(version.page(0)).rejects.toMatchObject({ code: "revoked" });
  if (r1) r1.tamper = null;
  expect(await version.page(0)).toHaveLength(1_024);
});

it("a page that there is not is none in use", async () => {
  const group = startGroup();
  const version = await openWith(group);
  await expect(version.page(PAGES)).rejects.toMatchObject({ code: "invalid_argument" });
  await version.page(0);
  revoke(group, digestOf("no shard of this version"));
  await version.reconfirm();
});
