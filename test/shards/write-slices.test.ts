/**
 * Record batches that are slices of others, of columns of any type: what is written is what the slice holds.
 */
import { type DataType, makeData, RecordBatch, Schema, Struct, tableFromIPC } from "apache-arrow";
import { expect, test } from "vitest";
import { hashBytes } from "../../src/merkle/hash.ts";
import { createRng } from "../../src/merkle/rng.ts";
import { utf8 } from "../../src/model/bytes.ts";
import { canonicalSchema, schemaFromCanonical } from "../../src/shards/schema.ts";
import { encodeShard } from "../../src/shards/write.ts";
import { cellsOf, dataOf } from "../loader/support/arrow-data.ts";
import { KINDS } from "../loader/support/column-kinds.ts";
import { imagePool } from "../loader/support/image-pool.ts";
import { makeColumn, randomDraw } from "../loader/support/random-columns.ts";

const ROWS = 23;

test("slices of every kind of column, nested and with nulls, are written as they are", async () => {
  const images = await imagePool();
  const rng = createRng(hashBytes(utf8("slices")));
  for (const kind of Object.keys(KINDS)) {
    for (let n = 0; n < 8; n++) {
      const { field, cells } = makeColumn("c", { ...randomDraw(rng), kind }, ROWS, images);
      const children = [dataOf(field.type as DataType, cells)];
      const whole = new RecordBatch(
        new Schema([field]),
        makeData({ type: new Struct([field]), length: ROWS, children }),
      );
      const from = Math.floor(rng.uniform() * ROWS);
      const to = from + 1 + Math.floor(rng.uniform() * (ROWS - from));
      const parts = [whole.slice(from, to), whole.slice(0, 1 + from)];
      const bytes = encodeShard(schemaFromCanonical(canonicalSchema(whole.schema)), parts);
      const got = tableFromIPC(bytes).batches.map((batch) => cellsOf(batch, "c"));
      expect(got[0], `${String(field.type)} [${from}, ${to})`).toEqual(cellsOf(parts[0] as RecordBatch, "c"));
      expect(got[1], String(field.type)).toEqual(cellsOf(parts[1] as RecordBatch, "c"));
    }
  }
});
