import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tableFromArrays, tableToIPC } from "apache-arrow";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { commitDraft, putObjects } from "../../src/client/commit.ts";
import { draftVersion, type Draft, type DraftObject } from "../../src/client/draft.ts";
import { confirmedVersion, resolve } from "../../src/client/open.ts";
import type { CatalogAnswer, CatalogQuery, ProposeReply, VersionAnswer } from "../../src/model/api.ts";
import { formatDigest } from "../../src/model/bytes.ts";
import type { Command } from "../../src/model/commands.ts";
import { parseRef } from "../../src/model/names.ts";
import { summarizeManifest } from "../../src/merkle/manifest.ts";
import { decodePage, pageTotals } from "../../src/merkle/page.ts";
import { prepareVersion } from "../../src/shards/prepare.ts";
import { collect } from "../support/collect.ts";
import { shardList } from "../support/shard-list.ts";
import { startResponders, type Responders } from "./responders.ts";

let folder = "";
let draft: Draft;
let objects: readonly DraftObject[];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "shardpact-open-"));
  const table = tableFromArrays({ x: new Float32Array([1, 2, 3]) });
  await writeFile(join(folder, "a.arrow"), tableToIPC(table, "file"));
  await using prepared = await prepareVersion({ sources: folder });
  draft = await draftVersion("mnist", null, prepared, "first");
  objects = await collect(draft.objects);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

it("no draft has two shards of one name, also when they are pages apart", async () => {
  await using prepared = await prepareVersion({ sources: folder });
  const [shard] = await collect(prepared.shards);
  if (!shard) throw new Error("one shard was prepared");
  const named = (names: readonly string[]) => shardList(names.map((name) => ({ ...shard.entry, name })));
  const names = Array.from({ length: 2_500 }, (_, i) => `s-${String(i).padStart(5, "0")}.arrow`);
  const many = { ...prepared, shards: named(names) };
  expect((await draftVersion("mnist", null, many, "")).added.length).toBe(3);
  // The last of one page and the first of the next.
  const twice = { ...prepared, shards: named([...names.slice(0, 1_024), ...names.slice(1_023)]) };
  await expect(draftVersion("mnist", null, twice, "")).rejects.toThrow(
    expect.objectContaining({
      code: "invalid_argument",
      message: expect.stringContaining("'s-01023.arrow'") as string,
    }),
  );
});

function versionOf(): VersionAnswer {
  const pages = objects.filter((o) => o.kind === "page");
  const manifest = pages.map((p) => ({ page: p.digest, totals: pageTotals(decodePage(p.bytes)) }));
  const { treeHash, totals } = summarizeManifest(manifest);
  return {
    ...{ dataset: "mnist", version: 1, root: draft.root, index: 5, timeMs: 0, actor: "ada", message: "first" },
    ...{ treeHash: formatDigest(treeHash), pageCount: pages.length, totals: [...totals] },
    ...{ schema: draft.schema, classes: draft.classes, splits: [...draft.splits], splitRule: draft.splitRule },
    revocation: null,
  };
}

/** Answers as a catalog that holds the draft as mnist@v1. */
function holdDraft(group: Responders, change: (version: VersionAnswer) => VersionAnswer = (v) => v): void {
  group.answer = (query: CatalogQuery): CatalogAnswer => {
    if (query.kind === "resolve") return { kind: "version", version: change(versionOf()) };
    if (query.kind === "revoked_shards" || query.kind === "revocations_since") return { kind: "rows", rows: [] };
    const pages = objects.filter((o) => o.kind === "page");
    if (query.kind === "pages") {
      return { kind: "pages", entries: pages.map((p) => ({ page: p.digest, totals: [...versionOf().totals] })) };
    }
    const found = query.kind === "object" ? objects.find((o) => o.digest === query.digest) : undefined;
    return found
      ? { kind: "object", objectKind: found.kind, bytes: found.bytes }
      : { kind: "not_found", what: "an object", nearest: [] };
  };
}

async function open(group: Responders) {
  const session = group.session();
  const resolved = await resolve(session, parseRef("mnist@v1"), { timeoutMs: 1_000 });
  return confirmedVersion(session, resolved, { stores: [], timeoutMs: 1_000 });
}

