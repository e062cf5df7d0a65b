import fc from "fast-check";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { hashBytes } from "../../src/merkle/hash.ts";
import { fromHex, toHex } from "../../src/model/bytes.ts";
import type { OrderSpec } from "../../src/model/commands.ts";
import { createEpochOrder, type OrderInput } from "../../src/loader/order/order.ts";
import { sliceStep, stepAt, stepsLeft, type LastRule } from "../../src/loader/order/slices.ts";
import { blockRows, parseSeed, resolveOrder } from "../../src/loader/order/spec.ts";
import { slowOrder, slowSlice } from "./support/slow-order.ts";

interface Vector {
  readonly N: number;
  readonly n: number;
  readonly K: number;
  readonly g: number;
  readonly seed: string;
  readonly epoch: string;
  readonly first: readonly number[];
  readonly blake3: string;
}
const vectors = JSON.parse(readFileSync(new URL("order-vectors.json", import.meta.url), "utf8")) as {
  readonly root: string;
  readonly selection: string;
  readonly vectors: readonly Vector[];
};
const root = fromHex(vectors.root);
const selection = fromHex(vectors.selection);

test.each(vectors.vectors)("golden vector N=$N n=$n K=$K g=$g seed=$seed epoch=$epoch", (vector) => {
  const { n, K, g, seed } = vector;
  const order: OrderSpec = { alg: "sp-order/1", strength: "window", seed, n, K, g };
  const epoch = createEpochOrder({ root, selection, rows: vector.N, order }, BigInt(vector.epoch));
  const rows = new Uint32Array(vector.N);
  for (let p = 0; p < vector.N; p++) rows[p] = epoch.rowAt(p);
  expect([...rows.subarray(0, vector.first.length)]).toEqual(vector.first);
  expect(toHex(hashBytes(new Uint8Array(rows.buffer)))).toBe(vector.blake3);
});

const shape = fc.record({
  rows: fc.integer({ min: 1, max: 700 }),
  strength: fc.constantFrom<OrderSpec["strength"]>("none", "block", "window", "full"),
  n: fc.integer({ min: 1, max: 50 }),
  lanesLog: fc.integer({ min: 0, max: 6 }),
  g: fc.integer({ min: 1, max: 5 }),
  seed: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  epoch: fc.integer({ min: 0, max: 2 ** 40 }),
});

function inputOf(s: {
  rows: number;
  strength: OrderSpec["strength"];
  n: number;
  lanesLog: number;
  g: number;
  seed: bigint;
}) {
  const lanes = s.strength === "window" ? { K: 2 ** s.lanesLog, g: s.g } : { K: 1, g: 1 };
  const order: OrderSpec = { alg: "sp-order/1", strength: s.strength, seed: String(s.seed), n: s.n, ...lanes };
  return { root, selection, rows: s.rows, order } satisfies OrderInput;
}

test("every order is a bijection and equals the slow reference", () => {
  fc.assert(
    fc.property(shape, (s) => {
      const input = inputOf(s);
      const order = createEpochOrder(input, s.epoch);
      const rows = Array.from({ length: s.rows }, (_, p) => order.rowAt(p));
      expect(new Set(rows).size).toBe(s.rows);
      expect(rows).toEqual(slowOrder(input, s.epoch));
    }),
    { numRuns: 300 },
  );
});

test("slices of all ranks are the step's positions, sorted by lane, whatever the world, batch and last rule", () => {
  const split = fc.record({
    world: fc.integer({ min: 1, max: 9 }),
    batch: fc.integer({ min: 1, max: 40 }),
    last: fc.constantFrom<LastRule>("partial", "drop", "pad"),
    offset: fc.integer({ min: 0, max: 700 }),
  });
  fc.assert(
    fc.property(shape, split, (s, { world, batch, last, offset }) => {
      fc.pre(last !== "partial" || world === 1);
      const input = inputOf(s);
      const reference = slowOrder(input, s.epoch);
      const orders = Array.from({ length: world }, () => createEpochOrder(input, s.epoch));
      let from = Math.min(offset, s.rows);
      let steps = stepsLeft(s.rows, from, world * batch, last);
      for (
        let step = stepAt(s.rows, from, world * batch, last);
        step;
        step = stepAt(s.rows, from, world * batch, last)
      ) {
        steps--;
        orders.forEach((order, rank) => {
          const slice = sliceStep(order, step, rank, world);
          const slow = slowSlice(reference, input.order.K, step, rank, world);
          expect([...slice.rows]).toEqual(slow.rows);
          expect(slice.mask ? [...slice.mask] : slow.rows.map(() => 1)).toEqual(slow.mask);
        });
        from = step.to;
      }
      expect(steps).toBe(0);
      if (last === "drop") expect(s.rows - from).toBeLessThan(world * batch);
      else expect(from).toBeGreaterThanOrEqual(s.rows);
    }),
    { numRuns: 200 },
  );
});

test("orders beyond 2^32 rows stay exact, and the last rows are reached", () => {
  const rows = 2 ** 33 + 5;
  const order: OrderSpec = { alg: "sp-order/1", strength: "window", seed: "7", n: 4096, K: 64, g: 4 };
  const epoch = createEpochOrder({ root, selection, rows, order }, 0);
  const seen = new Set<number>();
  for (let p = rows - 20_000; p < rows; p++) seen.add(epoch.rowAt(p));
  expect(seen.size).toBe(20_000);
  expect(Math.max(...seen)).toBeGreaterThan(2 ** 32);
  expect(Math.max(...seen)).toBeLessThan(rows);
});

test("order options resolve from totals alone", () => {
  expect(blockRows(1_000_000, 256_000_000)).toBe(4096);
  expect(blockRows(10, 10)).toBe(65_536);
  expect(blockRows(3, 3 * 2 ** 21)).toBe(1);
  const big = 2 ** 40;
  expect(resolveOrder(2 ** 32, big, true, 7n)).toEqual({
    alg: "sp-order/1",
    strength: "window",
    seed: "7",
    n: 4096,
    K: 64,
    g: 4,
  });
  expect(resolveOrder(1000, 256_000, true, 7n)).toMatchObject({ strength: "full", K: 1, g: 1 });
  expect(resolveOrder(1000, 256_000, undefined, 0n)).toMatchObject({ strength: "none" });
  expect(resolveOrder(1000, 2 ** 30, { strength: "window", windowBytes: 2 ** 22, lanes: 4 }, 0n)).toMatchObject({
    K: 4,
    g: 1,
  });
  expect(() => resolveOrder(1000, 1000, { strength: "window", lanes: 3 }, 0n)).toThrow(/power of two/);
  expect(() => parseSeed(-1)).toThrow(/seed/);
  expect(() => parseSeed(1.5)).toThrow(/seed/);
  expect(parseSeed("18446744073709551615")).toBe(2n ** 64n - 1n);
});
