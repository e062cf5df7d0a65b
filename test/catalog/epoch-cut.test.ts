import { describe, expect, it } from "vitest";
import { decide, needs } from "../../src/catalog/decide.ts";
import { putChanges, openOverlay, viewOf } from "../../src/catalog/view.ts";
import type { Digest } from "../../src/model/bytes.ts";
import { type CommandBody, parseCommand, type RunPlan } from "../../src/model/commands.ts";
import type { Row, VersionRow } from "../../src/catalog/rows.ts";
import { createTestCatalog, digestOf, freshId, pageOf, type TestCatalog } from "../support/catalog.ts";

const ORDER = { alg: "sp-order/1", strength: "window", seed: "7", n: 333, K: 64, g: 4 } as const;
/** What a larger version makes of the same options. */
const LARGER = { ...ORDER, n: 400 };

/** mnist@v1, v2 and v3, and a run that follows mnist from v1 on. */
function following(over: Partial<RunPlan> = {}): { catalog: TestCatalog; roots: Digest[]; plan: RunPlan } {
  const catalog = createTestCatalog();
  const roots: Digest[] = [];
  let expectedHead: { version: number; index: number } | null = null;
  for (let version = 1; version <= 3; version++) {
    const pages = Array.from({ length: version }, (_, i) => pageOf(`p${i}`));
    const made = catalog.commit({ pages, kept: version - 1, expectedHead });
    expectedHead = { version, index: Number(made["index"]) };
    roots.push(made["root"] as Digest);
  }
  const fixed = { selection: digestOf("s"), order: ORDER, world: 4, batchSize: 32, last: "drop" } as const;
  const plan: RunPlan = { dataset: "mnist", version: 1, root: roots[0]!, ...fixed, follow: true, ...over };
  catalog.run("run.begin", { run: "r", plan, meta: {} });
  return { catalog, roots, plan };
}

type Cut = CommandBody<"epoch.cut">;
const cutOf = (roots: Digest[], epoch: number, from: number, version: number, over: Partial<Cut> = {}): Cut => ({
  run: "r",
  epoch,
  dataset: "mnist",
  from,
  version,
  root: roots[version - 1]!,
  order: version === 1 ? ORDER : LARGER,
  ...over,
});

describe("epoch.cut", () => {
  it("is decided by the first rank; every other rank, and every resume, gets the same answer", () => {
    const { catalog, roots } = following();
    const first = catalog.run("epoch.cut", cutOf(roots, 1, 1, 2));
    const said = { run: "r", epoch: 1, dataset: "mnist", version: 2, root: roots[1], order: LARGER };
    expect(first).toEqual({ ...said, index: catalog.state.index, created: true });
    // Others found another head, or none that is newer.
    expect(catalog.run("epoch.cut", cutOf(roots, 1, 1, 3))).toEqual({ ...first, created: false });
    expect(catalog.run("epoch.cut", cutOf(roots, 1, 1, 1))).toEqual({ ...first, created: false });
    catalog.run("version.revoke", { dataset: "mnist", version: 2, reason: "labels" });
    catalog.run("run.end", { run: "r", outcome: "done" });
    expect(catalog.run("epoch.cut", cutOf(roots, 1, 1, 2))).toEqual({ ...first, created: false });
    expect(catalog.refuse("epoch.cut", cutOf(roots, 2, 2, 3)).code).toBe("run_ended");
  });

  it("every epoch has a row, from the one on that the run began with", () => {
    const { catalog, roots } = following();
    catalog.run("epoch.cut", cutOf(roots, 1, 1, 1));
    catalog.run("epoch.cut", cutOf(roots, 2, 1, 3));
    const rows = [...catalog.rows.values()].flatMap((row) => (row.table === "run_epoch" ? [row] : []));
    expect(rows.map(({ epoch, version, root }) => [epoch, version, root])).toEqual([
      [0, 1, roots[0]],
      [1, 1, roots[0]],
      [2, 3, roots[2]],
    ]);
  });

  it.each<[string, string, Partial<Cut>]>([
    ["a run that is not there", "not_found", { run: "s" }],
    ["another dataset", "plan_mismatch", { dataset: "other" }],
    ["an epoch that skips one", "plan_mismatch", { epoch: 3 }],
    ["a rank that comes from another version", "plan_mismatch", { from: 1 }],
    ["an older version", "invalid_argument", { version: 1, order: ORDER }],
    ["a version that is not there", "not_found", { version: 9 }],
    ["another root", "root_mismatch", { root: digestOf("x") }],
    ["another seed", "plan_mismatch", { order: { ...LARGER, seed: "8" } }],
  ])("refuses %s: `%s`", (_what, code, over) => {
    const { catalog, roots } = following();
    catalog.run("epoch.cut", cutOf(roots, 1, 1, 2));
    expect(catalog.refuse("epoch.cut", cutOf(roots, 2, 2, 3, over)).code).toBe(code);
  });

  it("names the field that differs, and takes no other order for the same root", () => {
    const { catalog, roots } = following();
    const refuse = (over: Partial<Cut>) => catalog.refuse("epoch.cut", cutOf(roots, 1, 1, 1, over)).details;
    expect(refuse({ dataset: "other" })).toMatchObject({ field: "dataset", expected: "mnist", got: "other" });
    expect(refuse({ from: 2 })).toMatchObject({ field: "version", expected: 1, got: 2 });
    expect(refuse({ epoch: 2 })).toMatchObject({ field: "epoch" });
    expect(refuse({ order: LARGER })).toMatchObject({ field: "order.n", expected: 333, got: 400 });
  });

  it("refuses what is revoked, also to stay on it", () => {
    const { catalog, roots } = following();
    catalog.run("version.revoke", { dataset: "mnist", version: 3, reason: "labels" });
    expect(catalog.refuse("epoch.cut", cutOf(roots, 1, 1, 3)).code).toBe("revoked");
    catalog.run("version.revoke", { dataset: "mnist", version: 1, reason: "labels" });
    expect(catalog.refuse("epoch.cut", cutOf(roots, 1, 1, 1)).code).toBe("revoked");
    expect(catalog.run("epoch.cut", cutOf(roots, 1, 1, 2))).toMatchObject({ version: 2, created: true });
  });

  it("of a run that does not follow is refused", () => {
    const { catalog, roots, plan } = following();
    const { follow: _, ...still } = plan;
    catalog.run("run.begin", { run: "still", plan: still, meta: {} });
    expect(catalog.refuse("epoch.cut", cutOf(roots, 1, 1, 2, { run: "still" }))).toMatchObject({
      code: "plan_mismatch",
      details: { field: "follow", expected: false },
    });
  });

  it("refuses versions of unequal schema or split rule, should a dataset ever hold such", () => {
    const { catalog, roots } = following();
    const command = parseCommand({ id: freshId(), actor: "ada", kind: "epoch.cut", body: cutOf(roots, 1, 1, 2) });
    const said = (change: Partial<VersionRow>): string => {
      const overlay = openOverlay([...catalog.rows.values()]);
      const row = catalog.rows.get("version\nmnist\n2") as VersionRow;
      putChanges(overlay, [{ op: "put", row: { ...row, ...change } as Row }]);
      const { outcome } = decide(viewOf(overlay, needs(command)), command, { index: 99, timeMs: 1 });
      return outcome.ok ? "ok" : outcome.error.code;
    };
    expect(said({})).toBe("ok");
    expect(said({ schema: digestOf("other") })).toBe("schema_differs");
    expect(said({ splitRule: { kind: "folders" } })).toBe("split_changed");
  });
});

