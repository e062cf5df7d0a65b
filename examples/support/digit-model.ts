/** Owns the small convnet that the digit examples train. */
import * as tf from "@tensorflow/tfjs-node";

/** Input [28, 28, 1] in 0…1, output ten probabilities. The caller disposes it. `seed` fixes its first weights. */
export function digitModel(seed = 1): tf.Sequential {
  const init = (n: number) => ({ kernelInitializer: tf.initializers.glorotUniform({ seed: seed * 100 + n }) });
  const model = tf.sequential({
    layers: [
      tf.layers.conv2d({
        inputShape: [28, 28, 1],
        filters: 16,
        kernelSize: 3,
        strides: 2,
        activation: "relu",
        ...init(1),
      }),
      tf.layers.conv2d({ filters: 32, kernelSize: 3, strides: 2, activation: "relu", ...init(2) }),
      tf.layers.flatten(),
      tf.layers.dense({ units: 64, activation: "relu", ...init(3) }),
      tf.layers.dense({ units: 10, activation: "softmax", ...init(4) }),
    ],
  });
  model.compile({ optimizer: tf.train.adam(0.002), loss: "categoricalCrossentropy", metrics: ["accuracy"] });
  return model;
}

/** How the digit examples read their columns. */
export const digitColumns = {
  xs: { image: { shape: [28, 28, 1] } },
  ys: { label: { oneHot: 10 } },
} as const;
