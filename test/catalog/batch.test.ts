import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ChosenEntry } from "../../src/catalog/apply.ts";
import { encodeClasses } from "../../src/merkle/classes.ts";
import { objectDigest } from "../../src/merkle/root.ts";
import type { Digest } from "../../src/model/bytes.ts";
import { utf8 } from "../../src/model/bytes.ts";
import { LIMITS } from "../../src/model/limits.ts";
import {
  CLASSES,
  commitOf,
  createTestCatalog,
  digestOf,
  entryAfter,
  pageOf,
  payloadOf,
  SCHEMA,
  T0,
} from "../support/catalog.ts";
import type { TestCatalog } from "../support/catalog.ts";

const POOL = Array.from({ length: 6 }, (_, i) => pageOf(`p${i}`, 1 + (i % 2), i % 2));
const MORE_CLASSES = encodeClasses({ label: ["cat", "dog", "emu"] });
const OBJECTS = [
  ["schema", SCHEMA],
  ["classes", CLASSES],
  ["classes", MORE_CLASSES],
] as const;
const DATASETS = ["mnist", "cifar"];

/** What a client might want; made a command of against the catalog as it is then. Numbers choose, modulo what there is. */
interface Wish {
  readonly kind: number;
  readonly a: number;
  readonly b: number;
  readonly list: readonly number[];
  /** Below 3 the command id is one of three, mostly reused; below 9 an earlier payload is sent again: a retry. */
  readonly id: number;
  readonly stale: boolean;
  readonly laterMs: number;
}

const anyWish: fc.Arbitrary<Wish> = fc.record({
  kind: fc.nat(99),
  a: fc.nat(99),
  b: fc.nat(99),
  list: fc.uniqueArray(fc.nat(POOL.length - 1), { maxLength: 4 }),
  id: fc.nat(60),
  stale: fc.nat(9).map((n) => n === 0),
  laterMs: fc.constantFrom(-5, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1000, LIMITS.pageHoldMs),
});

/** Kinds by weight: puts and commits come most often. */
const MAKERS: readonly ((wish: Wish, catalog: TestCatalog, o: { id?: string; timeMs: number }) => Uint8Array)[] = [
  ...Array<typeof putPage>(4).fill(putPage),
  ...Array<typeof putObject>(3).fill(putObject),
  ...Array<typeof commit>(6).fill(commit),
  (w, _, o) =>
    payloadOf(
      "tag.move",
      { dataset: ds(w), tag: `t${w.b % 2}`, version: version(w), ...(w.stale ? { expected: 1 } : {}) },
      o,
    ),
  (w, c, o) =>
    payloadOf("pin.create", { dataset: ds(w), version: version(w), root: rootOf(c, w), run: run(w), note: "" }, o),
  (w, _, o) => payloadOf("pin.release", { dataset: ds(w), run: run(w) }, o),
  (w, c, o) => payloadOf("run.begin", { run: run(w), plan: planOf(c, w), meta: {} }, o),
  ...Array<typeof follow>(4).fill(follow),
  (w, _, o) => payloadOf("run.receipt", { run: run(w), rank: w.b % 3, receipt: { at: w.b } }, o),
  (w, _, o) => payloadOf("run.end", { run: run(w), outcome: w.stale ? "failed" : "done" }, o),
  (w, _, o) => payloadOf("version.revoke", { dataset: ds(w), version: version(w), reason: "bad" }, o),
  (w, _, o) => payloadOf("shard.revoke", { digest: digestOf(`${w.b % 3}`), reason: "bad" }, o),
  (w, _, o) => payloadOf("reader.lease", { dataset: ds(w), version: version(w), run: run(w), ttlMs: 1 + w.b }, o),
  () => utf8("too short"),
];

function ds(wish: Wish): string {
  return DATASETS[wish.a % 4] ?? "mnist";
}

function version(wish: Wish): number {
  return 1 + (wish.b % 3);
}

function run(wish: Wish): string {
  return `r${wish.b % 3}`;
}

function rootOf(catalog: TestCatalog, wish: Wish): Digest {
  const row = catalog.rows.get(`version\n${ds(wish)}\n${version(wish)}`);
  return row?.table === "version" ? row.root : digestOf("none");
}

function planOf(catalog: TestCatalog, wish: Wish): Parameters<typeof payloadOf<"run.begin">>[1]["plan"] {
  const order = { alg: "sp-order/1", strength: "none", seed: "1", n: 1, K: 1, g: 1 } as const;
  const root = rootOf(catalog, wish);
  const fixed = { selection: digestOf("s"), order, world: 2, last: "drop" } as const;
  return { dataset: ds(wish), version: version(wish), root, ...fixed, batchSize: wish.stale ? 2 : 1 };
}

/** A run that follows begins, or a rank of it comes to an epoch, mostly the next one. */
function follow(wish: Wish, catalog: TestCatalog, o: { id?: string; timeMs: number }): Uint8Array {
  const id = `live${wish.b % 2}`;
  const epochs = [...catalog.rows.values()].filter((row) => row.table === "run_epoch" && row.run === id);
  const last = epochs.at(-1);
  const { order, ...plan } = planOf(catalog, { ...wish, a: 0 });
  if (last?.table !== "run_epoch")
    return payloadOf("run.begin", { run: id, plan: { ...plan, order, follow: true }, meta: {}, epoch: 0 }, o);
  const { dataset, version: to, root } = plan;
  const epoch = Math.max(1, last.epoch + (wish.stale ? 0 : 1));
  return payloadOf("epoch.cut", { run: id, epoch, dataset, from: last.version, version: to, root, order }, o);
}

