/**
 * Publishes a CSV file (Seattle's weather of four years, of vega-datasets), days dealt to splits by a hash of their date, and
 * learns the kind of weather from numbers and the date: several inputs, a class column, weights for rare classes.
 * Run: npx tsx examples/train-from-csv.ts
 */
import { createRequire } from "node:module";
import path from "node:path";
import "./support/quiet.ts";
import * as tf from "@tensorflow/tfjs-node";
import { withGroup } from "./support/with-group.ts";

const vegaDatasets = path.dirname(path.dirname(createRequire(import.meta.url).resolve("vega-datasets")));
const csv = path.join(vegaDatasets, "data", "seattle-weather.csv");
const NUMBERS = ["precipitation", "temp_max", "temp_min", "wind"] as const;
const scalar = { shape: [1] } as const;
const columns = {
  xs: {
    ...Object.fromEntries(NUMBERS.map((name) => [name, scalar])),
    date: { unit: "d", since: "2012-01-01", shape: [1] }, // days since then
  },
  ys: { weather: { classes: "agreed", oneHot: true } }, // an index of the vocabulary that the version's root covers
  batchSize: 64,
} as const;

function classifier(classes: number): tf.LayersModel {
  const inputs = [...NUMBERS, "date"].map((name) => tf.input({ shape: [1], name }));
  const all = tf.layers.concatenate().apply(inputs) as tf.SymbolicTensor;
  const scaled = tf.layers.batchNormalization().apply(all) as tf.SymbolicTensor;
  const init = (seed: number) => ({ kernelInitializer: tf.initializers.glorotUniform({ seed }) });
  const hidden = tf.layers.dense({ units: 32, activation: "relu", ...init(1) }).apply(scaled) as tf.SymbolicTensor;
  const outputs = tf.layers.dense({ units: classes, activation: "softmax", ...init(2) }).apply(hidden);
  const model = tf.model({ inputs, outputs: outputs as tf.SymbolicTensor });
  model.compile({ optimizer: tf.train.adam(0.01), loss: "categoricalCrossentropy", metrics: ["accuracy"] });
  return model;
}

await withGroup(async (group) => {
  const published = await group.publish("weather", csv, {
    split: { train: 0.8, val: 0.2 },
    key: "date",
    classes: ["weather"],
  });
  const weather = await group.open(`weather@v${published.version}`);
  const classes = weather.source.classes["weather"] ?? [];
  console.log(`weather@v${weather.version}: ${JSON.stringify(weather.splits)}, classes ${classes.join(" ")}`);
  const train = weather.loader({ ...columns, split: "train", shuffle: true, seed: 3 });
  const val = weather.evaluation({ ...columns, split: "val" });
  const model = classifier(classes.length);
  try {
    const classWeight = Object.fromEntries(classes.map((name, i) => [i, name === "sun" || name === "rain" ? 1 : 1.5]));
    const fit = { epochs: 20, validationData: val, classWeight, verbose: 0, ...train.fit() };
    const { history } = await model.fitDataset(train, fit);
    console.log(`held-out accuracy: ${((history["val_acc"] as number[]).at(-1) ?? 0).toFixed(2)}`);
  } finally {
    await train.close();
    await val.close();
    model.dispose();
  }
});
