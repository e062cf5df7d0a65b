/**
 * The copy of rows in WebAssembly: what it copies is what a loop would, and what runs is what its text says.
 */
import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { expect, test } from "vitest";
import wabt from "wabt";
import { COPIER_BYTES, createRowCopier } from "../../src/loader/columns/copy-rows.ts";
import { COPY_ROWS_WASM } from "../../src/loader/columns/copy-rows-wasm.ts";
import type { Runs } from "../../src/loader/columns/runs.ts";
import type { ColumnSource } from "../../src/loader/columns/source.ts";
import { createArena } from "../../src/loader/fetch/arena.ts";

const MiB = 1024 * 1024;
const TEXT = new URL("../../src/loader/columns/copy-rows.wat", import.meta.url);

test("the bytes in the source are those of copy-rows.wat", async () => {
  const assembler = await wabt();
  const text = await readFile(TEXT, "utf8");
  const parsed = assembler.parseWat("copy-rows.wat", text, { simd: true, threads: true, bulk_memory: true });
  const { buffer } = parsed.toBinary({});
  parsed.destroy();
  expect(COPY_ROWS_WASM).toBe(Buffer.from(buffer).toString("base64"));
});

const arena = createArena(16 * MiB);
const { memory } = arena;
if (!memory) throw new Error("this host has shared memory of WebAssembly");
const copier = createRowCopier(memory, arena.take(COPIER_BYTES)?.bytes as Uint8Array);
const plain = { validity: [], textOf: null, bytesOf: null, present: null };

/** Sources of `rows` rows each, at odd places of the arena, every value another one. */
function sourcesOf(count: number, rows: number, width: number): ColumnSource[] {
  return Array.from({ length: count }, (_, s) => {
    const parcel = arena.take(rows * width * 4 + 64)?.bytes as Uint8Array;
    const values = new Float32Array(parcel.buffer, parcel.byteOffset + 4 * (s % 16), rows * width);
    for (let i = 0; i < values.length; i++) values[i] = s * 1e6 + i;
    arena.give({ bytes: parcel, cost: Math.ceil((rows * width * 4 + 64) / 4096) * 4096 });
    return { ...plain, values };
  });
}

const runsOf = (list: readonly (readonly [source: number, first: number, length: number])[]): Runs => ({
  count: list.length,
  rows: list.reduce((sum, [, , length]) => sum + length, 0),
  source: Uint32Array.from(list, ([source]) => source),
  first: Uint32Array.from(list, ([, first]) => first),
  length: Uint32Array.from(list, ([, , length]) => length),
});

function slowCopy(sources: readonly ColumnSource[], runs: Runs, width: number): Float32Array {
  const out = new Float32Array(runs.rows * width);
  let at = 0;
  for (let r = 0; r < runs.count; r++) {
    const { values } = sources[runs.source[r] as number] as ColumnSource;
    const from = (runs.first[r] as number) * width;
    const end = from + (runs.length[r] as number) * width;
    for (let i = from; i < end; i++) out[at++] = values[i] as number;
  }
  return out;
}

test("any runs of any sources, long lists and long runs included", () => {
  const ROWS = 40;
  const run = fc.tuple(fc.nat(), fc.nat(ROWS - 1), fc.nat({ max: ROWS }));
  const input = fc.record({
    width: fc.oneof(fc.integer({ min: 1, max: 70 }), fc.constantFrom(256, 257, 784, 4099)),
    count: fc.integer({ min: 1, max: 5 }),
    runs: fc.array(run, { minLength: 1, maxLength: 60 }),
    times: fc.constantFrom(1, 1, 1, 100),
  });
  fc.assert(
    fc.property(input, ({ width, count, runs: some, times }) => {
      const sources = sourcesOf(count, ROWS, width);
      const list = some.map(([s, first, length]) => [s % count, first, 1 + (length % (ROWS - first))] as const);
      const isMany = times > 1 && width <= 8;
      const runs = runsOf(isMany ? Array.from({ length: times }, () => list).flat() : list);
      const out = new Float32Array(runs.rows * width).fill(-1);
      expect(copier.reaches(sources)).toBe(true);
      copier.copy(sources, runs, width, out);
      expect(Buffer.compare(new Uint8Array(out.buffer), new Uint8Array(slowCopy(sources, runs, width).buffer))).toBe(0);
    }),
    { numRuns: 300 },
  );
});

test("bits of a float stay as they are, NaN's too", () => {
  const [source] = sourcesOf(1, 2, 16) as [ColumnSource];
  const bits = new Uint32Array(source.values.buffer, source.values.byteOffset, 32).fill(0x7fa0_0001);
  const out = new Float32Array(32);
  const rows = [1, 0].map((first) => [0, first, 1] as const);
  copier.copy([source], runsOf(rows), 16, out);
  expect(new Uint32Array(out.buffer)).toEqual(Uint32Array.from(bits));
});

test("a run beyond its source is refused, and sources elsewhere or with nulls are not reached", () => {
  const [source] = sourcesOf(1, 10, 16) as [ColumnSource];
  const copy = (first: number, length: number) =>
    copier.copy([source], runsOf([[0, first, length]]), 16, new Float32Array(length * 16));
  expect(() => copy(9, 2)).toThrow("a run lies in its source");
  expect(() => copy(10, 1)).toThrow("a run lies in its source");
  expect(copier.reaches([source, { ...plain, values: new Float32Array(160) }])).toBe(false);
  const nulls = { bits: new Uint8Array(2), offset: 0, per: 1, isOfItems: false };
  expect(copier.reaches([{ ...source, validity: [nulls] }])).toBe(false);
});

test("sources, the list and the scratch buffer beyond 2³¹ of the memory, up to its last row", () => {
  const large = createArena(65_535 * 65_536);
  if (!large.memory) throw new Error("this host has four gigabytes of addresses");
  large.take(2 ** 31 + 12 * 4096); // untouched: it takes addresses and no memory
  const high = createRowCopier(large.memory, large.take(COPIER_BYTES)?.bytes as Uint8Array);
  const [first, width] = [large.take(MiB)?.bytes as Uint8Array, 64];
  large.take(65_535 * 65_536 - first.byteOffset - 2 * MiB);
  const last = large.take(MiB)?.bytes as Uint8Array;
  expect([first.byteOffset > 2 ** 31, last.byteOffset + last.byteLength]).toEqual([true, 65_535 * 65_536]);
  const sources = [first, last].map((bytes, s) => {
    const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    for (let i = 0; i < values.length; i++) values[i] = s * 2 ** 20 + i;
    return { ...plain, values };
  });
  const rows = MiB / (4 * width);
  const runs = runsOf(Array.from({ length: 500 }, (_, i) => [i % 2, rows - 1 - i, 1]));
  const out = new Float32Array(runs.rows * width);
  expect(high.reaches(sources)).toBe(true);
  high.copy(sources, runs, width, out);
  expect(out).toEqual(slowCopy(sources, runs, width));
});