describe("open", () => {
  it("gives a version whose parts all hash to the confirmed root", async () => {
    const group = startResponders(3);
    holdDraft(group);
    const version = await open(group);
    expect(version).toMatchObject({ dataset: "mnist", version: 1, root: draft.root, rows: 3 });
    expect(version.splits).toEqual([{ name: "train", rows: 3, bytes: version.bytes, shards: 1 }]);
    expect(await version.page(0)).toMatchObject([{ name: "a.arrow", rows: 3 }]);
    await expect(version.page(1)).rejects.toMatchObject({ code: "invalid_argument" });
    expect((await version.reconfirm()).replicas.length).toBeGreaterThanOrEqual(2);
  });

  it("refuses fields that do not hash to the root, even when every replica says them", async () => {
    const changes: ((v: VersionAnswer) => VersionAnswer)[] = [
      (v) => ({ ...v, root: `b3:${"0".repeat(64)}` }),
      (v) => ({ ...v, splits: ["test"] }),
      (v) => ({ ...v, totals: v.totals.map((t) => ({ ...t, rows: t.rows + 1 })) }),
      (v) => ({ ...v, schema: v.classes }),
      (v) => ({ ...v, splitRule: { kind: "folders" } }),
      (v) => ({ ...v, pageCount: 2 }),
    ];
    for (const change of changes) {
      const group = startResponders(3);
      holdDraft(group, change);
      await expect(open(group)).rejects.toMatchObject({ code: "root_mismatch" });
    }
  });

  it("refuses another version than was asked for", async () => {
    const group = startResponders(3);
    holdDraft(group, (v) => ({ ...v, version: 2 }));
    await expect(open(group)).rejects.toMatchObject({ code: "damaged" });
  });

  it("refuses a revocation in the answer, and one that a single voter knows of since", async () => {
    const revocation = { subject: "mnist@v1", index: 8, timeMs: 0, actor: "eve", reason: "mislabelled" };
    const group = startResponders(3);
    holdDraft(group, (v) => ({ ...v, revocation }));
    await expect(open(group)).rejects.toThrow(/revoked by eve at 1970-01-01T00:00:00.000Z: mislabelled/);
    const later = startResponders(3);
    holdDraft(later);
    const [r1] = later.replicas;
    if (r1) r1.tamper = (said) => ({ ...said, own: { ...said.own, laterRevocation: revocation } });
    await expect(open(later)).rejects.toMatchObject({ code: "revoked", details: { actor: "eve" } });
  });

  it("names a replica that answers late and differently in the confirmation", async () => {
    const group = startResponders(3);
    holdDraft(group);
    const r3 = group.replicas[2];
    if (r3) r3.tamper = (said) => ({ ...said, agreed: { ...said.agreed, chain: "d".repeat(64) } });
    expect((await open(group)).confirmation.diverged).toEqual(["r3"]);
  });
});

describe("commit", () => {
  it("puts objects again and commits under a new id when their hold ran out", async () => {
    const group = startResponders(1);
    const [r1] = group.replicas;
    const seen: Command[] = [];
    let missing = 1;
    if (r1) {
      r1.answerPropose = (command): ProposeReply => {
        seen.push(command);
        if (command.kind === "page.put") return { ok: true, index: seen.length, retry: false, result: {} };
        if (missing-- > 0) {
          const error = { code: "page_missing", message: "1 page is not held" };
          return { ok: false, error, leader: "r1", index: seen.length };
        }
        const result = { version: 1, root: draft.root, index: 9, unchanged: false };
        return { ok: true, index: 9, retry: false, result };
      };
    }
    const session = group.session();
    await putObjects(session, draft.objects, { timeoutMs: 1_000 });
    expect(await commitDraft(session, draft, { timeoutMs: 1_000 })).toMatchObject({ version: 1, index: 9 });
    const kinds = seen.map((c) => c.kind);
    expect(kinds.filter((k) => k === "page.put").length).toBe(2 * objects.length);
    const commits = seen.filter((c) => c.kind === "version.commit");
    expect(new Set(commits.map((c) => c.id)).size).toBe(2);

    // A rerun of the same publish derives the same ids again.
    missing = 0;
    await commitDraft(session, draft, { timeoutMs: 1_000 });
    expect(seen.at(-1)?.id).toBe(commits[0]?.id);
  });

  it("answers a rerun with the version that it made, and looks again when it had only seen one", async () => {
    const group = startResponders(1);
    const [r1] = group.replicas;
    const seen: string[] = [];
    let unchanged = false;
    if (r1) {
      r1.answerPropose = ({ id }): ProposeReply => {
        seen.push(id);
        const recorded = { version: 1, root: draft.root, index: 9, unchanged };
        if (id === seen[0]) return { ok: true, index: 10, retry: true, result: recorded };
        const error = { code: "head_moved", message: "mnist is at v2" };
        return { ok: false, error, leader: "r1", index: 12 };
      };
    }
    const session = group.session();
    const commit = () => commitDraft(session, draft, { timeoutMs: 1_000 });
    expect(await commit()).toMatchObject({ version: 1, index: 9, unchanged: false });
    expect(seen.length).toBe(1);
    unchanged = true;
    await expect(commit()).rejects.toMatchObject({ code: "head_moved" });
    expect([seen.length, new Set(seen).size]).toEqual([3, 2]);
  });
});
