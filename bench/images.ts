/**
 * JPEG pictures to float32 batches, shuffled: the loader with its decoding threads (verified), beside tf.data with tfjs-node's
 * decodeJpeg, torch with Pillow, Hugging Face datasets and MosaicML streaming; each in a process of its own. And how much of
 * it happens on the thread that trains: that one must be free.
 */
import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Binary, vectorFromArray, type RecordBatch } from "apache-arrow";
import sharp from "sharp";
import type { LoaderOptions } from "../src/loader/host-loader.ts";
import { batchOf, makeVersion, type VersionData } from "../test/loader/support/version.ts";
import { buildPackage } from "./built.ts";
import { alternate, imagePeers, type Run } from "./peers.ts";
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

interface Told {
  readonly who: "ours" | "tfdata";
  readonly data: VersionData;
  readonly files: readonly string[];
  readonly options: LoaderOptions;
}

interface ChildRun extends Run {
  readonly threadMs: number;
}

/** A process that takes an epoch whenever it is asked to. */
async function startChild(told: Told): Promise<{ readonly child: ChildProcess; epoch(): Promise<ChildRun> }> {
  const child = fork(join(import.meta.dirname, "images-process.mjs"), {
    serialization: "advanced",
    execArgv: ["--expose-gc"],
    stdio: ["ignore", "ignore", "ignore", "ipc"],
  });
  const answer = async (): Promise<unknown> => {
    const ended = once(child, "exit").then(() => {
      throw new Error(`the process of ${told.who} ended`);
    });
    return ((await Promise.race([once(child, "message"), ended])) as unknown[])[0];
  };
  child.send(told);
  await answer();
  return {
    child,
    async epoch() {
      child.send("epoch");
      return (await answer()) as ChildRun;
    },
  };
}

/** Ours and tf.data in turns. CPU microseconds of the training thread for an image by name. */
async function measureChildren(told: Omit<Told, "who">) {
  const [ours, tfdata] = await Promise.all([
    startChild({ ...told, who: "ours" }),
    startChild({ ...told, who: "tfdata" }),
  ]);
  const threadUs = { ours: [] as number[], tfdata: [] as number[] };
  const epochOf =
    (name: "ours" | "tfdata", { epoch }: { epoch(): Promise<ChildRun> }) =>
    async (): Promise<Run> => {
      const run = await epoch();
      threadUs[name].push((run.threadMs * 1000) / run.amount);
      return run;
    };
  try {
    const found = await alternate(RUNS, { ours: epochOf("ours", ours), tfdata: epochOf("tfdata", tfdata) });
    const medians = { ours: median(threadUs.ours.slice(1)), tfdata: median(threadUs.tfdata.slice(1)) };
    return { found, threadUs: medians };
  } finally {
    for (const { child } of [ours, tfdata]) child.kill();
  }
}

/** Of a package that is installed here. */
async function versionOf(name: string): Promise<string> {
  const file = join(import.meta.dirname, "..", "node_modules", name, "package.json");
  return `${name} ${(JSON.parse(await readFile(file, "utf8")) as { version: string }).version}`;
}

const OURS = ["sharp", "@cornerstonejs/codec-libjpeg-turbo-8bit", "@tensorflow/tfjs-node"];

export async function benchImages(note: (line: string) => void): Promise<Figure[]> {
  const pictures: Uint8Array[] = [];
  for (let i = 0; i < IMAGES; i++) pictures.push(await picture(i));
  const bytes = pictures.reduce((sum, { byteLength }) => sum + byteLength, 0);
  note(`${IMAGES} JPEG of ${SIDE} × ${SIDE}, quality ${QUALITY}, 4:2:0, ${(bytes / IMAGES / 1000).toFixed(1)} KB each`);
  note(`all: shuffled, batches of ${BATCH_SIZE} × ${SIDE} × ${SIDE} × 3 float32; medians of ${RUNS} epochs after one`);
  note(`ours: ${(await Promise.all(OURS.map(versionOf))).join(", ")}`);
  await buildPackage();
  await using made = await makeVersion({ splits: { train: recordBatches(pictures) }, shardBytes: 64 * 1024 * 1024 });
  const folder = await mkdtemp(join(tmpdir(), "shardpact-images-"));
  try {
    const files = pictures.map((_, i) => join(folder, "jpeg", `${i}.jpg`));
    await mkdir(join(folder, "jpeg"));
    await Promise.all(files.map((file, i) => writeFile(file, pictures[i] as Uint8Array)));
    const xs = { picture: { image: {}, shape: [SIDE, SIDE, 3] } } as const;
    const options = { xs, batchSize: BATCH_SIZE, shuffle: true, seed: 7 };
    const { found, threadUs } = await measureChildren({ data: made.data, files, options });
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
