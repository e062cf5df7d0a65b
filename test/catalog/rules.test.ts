import { describe, expect, it } from "vitest";
import { LIMITS } from "../../src/model/limits.ts";
import type { RunPlan } from "../../src/model/commands.ts";
import type { Digest } from "../../src/model/bytes.ts";
import { utf8 } from "../../src/model/bytes.ts";
import { objectDigest } from "../../src/merkle/root.ts";
import { pageDigest } from "../../src/merkle/page.ts";
import { createTestCatalog, digestOf, pageOf, T0 } from "../support/catalog.ts";
import type { TestCatalog } from "../support/catalog.ts";

const PAGE = pageOf("p");

/** mnist@v1 and mnist@v2. */
function twoVersions(): { catalog: TestCatalog; roots: [Digest, Digest] } {
  const catalog = createTestCatalog();
  const first = catalog.commit({ pages: [PAGE] });
  const expectedHead = { version: 1, index: first["index"] as number };
  const second = catalog.commit({ pages: [PAGE, pageOf("q")], kept: 1, expectedHead });
  return { catalog, roots: [first["root"] as Digest, second["root"] as Digest] };
}

const count = (catalog: TestCatalog, table: string): number =>
  [...catalog.rows.values()].filter((row) => row.table === table).length;

describe("page.put", () => {
  const digest = pageDigest(PAGE);

  it("holds a page in log time, writes its shards once, and extends the hold", () => {
    const catalog = createTestCatalog();
    expect(catalog.put("page", PAGE)).toEqual({ digest, holdUntilMs: T0 + LIMITS.pageHoldMs, present: false });
    expect(count(catalog, "shard")).toBe(2);
    const again = catalog.put("page", PAGE, { timeMs: T0 + 5, actor: "bob" });
    expect(again).toEqual({ digest, holdUntilMs: T0 + 5 + LIMITS.pageHoldMs, present: true });
    expect(catalog.rows.get(`page\n${digest}`)).toMatchObject({ actor: "ada", putIndex: 1, bytes: PAGE });
    expect(count(catalog, "shard")).toBe(2);
  });

  it("a time before the log's does not shorten a hold", () => {
    const catalog = createTestCatalog();
    catalog.put("page", PAGE);
    expect(catalog.put("page", PAGE, { timeMs: 1 })["holdUntilMs"]).toBe(T0 + LIMITS.pageHoldMs);
  });

  it.each<[string, string, "page" | "schema" | "classes", Uint8Array, Digest?]>([
    ["a digest of other bytes", "invalid_argument", "page", PAGE, digestOf("x")],
    ["a digest of another kind", "invalid_argument", "schema", PAGE, digest],
    ["bytes that are no page", "invalid_argument", "page", utf8("SPPG?")],
    ["no bytes", "invalid_argument", "schema", new Uint8Array(0)],
    ["classes that are not canonical", "invalid_argument", "classes", utf8('{ "a":[]}')],
    ["classes that repeat a value", "invalid_argument", "classes", utf8('{"a":["x","x"]}')],
    ["classes that are no lists", "invalid_argument", "classes", utf8('{"a":1}')],
    ["a schema too large", "limit_exceeded", "schema", new Uint8Array(LIMITS.metaBytesMax + 1)],
    ["a page too large", "limit_exceeded", "page", new Uint8Array(LIMITS.pageBytesMax + 1)],
  ])("refuses %s: `%s`", (_what, code, kind, blob, claimed = objectDigest(kind, blob)) => {
    expect(createTestCatalog().refuse("page.put", { kind, digest: claimed }, { blob }).code).toBe(code);
  });
});

describe("tag.move", () => {
  const tag = (version: number, expected?: number | null) =>
    ({ dataset: "mnist", tag: "prod", version, ...(expected === undefined ? {} : { expected }) }) as const;

  it("moves, keeps the history, and does nothing when it already points there", () => {
    const { catalog } = twoVersions();
    expect(catalog.run("tag.move", tag(1))).toMatchObject({ version: 1, from: null, unchanged: false });
    expect(catalog.run("tag.move", tag(2, 1))).toMatchObject({ version: 2, from: 1, index: catalog.state.index });
    expect(catalog.run("tag.move", tag(2))).toMatchObject({ unchanged: true, index: catalog.state.index - 1 });
    expect(count(catalog, "tag_move")).toBe(2);
  });

  it("refuses what the caller did not expect: `tag_moved`", () => {
    const { catalog } = twoVersions();
    expect(catalog.refuse("tag.move", tag(1, 2)).code).toBe("tag_moved");
    catalog.run("tag.move", tag(1, null));
    expect(catalog.refuse("tag.move", tag(2, null))).toMatchObject({ code: "tag_moved", details: { version: 1 } });
  });

  it("refuses an unknown dataset or version, and a revoked one", () => {
    const { catalog } = twoVersions();
    expect(catalog.refuse("tag.move", { ...tag(1), dataset: "minst" })).toMatchObject({ code: "not_found" });
    expect(catalog.refuse("tag.move", tag(3))).toMatchObject({ code: "not_found", details: { headVersion: 2 } });
    catalog.run("version.revoke", { dataset: "mnist", version: 1, reason: "labels" });
    expect(catalog.refuse("tag.move", tag(1)).code).toBe("revoked");
  });
});

