import { describe, expect, it } from "vitest";
import type { BatchOutput } from "../../src/catalog/apply.ts";
import type { DatasetRow, Need, PageRow, Row, VersionPageRow } from "../../src/catalog/rows.ts";
import { createRowCache, type RowCache } from "../../src/storage/postgres/row-cache.ts";
import { digestOf } from "../support/catalog.ts";

const dataset = (name: string, headVersion = 1): DatasetRow => ({
  table: "dataset",
  name,
  headVersion,
  headIndex: headVersion,
  headRoot: digestOf(`${name} ${headVersion}`),
  createdIndex: 1,
});
const open = (position: number, fromVersion: number, untilVersion: number | null = null): VersionPageRow => ({
  table: "version_page",
  dataset: "mnist",
  position,
  fromVersion,
  untilVersion,
  page: digestOf(`page ${position} ${fromVersion}`),
  totals: [],
  frontierBefore: [],
});
const object = (kind: PageRow["kind"], bytes: number): PageRow => ({
  table: "page",
  digest: digestOf(`${kind} ${bytes}`),
  kind,
  bytes: new Uint8Array(bytes).fill(1),
  totals: [],
  putIndex: 1,
  actor: "ada",
  holdUntilMs: 1,
});
const mnist: Need = { kind: "dataset", name: "mnist" };
const headPages = (from: number): Need => ({ kind: "head_pages", dataset: "mnist", from });

function wrote(cache: RowCache, ...rows: readonly Row[]): void {
  const changes = rows.map((row) => ({ op: "put" as const, row }));
  const state = { index: 1, chain: "", stateDigest: "", timeMs: 0 };
  cache.wrote({ state, changes, ledger: [], applied: [] } satisfies BatchOutput);
}

describe("row cache", () => {
  it("knows what was loaded, what was not there, and nothing else", () => {
    const cache = createRowCache();
    const absent: Need = { kind: "dataset", name: "absent" };
    expect(cache.find([mnist, absent])).toEqual({ rows: [], missing: [mnist, absent] });
    cache.learn([mnist, absent], [dataset("mnist")]);
    expect(cache.find([mnist, absent])).toEqual({ rows: [dataset("mnist")], missing: [] });
    cache.clear();
    expect(cache.find([mnist, absent]).missing).toEqual([mnist, absent]);
  });

  it("knows what was written over what it had loaded, also where nothing was", () => {
    const cache = createRowCache();
    cache.learn([mnist], []);
    wrote(cache, dataset("mnist", 2));
    expect(cache.find([mnist]).rows).toEqual([dataset("mnist", 2)]);
  });

  it("keeps the open pages of a head from the position on that was loaded", () => {
    const cache = createRowCache();
    wrote(cache, open(0, 1), open(1, 1));
    expect(cache.find([headPages(0)]).missing, "written is not all there is").toEqual([headPages(0)]);
    cache.learn([headPages(1)], [open(1, 1), open(2, 1)]);
    expect(cache.find([headPages(0)]).missing).toEqual([headPages(0)]);
    // Position 1 is replaced, in either order of the two rows; position 2 is closed.
    wrote(cache, open(1, 2), open(1, 1, 2), open(2, 1, 2));
    expect(cache.find([headPages(1)])).toEqual({ rows: [open(1, 2)], missing: [] });
    expect(cache.find([headPages(2)])).toEqual({ rows: [], missing: [] });
  });

  it("does not keep the pages of a large head", () => {
    const cache = createRowCache();
    const many = Array.from({ length: 129 }, (_, position) => open(position, 1));
    cache.learn([headPages(0)], many);
    expect(cache.find([headPages(0)]).missing).toEqual([headPages(0)]);
    cache.learn([headPages(0)], many.slice(1));
    expect(cache.find([headPages(0)]).rows.length).toBe(128);
    wrote(cache, open(200, 2));
    expect(cache.find([headPages(0)]).missing).toEqual([headPages(0)]);
  });

  it("keeps the bytes of small class vocabularies only", () => {
    const cache = createRowCache();
    const [small, large, page] = [object("classes", 100), object("classes", 100_000), object("page", 100)];
    wrote(cache, small, large, page);
    const needs = (withBytes: boolean) =>
      [small, large, page].map(({ digest }): Need => ({ kind: "page", digest, withBytes }));
    const bare = (row: PageRow): PageRow => ({ ...row, bytes: new Uint8Array(0) });
    expect(cache.find(needs(false))).toEqual({ rows: [small, bare(large), bare(page)], missing: [] });
    expect(cache.find(needs(true))).toEqual({ rows: [small], missing: needs(true).slice(1) });
  });

  it("remembers the outcomes of accepted commands, and forgets them with the rest", () => {
    const cache = createRowCache();
    const entry = { index: 7, epoch: 1, timeMs: 0, kind: "tag.move", actor: "ada", retryOf: null } as const;
    const rest = { bodyDigest: "d", payload: new Uint8Array(0), chain: "" };
    const ledger = [
      { ...entry, ...rest, commandId: "accepted", outcome: { ok: true, result: {} } },
      { ...entry, ...rest, commandId: "refused", outcome: { ok: false, error: { code: "not_found", message: "" } } },
    ] as const;
    cache.wrote({ state: { index: 7, chain: "", stateDigest: "", timeMs: 0 }, changes: [], ledger, applied: [] });
    expect(cache.outcome("accepted")).toEqual({ index: 7, bodyDigest: "d", outcome: { ok: true, result: {} } });
    expect(cache.outcome("refused")).toBeUndefined();
    cache.clear();
    expect(cache.outcome("accepted")).toBeUndefined();
  });

  it("is bounded: the longest unused is forgotten first", () => {
    const cache = createRowCache();
    cache.learn([mnist], [dataset("mnist")]);
    for (let i = 0; i < 20_000; i++) {
      wrote(cache, dataset(`other-${i}`));
      if (i % 1_000 === 0) cache.find([mnist]);
    }
    expect(cache.find([mnist]).rows).toEqual([dataset("mnist")]);
    expect(cache.find([{ kind: "dataset", name: "other-0" }]).missing.length).toBe(1);
    expect(cache.find([{ kind: "dataset", name: "other-19999" }]).missing).toEqual([]);
  });
});
