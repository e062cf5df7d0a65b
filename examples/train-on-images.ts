/**
 * Publishes a folder of PNG files, `train/<class>/*.png` and `val/<class>/*.png`, as it is. The loader decodes beside the
 * training step, and shifts each picture by random numbers that belong to seed, epoch and row: the same at every world
 * size, and after a restart.
 * Run: npx tsx examples/train-on-images.ts
 */
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import "./support/quiet.ts";
import * as tf from "@tensorflow/tfjs-node";
import type { LoaderOptions } from "shardpact";
import { digitModel } from "./support/digit-model.ts";
import { readDigits } from "./support/digits.ts";
import { withGroup } from "./support/with-group.ts";

const SIDE = 28;
const ACCURACY_MIN = 0.85;
const columns = {
  xs: { image: { image: { channels: 1, scale: 1 / 255 }, shape: [SIDE, SIDE, 1] } },
  ys: { label: { classes: "agreed", oneHot: true } },
} as const;

/** Every fifth picture is held out. */
async function writePngs(folder: string, count: number): Promise<string> {
  const { pixels, labels } = await readDigits();
  for (let row = 0; row < count; row++) {
    const image = tf.tidy(() =>
      tf
        .tensor3d(pixels.subarray(row * SIDE ** 2, (row + 1) * SIDE ** 2), [SIDE, SIDE, 1])
        .mul(255)
        .toInt(),
    );
    const file = path.join(folder, Math.floor(row / 10) % 5 === 0 ? "val" : "train", String(labels[row]), `${row}.png`);
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, await tf.node.encodePng(image as tf.Tensor3D));
    image.dispose();
  }
  return folder;
}

/** Moves each picture by up to two pixels. */
const shift: NonNullable<LoaderOptions["map"]> = (batch, { rng }) => {
  const images = batch.xs["image"]!;
  const from = images.data as Float32Array;
  const data = new Float32Array(from.length);
  for (let row = 0; row < images.shape[0]!; row++) {
    const random = rng(row);
    const by = (random.integer(5) - 2) * SIDE + random.integer(5) - 2;
    const first = row * SIDE ** 2;
    for (let i = Math.max(0, by); i < Math.min(SIDE ** 2, SIDE ** 2 + by); i++) data[first + i] = from[first + i - by]!;
  }
  return { ...batch, xs: { image: { ...images, data } } };
};

await withGroup(async (group, scratchDir) => {
  const { version } = await group.publish("pictures", await writePngs(path.join(scratchDir, "pictures"), 2_500));
  const pictures = await group.open(`pictures@v${version}`);
  console.log(`pictures@v${version}: ${JSON.stringify(pictures.splits)}`);
  const train = pictures.loader({ ...columns, batchSize: 32, split: "train", shuffle: true, seed: 5, map: shift });
  const val = pictures.evaluation({ ...columns, batchSize: 100, split: "val" });
  const model = digitModel();
  try {
    const { history } = await model.fitDataset(train, { epochs: 4, validationData: val, verbose: 0, ...train.fit() });
    const accuracy = (history["val_acc"] as number[]).at(-1) ?? 0;
    console.log(`held-out accuracy: ${accuracy.toFixed(2)}`);
    if (accuracy < ACCURACY_MIN) throw new Error(`accuracy ${accuracy} is below ${ACCURACY_MIN}`);
  } finally {
    await train.close();
    await val.close();
    model.dispose();
  }
});
