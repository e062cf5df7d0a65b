/** Owns the small convnet that the digit examples train. */
import "./quiet.ts";
import * as tf from "@tensorflow/tfjs-node";

/** Input [28, 28, 1] in 0…1, output ten probabilities. The caller disposes it. `seed` fixes its first weights. */
export function digitModel(seed = 1): tf.Sequential {
  const init = (n: number) => ({ kernelInitializer: tf.initializers.glorotUniform({ seed: seed * 100 + n }) });
  const model = tf.sequential({
    layers: [
      tf.layers.conv2d({ inputShape: [28, 28, 1], filters: 12, kernelSize: 5, activation: "relu", ...init(1) }),
      tf.layers.maxPooling2d({ poolSize: 2 }),
      tf.layers.conv2d({ filters: 24, kernelSize: 3, activation: "relu", ...init(2) }),
      tf.layers.maxPooling2d({ poolSize: 2 }),
      tf.layers.flatten(),
      tf.layers.dense({ units: 64, activation: "relu", ...init(3) }),
      tf.layers.dense({ units: 10, activation: "softmax", ...init(4) }),
    ],
  });
  model.compile({ optimizer: tf.train.adam(0.003), loss: "categoricalCrossentropy", metrics: ["accuracy"] });
  return model;
}

/** How the digit examples read their columns. */
export const digitColumns = {
  xs: { image: { shape: [28, 28, 1] } },
  ys: { label: { oneHot: 10 } },
} as const;
