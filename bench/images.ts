/**
 * JPEG pictures to float32 batches, verified: the loader with its decoder's threads, beside tf.data with tfjs-node's decodeJpeg
 * and beside torch with Pillow. And how much of it happens on the thread that trains: that one must be free.
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as tf from "@tensorflow/tfjs-node";
import { Binary, vectorFromArray, type RecordBatch } from "apache-arrow";
import sharp from "sharp";
import type { Loader } from "../src/tfjs/loader.ts";
import { batchOf, makeVersion } from "../test/loader/support/version.ts";
import { buildPackage, built } from "./built.ts";
import { alternate, imagePeers, timed, type Run } from "./peers.ts";
import { type Figure, latency, median, rate } from "./report.ts";

const SIDE = 224;
const IMAGES = 512;
const BATCH_SIZE = 32;
const RUNS = 5;
const UNIT = "images/s";
const WIDTH = SIDE * SIDE * 3;

/** Pictures with as much detail as photos have, about 20 KB each: waves and noise. */
async function picture(i: number): Promise<Uint8Array> {
  const pixels = Buffer.alloc(WIDTH);
  let x = i + 1;
  for (let at = 0; at < WIDTH; at++) {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0;
    const place = Math.floor(at / 3);
    const wave = Math.sin((place % SIDE) / (7 + (i % 9))) + Math.cos(Math.floor(place / SIDE) / (5 + (at % 3)));
    pixels[at] = 128 + 50 * wave + (x >>> 28);
  }
  return sharp(pixels, { raw: { width: SIDE, height: SIDE, channels: 3 } })
    .jpeg({ quality: 85 })
    .toBuffer();
}

function* recordBatches(pictures: readonly Uint8Array[]): Generator<RecordBatch> {
  for (let from = 0; from < pictures.length; from += 64) {
    yield batchOf({ picture: vectorFromArray(pictures.slice(from, from + 64), new Binary()) });
  }
}

/** CPU time of the training thread so far, which Node itself does not tell; NaN where there is no /proc. */
async function threadCpuMs(): Promise<number> {
  const stat = await readFile(`/proc/self/task/${process.pid}/schedstat`, "utf8").catch(() => "NaN");
  return Number(stat.split(" ")[0]) / 1e6;
}

/** One epoch; what the training thread computed for an image goes to `threadUs`. */
const epoch = (loader: Loader, threadUs: number[]): Promise<Run> =>
  timed(async () => {
    const beforeMs = await threadCpuMs();
    for await (const batch of loader) batch[Symbol.dispose]();
    threadUs.push((((await threadCpuMs()) - beforeMs) * 1000) / IMAGES);
    return IMAGES;
  });

/** tf.data over the same bytes, already in memory; decodeJpeg runs on the thread that trains. */
async function measureTfData(pictures: readonly Uint8Array[]): Promise<Run> {
  return timed(async () => {
    const decoded = tf.data
      .array(pictures.map((_, i) => i) as unknown as tf.TensorContainer[])
      .map((i) => tf.tidy(() => tf.node.decodeJpeg(pictures[i as unknown as number] as Uint8Array, 3).toFloat()));
    let seen = 0;
    await decoded.batch(BATCH_SIZE).forEachAsync((batch) => {
      seen += (batch as tf.Tensor).shape[0] ?? 0;
      (batch as tf.Tensor).dispose();
    });
    return seen;
  });
}

export async function benchImages(note: (line: string) => void): Promise<Figure[]> {
  const pictures: Uint8Array[] = [];
  for (let i = 0; i < IMAGES; i++) pictures.push(await picture(i));
  const bytes = pictures.reduce((sum, { byteLength }) => sum + byteLength, 0);
  note(`${IMAGES} JPEG of ${SIDE} × ${SIDE}, ${Math.round(bytes / IMAGES / 1000)} KB each, batches of ${BATCH_SIZE}`);
  await using made = await makeVersion({ splits: { train: recordBatches(pictures) }, shardBytes: 64 * 1024 * 1024 });
  const xs = { picture: { image: {}, shape: [SIDE, SIDE, 3] } } as const;
  await buildPackage();
  const { createLoader } = await built<typeof import("../src/tfjs/loader.ts")>("tfjs/loader.ts");
  await using loader = createLoader(made.version, { xs, batchSize: BATCH_SIZE, shuffle: true, seed: 7 });
  const threadUs: number[] = [];
  const found = await alternate(RUNS, { ours: () => epoch(loader, threadUs), tfdata: () => measureTfData(pictures) });
  note(
    `CPU µs an image: ours ${(found.ours.cpuNs / 1000).toFixed(0)}, tf.data ${(found.tfdata.cpuNs / 1000).toFixed(0)}`,
  );
  const folder = await mkdtemp(join(tmpdir(), "shardpact-images-"));
  await Promise.all(pictures.map((data, i) => writeFile(join(folder, `${i}.jpg`), data)));
  const peers = await imagePeers(folder, BATCH_SIZE, RUNS, note);
  await rm(folder, { recursive: true });
  const { rate: ours } = found.ours;
  const against = (name: string, value: number): Figure => rate("images", "JPEG", UNIT, ours, { name, value }, null);
  for (const { name, cpu } of peers) note(`${name}: CPU µs an image ${cpu.toFixed(0)}`);
  const all = { name: "its CPU time on all threads", value: found.ours.cpuNs / 1000 };
  return [
    against("tf.data, decodeJpeg", found.tfdata.rate),
    ...peers.map(({ name, rate: value }) => against(name, value)),
    latency("images", "CPU of the training thread for an image", "µs", median(threadUs), all, null),
  ];
}
