import fc from "fast-check";
import { expect, test } from "vitest";
import { hashBytes } from "../../src/merkle/hash.ts";
import { formatDigest, u32le } from "../../src/model/bytes.ts";
import { positionalRows, positionalTotals, type PositionalRule } from "../../src/shards/positional.ts";
import { slowSplits } from "../loader/support/slow-splits.ts";

const digestOf = (i: number) => formatDigest(hashBytes(u32le(i)));

const rules = fc
  .record({ salt: fc.string({ maxLength: 8 }), a: fc.nat(1_000_000), b: fc.nat(1_000_000), both: fc.boolean() })
  .filter(({ a, b, both }) => !both || a + b <= 1_000_000)
  .map(({ salt, a, b, both }): PositionalRule => ({
    kind: "positional",
    salt,
    ppm: both ? { val: a, test: b } : { val: a },
  }));

test("rows and totals equal the slow reference, and every row is in one split", () => {
  fc.assert(
    fc.property(rules, fc.array(fc.integer({ min: 0, max: 3000 }), { maxLength: 3 }), (rule, sizes) => {
      const entries = sizes.map((rows, i) => ({ digest: digestOf(i), rows, bytes: rows * 10 + 7 }));
      const totals = positionalTotals(rule, entries);
      expect(totals.map((t) => t.name)).toEqual([null, ...Object.keys(rule.ppm).sort()]);
      const slow = entries.map((e) => slowSplits(rule, e.rows, e.digest));
      for (const { name, rows } of totals) {
        const expected = slow.map((splits) => splits.flatMap((s, row) => (s === name ? [row] : [])));
        expect(rows).toBe(expected.flat().length);
        entries.forEach((entry, i) => {
          const selected = positionalRows(rule, name, entry);
          expect(Array.from({ length: selected.rows }, (_, k) => selected.rowOf(k))).toEqual(expected[i]);
        });
      }
    }),
    { numRuns: 60 },
  );
});

test("a small cache and a random walk change nothing", () => {
  const rule: PositionalRule = { kind: "positional", salt: "s", ppm: { val: 250_000 } };
  const entry = { digest: digestOf(1), rows: 20_000, bytes: 20_000 };
  const all = positionalRows(rule, "val", entry);
  const expected = Array.from({ length: all.rows }, (_, k) => all.rowOf(k));
  const walk = positionalRows(rule, "val", entry, { stripesMax: 2, stripes: new Map() });
  for (let i = 0, k = 0; i < 2000; i++, k = (k + 977) % all.rows) expect(walk.rowOf(k)).toBe(expected[k]);
});

test("a rule above 100 % and an unknown split are refused", () => {
  const rule: PositionalRule = { kind: "positional", salt: "", ppm: { a: 600_000, b: 600_000 } };
  expect(() => positionalTotals(rule, [])).toThrow(/1200000 of a million/);
  const entry = { digest: digestOf(1), rows: 1, bytes: 1 };
  expect(() => positionalRows({ ...rule, ppm: { a: 1 } }, "b", entry)).toThrow(/no 'b'/);
});
