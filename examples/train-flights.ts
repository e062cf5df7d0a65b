/**
 * Publishes `flights-200k.arrow` of vega-datasets as it is (real US flights) and fits a regression on it:
 * delay in minutes from distance and departure hour.
 * Held-out rows are positional (10 % of every stripe): no file is rewritten.
 * Run: npx tsx examples/train-flights.ts
 */
import { createRequire } from "node:module";
import path from "node:path";
import "./support/quiet.ts";
import * as tf from "@tensorflow/tfjs-node";
import type { Dataset } from "shardpact";
import { withGroup } from "./support/with-group.ts";

const vegaDatasets = path.dirname(path.dirname(createRequire(import.meta.url).resolve("vega-datasets")));
const flightsFile = path.join(vegaDatasets, "data", "flights-200k.arrow");
const scalar = { shape: [1] } as const;
const columns = { xs: { distance: scalar, time: scalar }, ys: { delay: scalar }, batchSize: 1024 } as const;

/** One input a column, by its name. Raw columns are scaled inside the model: the loader's bytes stay the agreed bytes. */
function regression(): tf.LayersModel {
  const inputs = ["distance", "time"].map((name) => tf.input({ shape: [1], name }));
  const both = tf.layers.concatenate().apply(inputs) as tf.SymbolicTensor;
  const scaled = tf.layers.batchNormalization().apply(both) as tf.SymbolicTensor;
  const hidden = tf.layers.dense({
    units: 32,
    activation: "relu",
    kernelInitializer: tf.initializers.heNormal({ seed: 1 }),
  });
  const output = tf.layers.dense({ units: 1, kernelInitializer: tf.initializers.glorotUniform({ seed: 2 }) });
  const outputs = output.apply(hidden.apply(scaled)) as tf.SymbolicTensor;
  const model = tf.model({ inputs, outputs });
  model.compile({ optimizer: tf.train.adam(0.01), loss: "meanSquaredError" });
  return model;
}

/** Mean squared error of always predicting the mean: what a model has to beat. From verified Arrow batches. */
async function errorOfTheMean(dataset: Dataset): Promise<number> {
  let [count, sum, squares] = [0, 0, 0];
  for await (const batch of dataset.batches({ columns: ["delay"] })) {
    for (const delay of batch.getChild("delay")!.toArray() as Int16Array) {
      count++;
      sum += delay;
      squares += delay * delay;
    }
  }
  return squares / count - (sum / count) ** 2;
}

await withGroup(async (group) => {
  const { version } = await group.publish("flights", flightsFile, { split: { train: 0.9, val: 0.1 } });
  const flights = await group.open(`flights@v${version}`);
  console.log(`flights@v${version}: ${JSON.stringify(flights.splits)}`);
  const train = flights.loader({ ...columns, split: "train", shuffle: true, seed: 1 });
  const val = flights.evaluation({ ...columns, split: "val" });
  const model = regression();
  try {
    const { history } = await model.fitDataset(train, { epochs: 3, validationData: val, verbose: 0, ...train.fit() });
    console.log(`mean squared error of predicting the mean: ${(await errorOfTheMean(flights)).toFixed(0)}`);
    console.log(
      `held-out mean squared error by epoch: ${(history["val_loss"] as number[]).map((loss) => loss.toFixed(0)).join(" ")}`,
    );
  } finally {
    await train.close();
    await val.close();
    await flights.close();
    model.dispose();
  }
});
