import fc from "fast-check";
import { expect, test } from "vitest";
import { createArena, parcelCost, type Parcel } from "../../src/loader/fetch/arena.ts";

const PAGE = 4096;

test("parcels never overlap, take no more than there is, and what is given back can be taken again in one piece", () => {
  const steps = fc.array(fc.record({ bytes: fc.nat(20 * PAGE), give: fc.nat() }), { minLength: 1, maxLength: 200 });
  fc.assert(
    fc.property(steps, (all) => {
      const arena = createArena(64 * PAGE + 100);
      const held: Parcel[] = [];
      for (const { bytes, give } of all) {
        const parcel = arena.take(bytes);
        if (parcel) {
          expect(parcel.bytes.byteLength).toBe(parcelCost(bytes));
          const [from, to] = [parcel.bytes.byteOffset, parcel.bytes.byteOffset + parcel.cost];
          for (const { bytes: b, cost } of held) {
            expect(b.buffer !== parcel.bytes.buffer || to <= b.byteOffset || from >= b.byteOffset + cost).toBe(true);
          }
          held.push(parcel);
        }
        expect(held.reduce((sum, { cost }) => sum + cost, 0)).toBeLessThanOrEqual(64 * PAGE);
        if (give % 3 === 0 || !parcel) held.splice(give % Math.max(1, held.length), 1).forEach((p) => arena.give(p));
      }
      held.forEach((parcel) => arena.give(parcel));
      expect(arena.take(64 * PAGE)?.cost).toBe(64 * PAGE);
      expect(arena.take(1)).toBeNull();
    }),
  );
});

test("views start at a multiple of a page, in memory that threads share; a closed arena has none", () => {
  const arena = createArena(10 * PAGE);
  const parcels = [arena.take(1), arena.take(PAGE + 1), arena.take(0)];
  expect(parcels.map((p) => p?.bytes.byteOffset)).toEqual([0, PAGE, 3 * PAGE]);
  expect((parcels[0]?.bytes.buffer as unknown) instanceof SharedArrayBuffer).toBe(true);
  arena.close();
  expect(arena.take(1)).toBeNull();
  parcels.forEach((parcel) => parcel && arena.give(parcel));
  expect(arena.take(1)).toBeNull();
});
