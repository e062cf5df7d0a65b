/** Leaves as they travel: what is unpacked is what was packed, and one list of entries has one packed form. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { manifestLeaf, PACKED_LEAF_BYTES_MAX, packLeaves, unpackLeaves } from "../../src/merkle/manifest.ts";
import type { ManifestEntry } from "../../src/merkle/manifest.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { isShardpactError } from "../../src/model/errors.ts";
import { digestOf } from "../support/catalog.ts";

const count = fc.oneof(fc.nat(1_000), fc.nat(2 ** 40), fc.constant(Number.MAX_SAFE_INTEGER));
const totals = fc.uniqueArray(fc.nat(LIMITS.splitsMax - 1), { maxLength: LIMITS.splitsMax }).chain((splits) =>
  fc.tuple(
    ...splits
      .sort((a, b) => a - b)
      .map((split) =>
        fc.record({
          split: fc.constant(split),
          rows: count,
          bytes: count,
          shards: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
        }),
      ),
  ),
);
const manifest: fc.Arbitrary<ManifestEntry[]> = fc.array(
  fc.record({ page: fc.nat(1_000).map((n) => digestOf(String(n))), totals }),
  { minLength: 1, maxLength: 6 },
);

test("leaves come out as they went in, with the hashes that the tree is made of", () => {
  fc.assert(
    fc.property(manifest, (entries) => {
      const packed = packLeaves(entries);
      const leaves = unpackLeaves(packed);
      expect(leaves.map(({ page, totals: each }) => ({ page, totals: each }))).toEqual(entries);
      expect(leaves.map(({ hash }) => hash)).toEqual(entries.map(manifestLeaf));
      expect(packed.byteLength).toBeLessThanOrEqual(entries.length * PACKED_LEAF_BYTES_MAX);
    }),
  );
});

test("bytes that were changed or cut are refused, or are another list's (I19)", () => {
  let refused = 0;
  fc.assert(
    fc.property(manifest, fc.nat(), fc.nat(255), fc.boolean(), (entries, at, byte, cut) => {
      const packed = packLeaves(entries);
      const bytes = cut ? packed.subarray(0, at % (packed.byteLength + 1)) : packed.with(at % packed.byteLength, byte);
      try {
        expect(packLeaves(unpackLeaves(bytes))).toEqual(new Uint8Array(bytes));
      } catch (error) {
        if (!isShardpactError(error, "damaged")) throw error;
        refused++;
      }
    }),
  );
  expect(refused).toBeGreaterThan(0);
});
