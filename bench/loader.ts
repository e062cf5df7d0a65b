/**
 * Loader samples per second, verified, beside the same loader with a null hasher and beside tf.data's rows → batch,
 * over the same rows of 64 float32 from a warm page cache. Alternating runs, medians.
 */
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { FixedSizeList, Float32, Field, makeData, makeVector, type RecordBatch } from "apache-arrow";
import type { ConfirmedVersion } from "../src/client/types.ts";
import { DEFAULT_PORTS, type LoaderPorts } from "../src/loader/internal.ts";
import { createLoaderWith } from "../src/tfjs/loader.ts";
import { batchOf, makeVersion } from "../test/loader/support/version.ts";
import { type Figure, median, rate } from "./report.ts";
import { measureTfData } from "./tfdata.ts";

const WIDTH = 64;
const ROWS = 1_200_000; // 307 MB: more than the shuffle window, so that windows are really used
const ROWS_PER_RECORD_BATCH = 4096;
const BATCH_SIZE = 256;
const RUNS = 5;
const TFDATA_ROWS = 20_000;
const SHARD_BYTES = 64 * 1024 * 1024;

const UNVERIFIED: LoaderPorts = { ...DEFAULT_PORTS, hashing: "none" };

function* recordBatches(): Generator<RecordBatch> {
  const type = new FixedSizeList(WIDTH, new Field("item", new Float32(), false));
  for (let from = 0; from < ROWS; from += ROWS_PER_RECORD_BATCH) {
    const length = Math.min(ROWS_PER_RECORD_BATCH, ROWS - from);
    const values = new Float32Array(length * WIDTH);
    for (let i = 0; i < values.length; i++) values[i] = (from + i) % 9973;
    const child = makeData({ type: new Float32(), length: values.length, data: values });
    yield batchOf({ x: makeVector(makeData({ type, length, child })) });
  }
}

/** Samples per second over one epoch, tensors made and disposed. */
async function epoch(version: ConfirmedVersion, strength: "none" | "window", ports: LoaderPorts): Promise<number> {
  const loader = createLoaderWith(version, { xs: "x", batchSize: BATCH_SIZE, shuffle: strength, seed: 7 }, ports);
  const startedMs = performance.now();
  let samples = 0;
  for await (const batch of loader) {
    samples += BATCH_SIZE;
    batch[Symbol.dispose]();
  }
  const perSecond = Math.min(samples, ROWS) / ((performance.now() - startedMs) / 1000);
  await loader.close();
  return perSecond;
}

async function largestFile(dir: string): Promise<string> {
  const files = (await readdir(dir, { recursive: true, withFileTypes: true })).filter((f) => f.isFile());
  const sized = await Promise.all(
    files.map(async (f) => ({
      file: path.join(f.parentPath, f.name),
      bytes: (await stat(path.join(f.parentPath, f.name))).size,
    })),
  );
  return sized.toSorted((a, b) => b.bytes - a.bytes)[0]!.file;
}

export async function benchLoader(note: (line: string) => void): Promise<Figure[]> {
  note(`${ROWS.toLocaleString("en")} rows of ${WIDTH} float32, batches of ${BATCH_SIZE}, ${RUNS} alternating runs`);
  await using made = await makeVersion({ splits: { train: [...recordBatches()] }, shardBytes: SHARD_BYTES });
  const file = await largestFile(made.store);
  const figures: Figure[] = [];
  for (const strength of ["none", "window"] as const) {
    const shuffled = strength === "window";
    const name = shuffled ? "window-shuffled" : "contiguous";
    const verified: number[] = [];
    const unverified: number[] = [];
    const tfdata: number[] = [];
    await epoch(made.version, strength, DEFAULT_PORTS); // warm-up
    for (let run = 0; run < RUNS; run++) {
      verified.push(await epoch(made.version, strength, DEFAULT_PORTS));
      unverified.push(await epoch(made.version, strength, UNVERIFIED));
      tfdata.push(await measureTfData(file, "x", WIDTH, BATCH_SIZE, TFDATA_ROWS, shuffled));
    }
    const ours = median(verified);
    const unit = "samples/s";
    figures.push(
      rate(
        "loader",
        `${name}, verified`,
        unit,
        ours,
        { name: "the same without hashing", value: median(unverified) },
        shuffled ? 0.9 : null,
      ),
    );
    figures.push(
      rate(
        "loader",
        `${name}, verified`,
        unit,
        ours,
        { name: "tf.data rows → batch", value: median(tfdata) },
        shuffled ? 35 : 30,
      ),
    );
  }
  return figures;
}