describe("pins (I28)", () => {
  const pin = (root: Digest, version = 1) => ({ dataset: "mnist", version, root, run: "exp-1", note: "" });

  it("are get-or-create, released once, and revived only at the same version", () => {
    const { catalog, roots } = twoVersions();
    const created = catalog.run("pin.create", pin(roots[0]));
    expect(created).toMatchObject({ created: true, index: catalog.state.index });
    expect(catalog.run("pin.create", pin(roots[0]))).toEqual({ ...created, created: false });
    const released = catalog.run("pin.release", { dataset: "mnist", run: "exp-1" });
    expect(catalog.run("pin.release", { dataset: "mnist", run: "exp-1" })).toEqual(released);
    expect(catalog.refuse("pin.create", pin(roots[1], 2)).code).toBe("pin_conflict");
    expect(catalog.run("pin.create", pin(roots[0]))).toMatchObject({ created: true });
  });

  it("refuse another version, another root, what is not there, and what is revoked", () => {
    const { catalog, roots } = twoVersions();
    expect(catalog.refuse("pin.create", pin(roots[1])).code).toBe("root_mismatch");
    expect(catalog.refuse("pin.create", pin(roots[0], 7)).code).toBe("not_found");
    expect(catalog.refuse("pin.release", { dataset: "mnist", run: "exp-1" }).code).toBe("not_found");
    catalog.run("pin.create", pin(roots[0]));
    expect(catalog.refuse("pin.create", pin(roots[1], 2))).toMatchObject({
      code: "pin_conflict",
      details: { version: 1 },
    });
    catalog.run("version.revoke", { dataset: "mnist", version: 1, reason: "labels" });
    expect(catalog.run("pin.create", pin(roots[0]))).toMatchObject({ created: false });
    expect(catalog.refuse("pin.create", { ...pin(roots[0]), run: "exp-2" }).code).toBe("revoked");
  });
});

describe("runs (I28)", () => {
  const planOf = (root: Digest): RunPlan => ({
    dataset: "mnist",
    version: 1,
    root,
    selection: digestOf("s"),
    order: { alg: "sp-order/1", strength: "window", seed: "7", n: 333, K: 64, g: 4 },
    world: 4,
    batchSize: 32,
    last: "drop",
  });

  it("begin once for all ranks", () => {
    const { catalog, roots } = twoVersions();
    const plan = planOf(roots[0]);
    const first = catalog.run("run.begin", { run: "r", plan, meta: { host: "a" } });
    expect(first).toEqual({ run: "r", index: catalog.state.index, created: true });
    expect(catalog.run("run.begin", { run: "r", plan, meta: { host: "b" } })).toEqual({ ...first, created: false });
    expect(catalog.rows.get("run\nr")).toMatchObject({ meta: { host: "a" }, endIndex: null });
  });

  it.each<[string, (plan: RunPlan) => RunPlan]>([
    ["dataset", (plan) => ({ ...plan, dataset: "other" })],
    ["version", (plan) => ({ ...plan, version: 2 })],
    ["root", (plan) => ({ ...plan, root: digestOf("x") })],
    ["selection", (plan) => ({ ...plan, selection: digestOf("x") })],
    ["order.strength", (plan) => ({ ...plan, order: { ...plan.order, strength: "full" } })],
    ["order.seed", (plan) => ({ ...plan, order: { ...plan.order, seed: "8" } })],
    ["order.n", (plan) => ({ ...plan, order: { ...plan.order, n: 1 } })],
    ["order.K", (plan) => ({ ...plan, order: { ...plan.order, K: 1 } })],
    ["order.g", (plan) => ({ ...plan, order: { ...plan.order, g: 1 } })],
    ["world", (plan) => ({ ...plan, world: 8, batchSize: 1 })],
    ["batchSize", (plan) => ({ ...plan, batchSize: 16 })],
    ["last", (plan) => ({ ...plan, last: "pad" })],
  ])("refuse another %s, naming it: `plan_mismatch`", (field, change) => {
    const { catalog, roots } = twoVersions();
    const plan = planOf(roots[0]);
    catalog.run("run.begin", { run: "r", plan, meta: {} });
    expect(catalog.refuse("run.begin", { run: "r", plan: change(plan), meta: {} })).toMatchObject({
      code: "plan_mismatch",
      details: { run: "r", field },
    });
  });

  it("refuse what is not there, another root, and what is revoked", () => {
    const { catalog, roots } = twoVersions();
    const plan = planOf(roots[0]);
    const refuse = (over: Partial<RunPlan>): string =>
      catalog.refuse("run.begin", { run: "r", plan: { ...plan, ...over }, meta: {} }).code;
    expect(refuse({ dataset: "other" })).toBe("not_found");
    expect(refuse({ version: 3 })).toBe("not_found");
    expect(refuse({ root: roots[1] })).toBe("root_mismatch");
    catalog.run("run.begin", { run: "before", plan, meta: {} });
    catalog.run("version.revoke", { dataset: "mnist", version: 1, reason: "labels" });
    expect(refuse({})).toBe("revoked");
    expect(catalog.refuse("run.begin", { run: "before", plan, meta: {} }).code).toBe("revoked");
  });

  it("take receipts of their ranks, also after the end", () => {
    const { catalog, roots } = twoVersions();
    catalog.run("run.begin", { run: "r", plan: planOf(roots[0]), meta: {} });
    catalog.run("run.receipt", { run: "r", rank: 3, receipt: { epoch: 1 } });
    catalog.run("run.end", { run: "r", outcome: "done" });
    catalog.run("run.receipt", { run: "r", rank: 0, receipt: { epoch: 1 } });
    expect(count(catalog, "receipt")).toBe(2);
    expect(catalog.refuse("run.receipt", { run: "r", rank: 4, receipt: {} }).code).toBe("invalid_argument");
    expect(catalog.refuse("run.receipt", { run: "s", rank: 0, receipt: {} }).code).toBe("not_found");
  });

  it("end once", () => {
    const { catalog, roots } = twoVersions();
    const plan = planOf(roots[0]);
    catalog.run("run.begin", { run: "r", plan, meta: {} });
    const end = catalog.run("run.end", { run: "r", outcome: "done" });
    expect(catalog.run("run.end", { run: "r", outcome: "done" })).toEqual(end);
    expect(catalog.refuse("run.end", { run: "r", outcome: "failed" }).code).toBe("run_ended");
    expect(catalog.refuse("run.begin", { run: "r", plan, meta: {} }).code).toBe("run_ended");
    expect(catalog.refuse("run.end", { run: "s", outcome: "done" }).code).toBe("not_found");
  });
});

