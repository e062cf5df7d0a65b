/**
 * Any columns, in any files, read in any order by any rank of any world from any cursor: what the loader delivers is what the
 * slow reference says, bit by bit, and so are its receipts.
 *
 * `SHARDPACT_PROPERTY_RUNS` sets how many datasets are drawn, `SHARDPACT_PROPERTY_SEED` repeats a run.
 */
import fc from "fast-check";
import { type DataType, Field, FixedSizeBinary, makeData, RecordBatch, Schema, Struct } from "apache-arrow";
import { expect, test } from "vitest";
import { createHostLoader, type HostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import { isShardpactError } from "../../src/model/errors.ts";
import { dataOf, type Cell } from "./support/arrow-data.ts";
import { imagePool, type ImagePool } from "./support/image-pool.ts";
import { columnDraw, makeColumn, type RandomColumn } from "./support/random-columns.ts";
import {
  firstDifference,
  readSplits,
  slowBatch,
  slowBytesDigest,
  slowOrderDigest,
  slowRefusals,
  slowSteps,
  type SlowStep,
  type WantedColumn,
} from "./support/slow-loader.ts";
import { makeVersion, type TestVersion } from "./support/version.ts";

const RUNS = Number(process.env["SHARDPACT_PROPERTY_RUNS"] ?? 40);
const SEED = process.env["SHARDPACT_PROPERTY_SEED"];

type Shares = Readonly<Record<string, number>>;

/** Shares of positional splits: given whole, or with what the others leave over. */
const sharesDraw = fc.oneof(
  fc.constantFrom<Shares>({ train: 0.6, val: 0.4 }, { train: 0.7, val: 0.2, test: 0.1 }, { all: 1 }, { val: 0.002 }),
  fc
    .tuple(fc.integer({ min: 1, max: 499_990 }), fc.integer({ min: 1, max: 499_990 }))
    .map(([val, test]): Shares => ({ val: val / 1_000_000, test: test / 1_000_000 })),
);

/** Folders of the files, with rows in each; shares are cut from files that lie in no split's folder. */
const splitsDraw = fc.oneof(
  fc.record({
    folders: fc.constantFrom<readonly string[]>([""], ["train", "val"], ["a", "b", "c"]),
    shares: fc.constant(null),
  }),
  fc.record({ folders: fc.constantFrom<readonly string[]>([""], ["a", "b", "c"]), shares: sharesDraw }),
);

const datasetDraw = fc
  .record({
    columns: fc.array(columnDraw, { minLength: 1, maxLength: 4 }),
    rows: fc.integer({ min: 1, max: 90 }),
    batchRows: fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 4 }),
    /** Bytes that a row has beside its columns: with many of them, a selection has many blocks. */
    fillerBytes: fc.constantFrom(0, 40, 20_000, 80_000),
    splits: splitsDraw,
    shardBytes: fc.constantFrom(1, 5_000, 1_000_000, 64 * 1024 * 1024),
    pageShards: fc.constantFrom(1, 3, 100),
    /** So many times the rows: files of several stripes. */
    times: fc.constantFrom(1, 1, 1, 30),
  })
  .map(({ times, ...draw }) => ({
    ...draw,
    rows: draw.rows * times,
    batchRows: draw.batchRows.map((rows) => rows * times),
    fillerBytes: Math.ceil(draw.fillerBytes / times),
  }));

const loadDraw = fc.record({
  split: fc.nat(2),
  strength: fc.constantFrom("none", "block", "window", "full"),
  lanes: fc.constantFrom(1, 2, 8, 64),
  windowBytes: fc.constantFrom(1, 4_000_000, 16_000_000),
  seed: fc.bigInt(0n, 2n ** 64n - 1n),
  world: fc.constantFrom(1, 1, 2, 3, 7),
  rank: fc.nat(6),
  batchSize: fc.integer({ min: 1, max: 50 }),
  last: fc.constantFrom("drop", "pad", undefined),
  epoch: fc.constantFrom(0, 0, 1, 5),
  offset: fc.double({ min: 0, max: 1, noNaN: true }),
  xs: fc.nat(3),
  steps: fc.integer({ min: 1, max: 12 }),
  /** Where it goes on after those steps. */
  then: fc.record({ world: fc.constantFrom(1, 2, 5), rank: fc.nat(4), batchSize: fc.integer({ min: 1, max: 30 }) }),
});
type DatasetDraw = typeof datasetDraw extends fc.Arbitrary<infer T> ? T : never;
type LoadDraw = typeof loadDraw extends fc.Arbitrary<infer T> ? T : never;

function batchesOf(
  columns: readonly RandomColumn[],
  { rows, batchRows, fillerBytes }: DatasetDraw,
  skip: number,
): RecordBatch[] {
  const filler = new FixedSizeBinary(Math.max(1, fillerBytes));
  const fields = [...columns.map(({ field }) => field), new Field("filler", filler, false)];
  const batches: RecordBatch[] = [];
  for (let at = 0, b = 0; at < rows; b++) {
    const length = Math.min(rows - at, batchRows[b % batchRows.length] as number);
    const children = columns.map(({ field, cells }) =>
      dataOf(field.type as DataType, cells.slice(skip + at, skip + at + length)),
    );
    children.push(makeData({ type: filler, length, data: new Uint8Array(length * filler.byteWidth).fill(b) }));
    batches.push(new RecordBatch(new Schema(fields), makeData({ type: new Struct(fields), length, children })));
    at += length;
  }
  return batches;
}

