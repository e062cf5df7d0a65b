import { expect, it } from "vitest";
import type { ReceiptRow, RunRow } from "../../src/catalog/rows.ts";
import { rowKey } from "../../src/catalog/view.ts";
import { encodeApi } from "../../src/model/api.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { answerQuery } from "../../src/storage/answer-query.ts";
import { createMemorySource } from "../../src/storage/memory/catalog-source.ts";
import { createMemoryDisk, rowsIn } from "../../src/storage/memory/disk.ts";

/** A run with receipts of these sizes, at indexes 10, 11, … */
function runWith(sizes: readonly number[]) {
  const disk = createMemoryDisk();
  const run = { table: "run", run: "r", plan: {}, index: 3, endIndex: null, outcome: null } as unknown as RunRow;
  rowsIn(disk, "run").set(rowKey(run), run);
  for (const [i, bytes] of sizes.entries()) {
    const row: ReceiptRow = {
      table: "receipt",
      run: "r",
      rank: 0,
      index: 10 + i,
      timeMs: 1,
      receipt: { x: "y".repeat(bytes) },
    };
    rowsIn(disk, "receipt").set(rowKey(row), row);
  }
  return createMemorySource(disk, 10_000);
}

/** Indexes answer by answer, as a reader asks on. */
async function readAll(sizes: readonly number[]): Promise<number[][]> {
  const source = runWith(sizes);
  const pages: number[][] = [];
  for (let after = 0; ;) {
    const answer = await answerQuery(source, { kind: "receipts", run: "r", after });
    if (answer.kind !== "rows") throw new Error("no rows");
    expect(encodeApi(answer).byteLength).toBeLessThan(LIMITS.messageBytesMax);
    if (answer.rows.length === 0) return pages;
    pages.push(answer.rows.map((row) => Number(row["index"])));
    after = pages.at(-1)?.at(-1) ?? 0;
  }
}

it("receipts come by index, as many at a time as an answer holds, none left out", async () => {
  const large = 100 * 1024;
  expect(await readAll([])).toEqual([]);
  expect(await readAll([10, 10, 10])).toEqual([[10, 11, 12]]);
  expect(await readAll([large, large, large, 10])).toEqual([
    [10, 11],
    [12, 13],
  ]);
  const whole = LIMITS.commandBytesMax;
  expect(await readAll([whole, whole, 10])).toEqual([[10], [11], [12]]);
  const many = await readAll(Array<number>(150).fill(10));
  expect(many.map((page) => page.length)).toEqual([64, 64, 22]);
  expect(many.flat()).toEqual(Array.from({ length: 150 }, (_, i) => 10 + i));
});

it("a run's answer holds its newest receipts, as far as they fit", async () => {
  const answer = await answerQuery(runWith(Array<number>(9).fill(100 * 1024)), { kind: "run", run: "r" });
  if (answer.kind !== "rows") throw new Error("no rows");
  expect(answer.rows.map((row) => row["index"])).toEqual([3, 18, 17]);
  expect(await answerQuery(runWith([]), { kind: "receipts", run: "s", after: 0 })).toMatchObject({ kind: "not_found" });
});