function putPage(wish: Wish, _: TestCatalog, o: { id?: string; timeMs: number }): Uint8Array {
  const bytes = POOL[wish.b % POOL.length] ?? SCHEMA;
  return payloadOf("page.put", { kind: "page", digest: objectDigest("page", bytes) }, { ...o, blob: bytes });
}

function putObject(wish: Wish, _: TestCatalog, o: { id?: string; timeMs: number }): Uint8Array {
  const [kind, bytes] = OBJECTS[wish.b % OBJECTS.length] ?? OBJECTS[0];
  return payloadOf("page.put", { kind, digest: objectDigest(kind, bytes) }, { ...o, blob: bytes });
}

/** The head's pages up to somewhere, then others of the pool. */
function commit(wish: Wish, catalog: TestCatalog, o: { id?: string; timeMs: number }): Uint8Array {
  const dataset = ds(wish);
  const row = catalog.rows.get(`dataset\n${dataset}`);
  const head = row?.table === "dataset" && !wish.stale ? row : null;
  const open = [...catalog.rows.values()]
    .filter((r) => r.table === "version_page" && r.dataset === dataset && r.untilVersion === null)
    .map((r) => (r.table === "version_page" ? { position: r.position, page: r.page } : null))
    .sort((a, b) => (a?.position ?? 0) - (b?.position ?? 0));
  const kept = head ? Math.max(0, open.length - (wish.b % 3)) : 0;
  const before = open
    .slice(0, kept)
    .map((r) => POOL.find((bytes) => objectDigest("page", bytes) === r?.page) ?? SCHEMA);
  const { body, blob } = commitOf({
    dataset,
    pages: [...before, ...wish.list.map((i) => POOL[i] ?? SCHEMA)],
    kept,
    expectedHead: head ? { version: head.headVersion, index: head.headIndex } : null,
    classes: wish.b % 5 === 0 ? MORE_CLASSES : CLASSES,
  });
  return payloadOf("version.commit", body, { ...o, blob });
}

/** Objects, pages and a first commit, so that most of the log has something to work on. */
const OPENING: readonly Wish[] = [
  ...[0, 1].map((b) => ({ kind: 4, a: 0, b, list: [], id: 60, stale: false, laterMs: 0 })),
  ...POOL.map((_, b) => ({ kind: 0, a: 0, b, list: [], id: 60, stale: false, laterMs: 0 })),
  { kind: 7, a: 0, b: 1, list: [0], id: 60, stale: false, laterMs: 0 },
];

/** Makes and applies the wishes one by one, so that later ones know of earlier ones. */
function play(wishes: readonly Wish[]): { catalog: TestCatalog; entries: ChosenEntry[] } {
  const catalog = createTestCatalog();
  const entries: ChosenEntry[] = [];
  let timeMs = T0;
  for (const wish of [...OPENING, ...wishes]) {
    timeMs += wish.laterMs;
    const id = wish.id < 3 ? { id: `${wish.id}`.repeat(32) } : {};
    const maker = MAKERS[wish.kind % MAKERS.length] ?? putPage;
    const again = wish.id >= 3 && wish.id < 9 ? entries[wish.b % entries.length] : undefined;
    const entry = entryAfter(catalog.state, again?.payload ?? maker(wish, catalog, { ...id, timeMs }));
    entries.push(entry);
    catalog.apply([entry]);
  }
  return { catalog, entries };
}

function cut(entries: readonly ChosenEntry[], sizes: readonly number[]): ChosenEntry[][] {
  const batches: ChosenEntry[][] = [];
  for (let at = 0, i = 0; at < entries.length; i++) {
    const size = sizes[i % sizes.length] ?? 1;
    batches.push(entries.slice(at, at + size));
    at += size;
  }
  return batches;
}

describe("batched apply (I13)", () => {
  it("comes to what one by one comes to: rows, ledger, answers, chains", () => {
    const came = new Map<string, number>();
    const property = fc.property(
      fc.array(anyWish, { minLength: 10, maxLength: 60 }),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 5 }),
      (wishes, sizes) => {
        const { catalog: single, entries } = play(wishes);
        const batched = createTestCatalog();
        for (const batch of cut(entries, sizes)) batched.apply(batch);
        expect(batched.state).toEqual(single.state);
        expect(batched.ledger).toEqual(single.ledger);
        expect(new Map([...batched.rows].sort())).toEqual(new Map([...single.rows].sort()));
        for (const row of single.ledger) {
          const what = `${row.kind} ${row.retryOf ? "retry" : row.outcome.ok ? "ok" : row.outcome.error.code}`;
          came.set(what, (came.get(what) ?? 0) + 1);
        }
      },
    );
    fc.assert(property, { numRuns: 100 });
    // The property says little unless the log held all of this.
    const commits = ["ok", "retry", "page_missing", "head_moved"].map((said) => `version.commit ${said}`);
    const others = ["tag.move", "pin.create", "run.begin", "epoch.cut", "reader.lease", "version.revoke"].map(
      (kind) => `${kind} ok`,
    );
    for (const what of [...commits, ...others, "page.put command_id_reused", "invalid damaged"]) {
      expect(came.get(what) ?? 0, what).toBeGreaterThan(0);
    }
  });

  it("every put changes a row's last state only once", () => {
    const catalog = createTestCatalog();
    const payloads = [0, 1].map((i) =>
      payloadOf(
        "page.put",
        { kind: "schema", digest: objectDigest("schema", SCHEMA) },
        { blob: SCHEMA, timeMs: T0 + i },
      ),
    );
    const entries = payloads.map((payload, i) => ({ index: i + 1, epoch: 1, kind: "command" as const, payload }));
    const { changes } = catalog.apply(entries);
    expect(changes).toMatchObject([{ row: { table: "page", holdUntilMs: T0 + 1 + LIMITS.pageHoldMs } }]);
  });
});
