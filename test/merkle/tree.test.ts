import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hashAs } from "../../src/merkle/hash.ts";
import {
  consistencyProof,
  frontierAppend,
  frontierOf,
  inclusionProof,
  rootOfFrontier,
  treeHash,
  verifyConsistency,
  verifyInclusion,
} from "../../src/merkle/tree.ts";
import { u32le } from "../../src/model/bytes.ts";

const SIZE_MAX = 70;
const leaves = (n: number): Uint8Array[] => Array.from({ length: n }, (_, i) => hashAs("leaf", u32le(i)));

/** RFC 9162 §2.1.1, word by word, slow. */
function slowHash(list: readonly Uint8Array[]): Uint8Array {
  if (list.length === 0) return hashAs("node");
  const [first] = list;
  if (list.length === 1 && first) return first;
  const k = 2 ** Math.floor(Math.log2(list.length - 1));
  return hashAs("node", slowHash(list.slice(0, k)), slowHash(list.slice(k)));
}

const sizes = Array.from({ length: SIZE_MAX + 1 }, (_, n) => n);

describe("tree hash (I21, RFC 9162 §2.1.1)", () => {
  it.each(sizes)("equals the recursive definition over %i leaves, at once and by appending", (n) => {
    const expected = slowHash(leaves(n));
    expect(treeHash(leaves(n))).toEqual(expected);
    let frontier: Uint8Array[] = [];
    leaves(n).forEach((leaf, i) => (frontier = frontierAppend(frontier, i, leaf)));
    expect(frontier).toEqual(frontierOf(leaves(n)));
    expect(rootOfFrontier(frontier, n)).toEqual(expected);
  });

  it("leaves the frontier that it appends to as it was", () => {
    const before = frontierOf(leaves(7));
    frontierAppend(before, 7, hashAs("leaf"));
    expect(before).toEqual(frontierOf(leaves(7)));
  });

  it("throws on a frontier of another size", () => {
    expect(() => rootOfFrontier(frontierOf(leaves(3)), 4)).toThrow("not one of 4 leaves");
    expect(() => frontierAppend(frontierOf(leaves(3)), 5 + 2, hashAs("leaf"))).toThrow("not one of 7 leaves");
  });
});

describe("inclusion (RFC 9162 §2.1.3)", () => {
  it("every leaf of every tree up to 70 is proven, in at most ⌈log₂ n⌉ hashes", () => {
    for (const n of sizes) {
      const list = leaves(n);
      const root = slowHash(list);
      list.forEach((leaf, i) => {
        const proof = inclusionProof(list, i);
        expect(proof.length).toBeLessThanOrEqual(Math.ceil(Math.log2(n)));
        expect(verifyInclusion(leaf, i, n, proof, root)).toBe(true);
      });
    }
  });

  it("nothing else is proven: another leaf, index, size, proof or root", () => {
    const place = fc
      .integer({ min: 2, max: SIZE_MAX })
      .chain((n) => fc.tuple(fc.constant(n), fc.nat(n - 1), fc.nat(99)));
    fc.assert(
      fc.property(place, ([n, i, salt]) => {
        const list = leaves(n);
        const [leaf, root, proof] = [list[i] ?? hashAs("leaf"), slowHash(list), inclusionProof(list, i)];
        const other = hashAs("leaf", u32le(1000 + salt));
        expect(verifyInclusion(other, i, n, proof, root)).toBe(false);
        expect(verifyInclusion(leaf, (i + 1 + (salt % (n - 1))) % n, n, proof, root)).toBe(false);
        expect(verifyInclusion(leaf, i, n, proof, other)).toBe(false);
        expect(verifyInclusion(leaf, i, n, [...proof, other], root)).toBe(false);
        expect(verifyInclusion(leaf, i, n, proof.slice(1), root)).toBe(false);
        expect(verifyInclusion(leaf, i, n, proof.with(salt % proof.length, other), root)).toBe(false);
        expect(verifyInclusion(leaf, n, n, proof, root)).toBe(false);
        expect(verifyInclusion(leaf, -1, n, proof, root)).toBe(false);
      }),
    );
  });

  it("refuses an index outside the tree", () => {
    expect(() => inclusionProof(leaves(3), 3)).toThrow("leaf 3 is not in a tree of 3");
  });
});

describe("consistency (RFC 9162 §2.1.4)", () => {
  it("every prefix of every tree up to 70 is proven", () => {
    for (const n of sizes.slice(1)) {
      const list = leaves(n);
      const newer = { size: n, root: slowHash(list) };
      for (let m = 1; m <= n; m++) {
        const older = { size: m, root: slowHash(list.slice(0, m)) };
        expect(verifyConsistency(older, newer, consistencyProof(list, m)), `${m} of ${n}`).toBe(true);
      }
    }
  });

  it("a tree that does not continue the older one is not proven", () => {
    const place = fc
      .integer({ min: 2, max: SIZE_MAX })
      .chain((n) => fc.tuple(fc.constant(n), fc.integer({ min: 1, max: n - 1 })));
    fc.assert(
      fc.property(place, fc.nat(99), ([n, m], salt) => {
        const list = leaves(n);
        const proof = consistencyProof(list, m);
        const newer = { size: n, root: slowHash(list) };
        const older = { size: m, root: slowHash(list.slice(0, m)) };
        const other = hashAs("leaf", u32le(1000 + salt));
        const forged = { size: m, root: slowHash(list.slice(0, m).with(salt % m, other)) };
        expect(verifyConsistency(forged, newer, proof)).toBe(false);
        expect(verifyConsistency(older, { size: n, root: other }, proof)).toBe(false);
        expect(verifyConsistency(older, newer, [...proof, other])).toBe(false);
        expect(verifyConsistency(older, newer, proof.slice(1))).toBe(false);
        expect(verifyConsistency({ size: n + 1, root: older.root }, newer, proof)).toBe(false);
      }),
    );
  });

  it("refuses a prefix that is none", () => {
    expect(() => consistencyProof(leaves(3), 0)).toThrow("no prefix");
    expect(() => consistencyProof(leaves(3), 4)).toThrow("no prefix");
  });
});
