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
import { withGroup } from "./support/with-group.ts";

const flightsFile = path.join(
  path.dirname(createRequire(import.meta.url).resolve("vega-datasets/package.json")),
  "data/flights-200k.arrow",
);
const columns = { xs: ["distance", "time"], ys: "delay", batchSize: 1024 } as const;

/** Scales raw columns inside the model, so that the loader's bytes stay the agreed bytes. */
function regression(): tf.Sequential {
  const model = tf.sequential({
    layers: [
      tf.layers.batchNormalization({ inputShape: [2] }),
      tf.layers.dense({ units: 32, activation: "relu", kernelInitializer: tf.initializers.heNormal({ seed: 1 }) }),
      tf.layers.dense({ units: 1, kernelInitializer: tf.initializers.glorotUniform({ seed: 2 }) }),
    ],
  });
  model.compile({ optimizer: tf.train.adam(0.01), loss: "meanSquaredError" });
  return model;
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
