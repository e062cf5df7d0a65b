import { describe, expect, it } from "vitest";
import { APPLIED_ZERO, applyBatch, needsOfBatch } from "../../src/catalog/apply.ts";
import { hashAs } from "../../src/merkle/hash.ts";
import { encodeClasses } from "../../src/merkle/classes.ts";
import { objectDigest } from "../../src/merkle/root.ts";
import { concatBytes, fromHex, toHex, u32le, u64le, utf8 } from "../../src/model/bytes.ts";
import { stampCommand } from "../../src/model/commands.ts";
import {
  commitOf,
  createTestCatalog,
  digestOf,
  entryAfter,
  freshId,
  pageOf,
  payloadOf,
  T0,
} from "../support/catalog.ts";

const revoke = (o: Parameters<typeof payloadOf>[2] = {}, reason = "bad"): Uint8Array =>
  payloadOf("shard.revoke", { digest: digestOf("file"), reason }, o);
/** A stamped header of any JSON, as a faulty or newer client could send it. */
const rawPayload = (json: unknown, timeMs = T0): Uint8Array => {
  const header = utf8(typeof json === "string" ? json : JSON.stringify(json));
  return stampCommand(concatBytes([u32le(header.byteLength), header]), timeMs);
};
const empty = new Uint8Array(0);

describe("exactly once (I12)", () => {
  it.each([true, false])("a retry gets the first outcome, applied in one batch: %s", (together) => {
    const catalog = createTestCatalog();
    const id = freshId();
    const payloads = [revoke({ id }), revoke({ id, timeMs: T0 + 9 })];
    const entries = payloads.map((payload, i) => ({ index: i + 1, epoch: 1, kind: "command" as const, payload }));
    const applied = together
      ? catalog.apply(entries).applied
      : entries.flatMap((entry) => catalog.apply([entry]).applied);
    expect(applied[1]).toMatchObject({ index: 2, commandId: id, retry: true, firstIndex: 1, timeMs: T0 + 9 });
    expect(applied[1]?.outcome).toEqual(applied[0]?.outcome);
    expect(catalog.ledger.map((row) => [row.commandId, row.retryOf])).toEqual([
      [id, null],
      [null, 1],
    ]);
  });

  it("a rejection is an outcome too: the retry is not tried again", () => {
    const catalog = createTestCatalog();
    const id = freshId();
    const body = { dataset: "mnist", version: 1, reason: "bad" };
    catalog.refuse("version.revoke", body, { id });
    catalog.commit({ pages: [pageOf("p")] });
    expect(catalog.refuse("version.revoke", body, { id }).code).toBe("not_found");
    expect(catalog.run("version.revoke", body)).toMatchObject({ already: false });
  });

  it("another body under the same id is `command_id_reused` and leaves the first as it was", () => {
    const catalog = createTestCatalog();
    const id = freshId();
    const digest = digestOf("file");
    catalog.run("shard.revoke", { digest, reason: "bad" }, { id });
    const other = { digest, reason: "worse" };
    expect(catalog.refuse("shard.revoke", other, { id })).toMatchObject({
      code: "command_id_reused",
      details: { index: 1 },
    });
    expect(catalog.refuse("shard.revoke", { digest, reason: "bad" }, { id, actor: "eve" }).code).toBe(
      "command_id_reused",
    );
    expect(catalog.run("shard.revoke", { digest, reason: "bad" }, { id })).toMatchObject({ index: 1 });
    expect(catalog.ledger.map((row) => row.commandId)).toEqual([id, null, null, null]);
  });
});

describe("entries that are no commands of this build (I29)", () => {
  it.each<[string, Uint8Array]>([
    ["no bytes", empty],
    ["a short payload", new Uint8Array(12)],
    ["an impossible time", concatBytes([new Uint8Array([1]), new Uint8Array(8).fill(255), new Uint8Array(4)])],
    ["a header longer than the payload", stampCommand(u32le(99), T0)],
    ["a header that is not JSON", rawPayload("{")],
    ["a header without an id", rawPayload({ kind: "shard.revoke", actor: "a", body: {} })],
    ["a body that does not validate", rawPayload({ id: freshId(), kind: "shard.revoke", actor: "a", body: {} })],
    ["text that Postgres could not store", revokeOf("a\u0000b")],
    ["half a surrogate pair", revokeOf("\ud800")],
    ["deep nesting", rawPayload(receiptText(`{"x":${"[".repeat(50_000)}${"]".repeat(50_000)}}`))],
    ["a number that JSON can't say", rawPayload(receiptText('{"x":1e999}'))],
    ["a key that objects mistake", rawPayload(receiptText('{"__proto__":{}}'))],
  ])("%s: a recorded rejection of kind `invalid`, under no id", (_what, payload) => {
    const catalog = createTestCatalog();
    const { applied, changes } = catalog.apply([entryAfter(catalog.state, payload)]);
    expect(applied[0]).toMatchObject({ commandId: null, retry: false, outcome: { ok: false } });
    expect(catalog.ledger[0]).toMatchObject({ kind: "invalid", actor: null, commandId: null, bodyDigest: null });
    expect(changes).toEqual([]);
  });

  it.each<[string, Uint8Array]>([
    ["kind", rawPayload({ id: freshId(), kind: "shard.bless", actor: "a", body: {} })],
    ["kind of a prototype's name", rawPayload({ id: freshId(), kind: "constructor", actor: "a", body: {} })],
    ["payload version", concatBytes([new Uint8Array([2]), revoke().slice(1)])],
  ])("an unknown %s halts: `upgrade_required`", (_what, payload) => {
    const entries = [entryAfter(APPLIED_ZERO, payload)];
    const upgrade = expect.objectContaining({ code: "upgrade_required" });
    expect(() => needsOfBatch(entries)).toThrow(upgrade);
    expect(() => applyBatch({ entries, state: APPLIED_ZERO, rows: [], outcomes: new Map() })).toThrow(upgrade);
  });

  it("no-ops and configurations are ledger rows and links of the chain", () => {
    const catalog = createTestCatalog();
    catalog.apply([{ index: 1, epoch: 1, kind: "config", payload: utf8("genesis") }]);
    catalog.apply([{ index: 2, epoch: 3, kind: "noop", payload: empty }]);
    expect(catalog.ledger.map(({ kind, epoch, outcome }) => ({ kind, epoch, outcome }))).toEqual([
      { kind: "config", epoch: 1, outcome: { ok: true, result: {} } },
      { kind: "noop", epoch: 3, outcome: { ok: true, result: {} } },
    ]);
  });
});