describe("a pin of a run that follows", () => {
  const pin = (roots: Digest[]) => ({ dataset: "mnist", version: 1, root: roots[0]!, run: "r", note: "" });

  it("holds it where it is until it is released", () => {
    const { catalog, roots } = following();
    catalog.run("pin.create", pin(roots));
    expect(catalog.refuse("epoch.cut", cutOf(roots, 1, 1, 2))).toMatchObject({
      code: "pin_conflict",
      details: { version: 1 },
    });
    catalog.run("epoch.cut", cutOf(roots, 1, 1, 1));
    catalog.run("pin.release", { dataset: "mnist", run: "r" });
    expect(catalog.run("epoch.cut", cutOf(roots, 2, 1, 2))).toMatchObject({ version: 2 });
  });

  it("refuses its begin: what is claimed for ever is not followed", () => {
    const { catalog, roots, plan } = following();
    catalog.run("pin.create", { ...pin(roots), run: "pinned" });
    expect(catalog.refuse("run.begin", { run: "pinned", plan, meta: {} }).code).toBe("pin_conflict");
  });
});

describe("run.begin of a run that follows", () => {
  it("lets a rank come back where the run is by then", () => {
    const { catalog, roots, plan } = following();
    catalog.run("epoch.cut", cutOf(roots, 1, 1, 2));
    const moved = { ...plan, version: 2, root: roots[1]!, order: LARGER };
    const again: CommandBody<"run.begin"> = { run: "r", plan: moved, meta: {}, epoch: 1 };
    expect(catalog.run("run.begin", again)).toMatchObject({ created: false });
    expect(catalog.run("run.begin", { run: "r", plan, meta: {}, epoch: 0 })).toMatchObject({ created: false });
    const refuse = (body: Partial<typeof again>) =>
      catalog.refuse("run.begin", { ...again, ...body }).details as { field: string };
    expect(refuse({ plan }).field).toBe("version");
    expect(refuse({ epoch: 0 }).field).toBe("version");
    expect(refuse({ epoch: 2 }).field).toBe("epoch");
    expect(refuse({ plan: { ...moved, order: ORDER } }).field).toBe("order.n");
    expect(refuse({ plan: { ...moved, world: 8 } }).field).toBe("world");
  });

  it("is not begun again by a rank that does not follow, nor the other way round", () => {
    const { catalog, plan } = following();
    const { follow: _, ...still } = plan;
    expect(catalog.refuse("run.begin", { run: "r", plan: still, meta: {} }).details).toMatchObject({ field: "follow" });
    catalog.run("run.begin", { run: "still", plan: still, meta: {} });
    expect(catalog.refuse("run.begin", { run: "still", plan, meta: {} }).details).toMatchObject({ field: "follow" });
  });

  it("may begin in a later epoch, as a run of another world size does", () => {
    const { catalog, roots, plan } = following();
    catalog.run("run.begin", { run: "wider", plan: { ...plan, world: 8 }, meta: {}, epoch: 5 });
    const cut = (epoch: number) => cutOf(roots, epoch, 1, 2, { run: "wider" });
    expect(catalog.refuse("epoch.cut", cut(1)).code).toBe("plan_mismatch");
    expect(catalog.run("epoch.cut", cut(6))).toMatchObject({ epoch: 6, version: 2 });
  });
});
