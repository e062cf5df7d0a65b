/**
 * Positional splits, read by all ranks of a world: each rank's rows are the slow reference's, splits share no row, and
 * a row stays in its split in every version that more files were appended to.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { createHostLoader, type HostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import type { ConfirmedVersion } from "../../src/client/types.ts";
import type { Cell } from "./support/arrow-data.ts";
import { readSplits } from "./support/slow-loader.ts";
import { makeVersion, numberedBatches, type TestVersionOptions } from "./support/version.ts";

const versionDraw = fc.record({
  rows: fc.integer({ min: 1, max: 2600 }),
  more: fc.array(fc.integer({ min: 1, max: 1200 }), { minLength: 1, maxLength: 2 }),
  batchRows: fc.integer({ min: 20, max: 400 }),
  shardBytes: fc.constantFrom(1, 9_000, 1_000_000),
  pageShards: fc.constantFrom(1, 3, 100),
  shares: fc.constantFrom({ train: 0.8, val: 0.2 }, { train: 0.6, val: 0.25, test: 0.15 }, { val: 0.01 }),
});

const readDraw = fc.record({
  shuffle: fc.constantFrom<NonNullable<LoaderOptions["shuffle"]>>(
    "none",
    "block",
    { strength: "window", lanes: 8, windowBytes: 4_000_000 },
    "full",
  ),
  seed: fc.nat(),
  world: fc.constantFrom(1, 2, 3, 5),
  batchSize: fc.integer({ min: 1, max: 60 }),
  /** In steps of the epoch, where another world goes on. */
  cut: fc.double({ min: 0, max: 1, noNaN: true }),
  then: fc.record({ world: fc.constantFrom(1, 2, 4), batchSize: fc.integer({ min: 1, max: 60 }) }),
});
type ReadDraw = typeof readDraw extends fc.Arbitrary<infer T> ? T : never;

const PORTS = { ...DEFAULT_PORTS, reads: "inline", warn: () => undefined } as const;

/** Rows of up to `steps` steps of one epoch, mask applied. */
async function rowsOf(loader: HostLoader, steps: number): Promise<number[]> {
  const rows: number[] = [];
  const iterator = loader.iterate();
  for (let step = 0; step < steps; step++) {
    const batch = await iterator.next();
    if (batch === null) break;
    const { xs, mask } = batch.columns;
    const x = xs["x"]?.data ?? [];
    for (let i = 0; i < x.length; i += 3) {
      expect([x[i + 1], x[i + 2]]).toEqual([(x[i] as number) + 0.5, -(x[i] as number)]);
      if ((mask?.data[i / 3] ?? 1) === 1) rows.push(x[i] as number);
    }
    loader.ack();
  }
  return rows;
}

/** Rows that all ranks of two worlds read together: up to the cut, and from there. */
async function readTogether(version: ConfirmedVersion, split: string, draw: ReadDraw): Promise<number[]> {
  const { shuffle, seed, cut, then } = draw;
  const rows: number[] = [];
  let resume: LoaderOptions["resume"];
  for (const { world, batchSize } of [draw, then]) {
    const isFirst = resume === undefined;
    let next = resume;
    for (let rank = 0; rank < world; rank++) {
      const options = { xs: "x", split, shuffle, seed, world, rank, batchSize, last: "pad" } as const;
      await using loader = createHostLoader(version, { ...options, ...(resume ? { resume } : {}) }, PORTS);
      const steps = isFirst ? Math.floor(cut * loader.plan.steps) : Infinity;
      rows.push(...(await rowsOf(loader, steps)));
      next = loader.state();
    }
    resume = next;
    if (isFirst && resume?.epoch === 1) break; // cut at the end of the epoch
  }
  return rows;
}

const idsOf = (cells: readonly Cell[]): number[] => cells.map((cell) => (cell as readonly number[])[0] as number);
const inOrder = (rows: readonly number[]): number[] => rows.toSorted((a, b) => a - b);

test(
  "all ranks together read each row once, in its split, in a version and in those appended to it",
  { timeout: 120_000 },
  async () => {
    const property = fc.asyncProperty(versionDraw, readDraw, async (draw, read) => {
      const { rows, more, batchRows, shares, shardBytes, pageShards } = draw;
      const before = new Map<string, readonly number[]>();
      const splits: Record<string, ReturnType<typeof numberedBatches>> = { "": numberedBatches(rows, batchRows) };
      let total = rows;
      for (const [i, appended] of [0, ...more].entries()) {
        if (i > 0) splits[`more-${i}`] = numberedBatches(appended, batchRows, total);
        total += appended;
        const options: TestVersionOptions = { splits, shardBytes, pageShards, positional: shares };
        await using data = await makeVersion(options);
        const cells = await readSplits(data, ["x"]);
        const all: number[] = [];
        for (const { name, rows: count } of data.version.splits) {
          const expected = idsOf(cells[name]?.[0] ?? []);
          expect(count).toBe(expected.length);
          const got = inOrder(await readTogether(data.version, name, read));
          expect(got).toEqual(inOrder(expected));
          if (i > 0) expect(got.filter((row) => row < total - appended)).toEqual(before.get(name));
          before.set(name, got);
          all.push(...got);
        }
        expect(inOrder(all)).toEqual(Array.from({ length: total }, (_, row) => row));
      }
    });
    await fc.assert(property, { numRuns: 12 });
  },
);
