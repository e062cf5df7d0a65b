/**
 * JPEG pictures to float32 batches, shuffled: the loader with its decoding threads (verified), beside tf.data with tfjs-node's
 * decodeJpeg, torch with Pillow, Hugging Face datasets and MosaicML streaming; each in a process of its own. And how much of
 * it happens on the thread that trains: that one must be free.
 */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Binary, vectorFromArray, type RecordBatch } from "apache-arrow";
import sharp from "sharp";
import { batchOf, makeVersion, type VersionData } from "../test/loader/support/version.ts";
import { buildPackage, versionsOf } from "./built.ts";
import type { ClientRun } from "./loader-client.ts";
import { startClient, type LoaderClient } from "./loader-clients.ts";
import { alternate, imagePeers } from "./peers.ts";
import { type Figure, latency, median, rate } from "./report.ts";

const SIDE = 224;
const IMAGES = 512;
const BATCH_SIZE = 32;
const RUNS = 5;
const UNIT = "images/s";
const WIDTH = SIDE * SIDE * 3;
const QUALITY = 85;

/** Pictures of waves and noise, with about as much detail as photos have. */
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
    .jpeg({ quality: QUALITY })
    .toBuffer();
}

function* recordBatches(pictures: readonly Uint8Array[]): Generator<RecordBatch> {
  for (let from = 0; from < pictures.length; from += 64) {
    yield batchOf({ picture: vectorFromArray(pictures.slice(from, from + 64), new Binary()) });
  }
}

/** Ours and tf.data in turns. CPU microseconds of the training thread for an image by name. */
async function measureOurs(data: VersionData, files: readonly string[]) {
  const xs = { picture: { image: {}, shape: [SIDE, SIDE, 3] } } as const;
  const options = { xs, batchSize: BATCH_SIZE, shuffle: true, seed: 7 };
  await using loader = startClient({
    kind: "loader",
    data,
    options,
    hashing: "blake3",
    ends: "tensors",
    counts: "samples",
  });
  await using decodeJpeg = startClient({ kind: "pictures", files, batchSize: BATCH_SIZE });
  const threadUs = { ours: [] as number[], tfdata: [] as number[] };
  const runOf = (name: "ours" | "tfdata", client: LoaderClient) => async (): Promise<ClientRun> => {
    const run = await client.run();
    threadUs[name].push((run.threadMs * 1000) / run.amount);
    return run;
  };
  const found = await alternate(RUNS, { ours: runOf("ours", loader), tfdata: runOf("tfdata", decodeJpeg) });
  return { found, threadUs: { ours: median(threadUs.ours.slice(1)), tfdata: median(threadUs.tfdata.slice(1)) } };
}

const OURS = ["sharp", "@cornerstonejs/codec-libjpeg-turbo-8bit", "@tensorflow/tfjs-node"];

export async function benchImages(note: (line: string) => void): Promise<Figure[]> {
  const pictures: Uint8Array[] = [];
  for (let i = 0; i < IMAGES; i++) pictures.push(await picture(i));
  const bytes = pictures.reduce((sum, { byteLength }) => sum + byteLength, 0);
  note(`${IMAGES} JPEG of ${SIDE} × ${SIDE}, quality ${QUALITY}, 4:2:0, ${(bytes / IMAGES / 1000).toFixed(1)} KB each`);
  note(`all: shuffled, batches of ${BATCH_SIZE} × ${SIDE} × ${SIDE} × 3 float32; medians of ${RUNS} runs after one`);
  note(`ours: ${await versionsOf(...OURS)}`);
  await buildPackage();
  await using made = await makeVersion({ splits: { train: recordBatches(pictures) }, shardBytes: 64 * 1024 * 1024 });
  const folder = await mkdtemp(join(tmpdir(), "shardpact-images-"));
  try {
    const files = pictures.map((_, i) => join(folder, "jpeg", `${i}.jpg`));
    await mkdir(join(folder, "jpeg"));
    await Promise.all(files.map((file, i) => writeFile(file, pictures[i] as Uint8Array)));
    const { found, threadUs } = await measureOurs(made.data, files);
    const us = ({ cpuNs }: { cpuNs: number }): string => (cpuNs / 1000).toFixed(0);
    note(`CPU µs an image: ours ${us(found.ours)}, of which the training thread ${threadUs.ours.toFixed(0)}`);
    note(`CPU µs an image: tf.data ${us(found.tfdata)}, of which the training thread ${threadUs.tfdata.toFixed(0)}`);
    const peers = await imagePeers(join(folder, "jpeg"), BATCH_SIZE, RUNS, note);
    for (const { name, cpu } of peers) note(`CPU µs an image: ${name} ${cpu.toFixed(0)}`);
    const against = (name: string, value: number): Figure =>
      rate("images", "JPEG", UNIT, found.ours.rate, { name, value }, null);
    const cost = (name: string, value: number): Figure =>
      latency("images", "CPU time of an image", "µs", found.ours.cpuNs / 1000, { name, value }, null);
    return [
      against("tf.data, decodeJpeg", found.tfdata.rate),
      ...peers.map(({ name, rate: value }) => against(name, value)),
      cost("tf.data, decodeJpeg", found.tfdata.cpuNs / 1000),
      ...peers.map(({ name, cpu }) => cost(name, cpu)),
      latency(
        "images",
        "of it the training thread",
        "µs",
        threadUs.ours,
        { name: "tf.data", value: threadUs.tfdata },
        null,
      ),
    ];
  } finally {
    await rm(folder, { recursive: true });
  }
}
