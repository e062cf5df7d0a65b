import { describe, expect, it } from "vitest";
import { decodeClasses, encodeClasses, firstColumnNotAppended } from "../../src/merkle/classes.ts";
import { computeRoot, objectDigest } from "../../src/merkle/root.ts";
import type { RootFields } from "../../src/merkle/root.ts";
import { subtractTotals, sumTotals } from "../../src/merkle/totals.ts";
import { CONTEXTS } from "../../src/merkle/hash.ts";
import { utf8 } from "../../src/model/bytes.ts";
import { digestOf } from "../support/catalog.ts";

const FIELDS: RootFields = {
  schema: digestOf("schema"),
  classes: digestOf("classes"),
  splits: ["train", "val"],
  splitRule: { kind: "none" },
  pageCount: 3,
  treeHash: digestOf("tree"),
  totals: [{ split: 0, rows: 1, bytes: 2, shards: 3 }],
};

describe("root (I20)", () => {
  it.each<[string, Partial<RootFields>]>([
    ["schema", { schema: digestOf("x") }],
    ["classes", { classes: digestOf("x") }],
    ["schema and classes swapped", { schema: FIELDS.classes, classes: FIELDS.schema }],
    ["a split's name", { splits: ["train", "test"] }],
    ["a boundary between names", { splits: ["trainv", "al"] }],
    ["the split rule", { splitRule: { kind: "folders" } }],
    ["the page count", { pageCount: 4 }],
    ["the tree", { treeHash: digestOf("x") }],
    ["rows", { totals: [{ split: 0, rows: 2, bytes: 2, shards: 3 }] }],
    ["bytes", { totals: [{ split: 0, rows: 1, bytes: 3, shards: 3 }] }],
    ["shards", { totals: [{ split: 0, rows: 1, bytes: 2, shards: 4 }] }],
    ["the split of totals", { totals: [{ split: 1, rows: 1, bytes: 2, shards: 3 }] }],
    ["no totals", { totals: [] }],
  ])("covers %s", (_what, change) => {
    expect(computeRoot({ ...FIELDS, ...change })).not.toBe(computeRoot(FIELDS));
  });

  it("does not depend on the order of a rule's keys", () => {
    const a = { kind: "positional", salt: "s", ppm: { train: 1, val: 2 } } as const;
    const b = { ppm: { val: 2, train: 1 }, salt: "s", kind: "positional" } as const;
    expect(computeRoot({ ...FIELDS, splitRule: a })).toBe(computeRoot({ ...FIELDS, splitRule: b }));
  });

  it("every context is its own, and equal bytes of two kinds have two digests", () => {
    expect(new Set(Object.values(CONTEXTS)).size).toBe(Object.keys(CONTEXTS).length);
    expect(objectDigest("schema", utf8("{}"))).not.toBe(objectDigest("classes", utf8("{}")));
  });
});

describe("totals", () => {
  const part = [{ split: 1, rows: 3, bytes: 4, shards: 1 }];
  const all = [
    { split: 0, rows: 1, bytes: 1, shards: 1 },
    { split: 1, rows: 5, bytes: 6, shards: 2 },
  ];

  it("add up and come apart again; a split without shards is left out", () => {
    expect(subtractTotals(sumTotals([all, part]), [part])).toEqual(all);
    expect(subtractTotals(all, [all])).toEqual([]);
  });

  it("never fall below zero", () => {
    expect(() => subtractTotals(part, [all])).toThrow(expect.objectContaining({ code: "internal" }));
  });
});

describe("class vocabularies", () => {
  it("decode what they encode, whatever the order of columns", () => {
    const bytes = encodeClasses({ b: ["x", "y"], a: [] });
    expect(decodeClasses(bytes)).toEqual({ a: [], b: ["x", "y"] });
    expect(encodeClasses({ a: [], b: ["x", "y"] })).toEqual(bytes);
  });

  it.each([
    "",
    "[]",
    "null",
    '{"a":"x"}',
    '{"a":[1]}',
    '{"a":["x","x"]}',
    '{"b":[],"a":[]}',
    '{"a": []}',
    '{"a":[],"a":[]}',
  ])("refuse %s", (text) => {
    expect(() => decodeClasses(utf8(text))).toThrow(expect.objectContaining({ code: "damaged" }));
  });

  it("refuse a value twice, and more than fits", () => {
    expect(() => encodeClasses({ a: ["x", "x"] })).toThrow(expect.objectContaining({ code: "invalid_argument" }));
    const many = { a: Array.from({ length: 40_000 }, (_, i) => `class ${i}`) };
    expect(() => encodeClasses(many)).toThrow(expect.objectContaining({ code: "limit_exceeded" }));
  });

  it("may only be appended to", () => {
    const base = { a: ["x"], b: [] };
    expect(firstColumnNotAppended(base, { a: ["x", "y"], b: ["z"], c: ["new"] })).toBeNull();
    expect(firstColumnNotAppended(base, { a: ["y", "x"], b: [] })).toBe("a");
    expect(firstColumnNotAppended(base, { a: ["x"] })).toBe("b");
    expect(firstColumnNotAppended({ constructor: [] }, {})).toBe("constructor");
  });
});