describe("revocations (I27)", () => {
  it("are final, and the first reason stays", () => {
    const { catalog } = twoVersions();
    const first = catalog.run("version.revoke", { dataset: "mnist", version: 1, reason: "labels" });
    expect(first).toEqual({ subject: "mnist@v1", index: catalog.state.index, already: false });
    const second = catalog.run("version.revoke", { dataset: "mnist", version: 1, reason: "other" });
    expect(second).toEqual({ ...first, already: true });
    expect(catalog.rows.get("revocation\nmnist@v1")).toMatchObject({ reason: "labels", actor: "ada" });
    expect(catalog.refuse("version.revoke", { dataset: "mnist", version: 9, reason: "x" }).code).toBe("not_found");
  });

  it("of a shard need no version", () => {
    const catalog = createTestCatalog();
    const digest = digestOf("file");
    expect(catalog.run("shard.revoke", { digest, reason: "bad" })).toMatchObject({ subject: digest, already: false });
    expect(catalog.run("shard.revoke", { digest, reason: "bad" })).toMatchObject({ already: true, index: 1 });
  });

  it("the head stays the head: the next version still follows it", () => {
    const { catalog } = twoVersions();
    const head = catalog.rows.get("dataset\nmnist");
    catalog.run("version.revoke", { dataset: "mnist", version: 2, reason: "labels" });
    expect(catalog.rows.get("dataset\nmnist")).toEqual(head);
  });
});

describe("reader.lease", () => {
  const lease = (ttlMs: number) => ({ dataset: "mnist", version: 1, run: "r", ttlMs });

  it("lasts until a log time, and a shorter renewal takes nothing away", () => {
    const { catalog } = twoVersions();
    expect(catalog.run("reader.lease", lease(60_000))).toMatchObject({ untilMs: T0 + 60_000, timeMs: T0 });
    expect(catalog.run("reader.lease", lease(10))).toMatchObject({ untilMs: T0 + 60_000 });
    const later = catalog.run("reader.lease", lease(60_000), { timeMs: T0 + 1000 });
    expect(later).toMatchObject({ untilMs: T0 + 61_000, timeMs: T0 + 1000 });
  });

  it("is refused for what is not there or revoked", () => {
    const { catalog } = twoVersions();
    expect(catalog.refuse("reader.lease", { ...lease(1), version: 5 }).code).toBe("not_found");
    catalog.run("version.revoke", { dataset: "mnist", version: 1, reason: "labels" });
    expect(catalog.refuse("reader.lease", lease(1))).toMatchObject({
      code: "revoked",
      details: { actor: "ada", reason: "labels", timeMs: T0 },
    });
  });
});