/** Publishes what was drawn; the columns as they are in each split, read back from the stored files. */
async function publish(
  draw: DatasetDraw,
  images: ImagePool,
): Promise<{ data: TestVersion; wanted: Record<string, WantedColumn[]> }> {
  const { folders, shares } = draw.splits;
  const columns = draw.columns.map((column, i) => makeColumn(`c${i}`, column, draw.rows * folders.length, images));
  const splits = Object.fromEntries(folders.map((name, i) => [name, batchesOf(columns, draw, i * draw.rows)]));
  const asked = columns.filter(({ classes }) => classes).map(({ slow }) => slow.name);
  const { shardBytes, pageShards } = draw;
  const classes = [...new Set(asked)];
  const data = await makeVersion({
    ...{ splits, shardBytes, pageShards, classes },
    ...(shares === null ? {} : { positional: shares }),
  });
  const found = await readSplits(
    data,
    columns.map(({ slow }) => slow.name),
  );
  const wantedOf = (cells: readonly (readonly Cell[])[]): WantedColumn[] =>
    columns.map(({ slow, shape, dtype }, c) => {
      const classes = data.version.classes[slow.name] ?? [];
      const own = shape.map((side) => (side === -1 ? classes.length : side));
      return { slow: { ...slow, classes }, shape: own, dtype, cells: cells[c] ?? [] };
    });
  return { data, wanted: Object.fromEntries(Object.entries(found).map(([name, cells]) => [name, wantedOf(cells)])) };
}

const inline = { ...DEFAULT_PORTS, reads: "inline", warn: () => undefined } as const;

/** Takes steps and holds each against the reference; ends early where the reference, too, cannot go on. */
async function follow(
  loader: HostLoader,
  columns: readonly WantedColumn[],
  xsCount: number,
  stepsMax: number,
  refusals: ReadonlySet<string>,
): Promise<boolean> {
  const { plan } = loader;
  const [xs, ys] = [columns.slice(0, xsCount), columns.slice(xsCount)];
  const { epoch, offset } = loader.state();
  const done: { step: SlowStep; columns: ReturnType<typeof slowBatch> }[] = [];
  let iterator = loader.iterate();
  for (const step of plan.steps === 0 ? [] : slowSteps(plan, epoch, offset).slice(0, stepsMax)) {
    if (done.length > 0 && step.from === 0) {
      expect(await iterator.next()).toBeNull(); // the end of the epoch
      iterator = loader.iterate();
    }
    let got;
    try {
      got = await iterator.next();
    } catch (error) {
      if (!isShardpactError(error) || !refusals.has(error.code)) throw error;
      return false;
    }
    const expected = slowBatch(plan, step, xs, ys);
    if (!got) throw new Error(`no batch at ${JSON.stringify(step)}`);
    expect([got.epoch, got.from, got.to]).toEqual([step.epoch, step.from, Math.min(step.to, plan.rows)]);
    const difference = firstDifference(got.columns, expected);
    if (difference) throw new Error(`step ${JSON.stringify(step)}: ${difference}`);
    done.push({ step, columns: expected });
    loader.ack();
  }
  const steps = done.map(({ step }) => step);
  expect(loader.receipt().orderDigest).toBe(slowOrderDigest(plan, steps));
  expect(loader.receipt().bytesDigest).toBe(slowBytesDigest(plan, done));
  return true;
}

async function load({ data, wanted }: Awaited<ReturnType<typeof publish>>, draw: LoadDraw): Promise<void> {
  const all = data.version.splits;
  const { name: split } = all[draw.split % all.length] as (typeof all)[number];
  const columns = wanted[split] ?? [];
  // Rows are looked at in blocks, as they lie in the file: also those between them that a positional split holds out.
  const isCut = data.version.splitRule.kind === "positional";
  const refusals = slowRefusals(isCut ? Object.values(wanted).flat() : columns);
  const xsCount = 1 + (draw.xs % columns.length);
  const cols = (some: readonly WantedColumn[]) => Object.fromEntries(some.map(({ slow }) => [slow.name, slow.options]));
  const ys = columns.slice(xsCount);
  const { strength, lanes, windowBytes, seed } = draw;
  const shuffle = strength === "window" ? { strength, lanes, windowBytes } : strength;
  const base = {
    xs: cols(columns.slice(0, xsCount)),
    ...(ys.length > 0 ? { ys: cols(ys) } : {}),
    split,
    shuffle,
    seed,
    receipt: "bytes",
  } as const;
  const at = (o: { world: number; rank: number; batchSize: number; resume?: LoaderOptions["resume"] }): HostLoader => {
    const { world, batchSize, rank, resume } = o;
    const last = draw.last ? { last: draw.last } : {};
    const options = {
      ...base,
      world,
      rank: rank % world,
      batchSize,
      ...last,
      ...(resume ? { resume } : {}),
    } as LoaderOptions;
    return createHostLoader(data.version, options, inline);
  };
  const fresh = at(draw).state();
  const rows = columns[0]?.cells.length ?? 0;
  const resume = { ...fresh, epoch: draw.epoch, offset: Math.floor(draw.offset * rows) };
  await using loader = at({ ...draw, resume });
  if (!(await follow(loader, columns, xsCount, draw.steps, refusals))) return;
  await using next = at({ ...draw.then, resume: loader.state() });
  await follow(next, columns, xsCount, 6, refusals);
}

test("every batch, receipt and digest is the slow reference's", { timeout: 600_000 }, async () => {
  const images = await imagePool();
  const property = fc.asyncProperty(
    datasetDraw,
    fc.array(loadDraw, { minLength: 3, maxLength: 5 }),
    async (dataset, loads) => {
      const published = await publish(dataset, images);
      try {
        for (const draw of loads) await load(published, draw);
      } finally {
        await published.data.close();
      }
    },
  );
  await fc.assert(property, { numRuns: RUNS, ...(SEED === undefined ? {} : { seed: Number(SEED) }) });
});
