/**
 * Owns a model's gradient as one array of numbers: computed from a batch, averaged over workers, applied.
 *
 * Only trainable weights are exchanged. A layer that keeps statistics of its own (batch normalization) would need them averaged too.
 */
import "./quiet.ts";
import * as tf from "@tensorflow/tfjs-node";
import type { Batch } from "shardpact";
import { digestOf } from "./exchange-messages.ts";

const variablesOf = (model: tf.LayersModel): tf.Variable[] =>
  model.trainableWeights.map((weight) => weight.read() as tf.Variable);

export const gradientLength = (model: tf.LayersModel): number =>
  variablesOf(model).reduce((sum, { size }) => sum + size, 0);

/** Mean loss of the batch, and its gradient: all trainable weights, one after the other. */
export async function gradientOf(
  model: tf.LayersModel,
  { xs, ys }: Batch,
): Promise<{ readonly loss: number; readonly gradient: Float32Array }> {
  const variables = variablesOf(model);
  const loss = (): tf.Scalar => {
    const predicted = model.apply(xs as tf.Tensor, { training: true }) as tf.Tensor;
    return tf.metrics.categoricalCrossentropy(ys as tf.Tensor, predicted).mean();
  };
  const { value, grads } = tf.variableGrads(loss, variables);
  const gradient = new Float32Array(gradientLength(model));
  let at = 0;
  for (const { name, size } of variables) {
    gradient.set((await grads[name]!.data()) as Float32Array, at);
    at += size;
  }
  const [mean = NaN] = await value.data();
  tf.dispose([value, grads]);
  return { loss: mean, gradient };
}

/** Added up in the order given, in double precision: the same result on every machine. */
export function meanOf(gradients: readonly Float32Array[]): Float32Array {
  const mean = new Float32Array(gradients[0]?.length ?? 0);
  for (let i = 0; i < mean.length; i++) {
    let sum = 0;
    for (const gradient of gradients) sum += gradient[i]!;
    mean[i] = sum / gradients.length;
  }
  return mean;
}

/** One step of the model's own optimizer. */
export function applyGradient(model: tf.LayersModel, gradient: Float32Array): void {
  let at = 0;
  const named = variablesOf(model).map(({ name, shape, size }) => {
    const tensor = tf.tensor(gradient.slice(at, at + size), shape);
    at += size;
    return { name, tensor };
  });
  model.optimizer.applyGradients(named);
  tf.dispose(named.map(({ tensor }) => tensor));
}

/** Equal on all workers, or they do not train one model. */
export async function weightsDigest(model: tf.LayersModel): Promise<string> {
  const weights = await Promise.all(model.getWeights().map((weight) => weight.data()));
  return digestOf(
    ...weights.map(({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength)),
  );
}