function revokeOf(reason: string): Uint8Array {
  return rawPayload({ id: freshId(), actor: "a", kind: "shard.revoke", body: { digest: digestOf("x"), reason } });
}

function receiptText(receipt: string): string {
  return `{"id":"${freshId()}","actor":"a","kind":"run.receipt","body":{"run":"r","rank":0,"receipt":${receipt}}}`;
}

describe("log time (I16)", () => {
  it("is the maximum of what leaders stamped, and never falls", () => {
    const catalog = createTestCatalog();
    const times = [T0, T0 - 5, T0 + 7, 0].map((timeMs) => {
      return catalog.apply([entryAfter(catalog.state, revoke({ timeMs }))]).state.timeMs;
    });
    expect(times).toEqual([T0, T0, T0 + 7, T0 + 7]);
    expect(catalog.apply([entryAfter(catalog.state, empty, "noop")]).state.timeMs).toBe(T0 + 7);
  });
});

describe("chains (I17, I18)", () => {
  it("Cᵢ covers Cᵢ₋₁, index, kind and payload; not the epoch", () => {
    const payload = revoke();
    const at = (epoch: number): string =>
      createTestCatalog().apply([{ index: 1, epoch, kind: "command", payload }]).state.chain;
    const expected = hashAs("chain", new Uint8Array(32), u64le(1), new Uint8Array([2]), payload);
    expect(at(1)).toBe(toHex(expected));
    expect(at(2)).toBe(at(1));
    const { state } = createTestCatalog().apply([
      { index: 1, epoch: 1, kind: "noop", payload: empty },
      { index: 2, epoch: 1, kind: "config", payload },
    ]);
    const first = hashAs("chain", fromHex("0".repeat(64)), u64le(1), new Uint8Array([0]));
    expect(state.chain).toBe(toHex(hashAs("chain", first, u64le(2), new Uint8Array([1]), payload)));
  });

  it("the state digest tells tables apart that equal logs led to", () => {
    const payload = payloadOf("version.revoke", { dataset: "mnist", version: 1, reason: "bad" });
    const [whole, poor] = [createTestCatalog(), createTestCatalog()];
    for (const catalog of [whole, poor]) catalog.commit({ pages: [pageOf("p")] });
    poor.rows.delete("version\nmnist\n1");
    const state = whole.state;
    poor.state = state;
    const [a, b] = [whole, poor].map((catalog) => catalog.apply([entryAfter(state, payload)]).state);
    expect(a?.chain).toBe(b?.chain);
    expect(a?.stateDigest).not.toBe(b?.stateDigest);
  });
});

describe("batches", () => {
  it("need each row once: widest pages, bytes when anybody wants them", () => {
    const classes = encodeClasses({ a: ["x"] });
    const digest = objectDigest("classes", classes);
    const commit = (kept: number) => {
      const { body, blob } = commitOf({ pages: [pageOf("p")], classes, expectedHead: { version: 1, index: 5 } });
      return payloadOf("version.commit", { ...body, kept }, { blob });
    };
    const payloads = [payloadOf("page.put", { kind: "classes", digest }, { blob: classes }), commit(3), commit(1)];
    const entries = payloads.map((payload, i) => ({ index: i + 1, epoch: 1, kind: "command" as const, payload }));
    const { needs, commandIds } = needsOfBatch(entries);
    expect(needs).toContainEqual({ kind: "page", digest, withBytes: true });
    expect(needs).toContainEqual({ kind: "head_pages", dataset: "mnist", from: 1 });
    expect(needs.length).toBe(new Set(needs.map((need) => JSON.stringify(need))).size);
    expect(needs.length).toBe(7);
    expect(commandIds.length).toBe(3);
  });

  it("refuse entries that do not follow what is applied (I15)", () => {
    const entries = [{ index: 2, epoch: 1, kind: "noop" as const, payload: empty }];
    const apply = (): unknown => applyBatch({ entries, state: APPLIED_ZERO, rows: [], outcomes: new Map() });
    expect(apply).toThrow(expect.objectContaining({ code: "internal" }));
  });

  it("a stored row that does not decode stops the replica instead of becoming an outcome", () => {
    const catalog = createTestCatalog();
    const first = catalog.commit({ pages: [pageOf("p")] });
    const expectedHead = { version: 1, index: first["index"] as number };
    const page = [...catalog.rows.values()].find((row) => row.table === "page" && row.kind === "classes");
    if (page?.table !== "page") throw new Error("no classes");
    catalog.rows.set(`page\n${page.digest}`, { ...page, bytes: utf8("{") });
    const classes = encodeClasses({ label: ["cat", "dog", "emu"] });
    expect(() => catalog.commit({ pages: [pageOf("p"), pageOf("q")], kept: 1, expectedHead, classes })).toThrow(
      expect.objectContaining({ code: "damaged" }),
    );
  });
});
