/**
 * Owns the peer of the loader bench inside TensorFlow.js itself: tf.data, rows → batch, plain and shuffled, over the
 * same Arrow file. It checks nothing.
 */
import { readFile } from "node:fs/promises";
import * as tf from "@tensorflow/tfjs-node";
import { tableFromIPC } from "apache-arrow";

export interface TfDataInput {
  readonly file: string;
  readonly column: string;
  readonly width: number;
  readonly batchSize: number;
  readonly rowsMax: number;
  readonly shuffle: boolean;
}

/** At most `rowsMax` rows in each run: every row a Float32Array element, batched by tf.data. Runs resolve with their samples. */
export async function openTfData({
  file,
  column,
  width,
  batchSize,
  rowsMax,
  shuffle,
}: TfDataInput): Promise<() => Promise<number>> {
  const table = tableFromIPC(await readFile(file));
  const rows = Math.min(rowsMax, table.numRows);
  const chunks = table.getChild(column)!.data.map((d) => d.children[0]!.values as Float32Array);
  function* elements(): Generator<Float32Array> {
    let left = rows;
    for (const values of chunks) {
      for (let at = 0; at < values.length && left > 0; at += width, left--) yield values.subarray(at, at + width);
    }
  }
  const plain = tf.data.generator(elements as unknown as () => Generator<tf.TensorContainer>);
  return () => samplesOf((shuffle ? plain.shuffle(10_000, "7") : plain).batch(batchSize));
}

/** tf.data at its fastest: a generator of ready tensors, a copy of `batchSize` rows each, over the whole file, in order. */
export async function measureReadyTensors({ file, column, width, batchSize }: TfDataInput): Promise<number> {
  const table = tableFromIPC(await readFile(file)); // read in each run, as the loader reads in each epoch
  const chunks = table.getChild(column)!.data.map((d) => d.children[0]!.values as Float32Array);
  function* tensors(): Generator<tf.Tensor> {
    for (const values of chunks) {
      for (let at = 0; at < values.length; at += batchSize * width) {
        const batch = values.slice(at, at + batchSize * width);
        yield tf.tensor(batch, [batch.length / width, width]);
      }
    }
  }
  return samplesOf(tf.data.generator(tensors as unknown as () => Generator<tf.TensorContainer>));
}

export interface PicturesInput {
  readonly files: readonly string[];
  readonly batchSize: number;
}

/** Over the bytes of JPEG files, already in memory; decodeJpeg runs on the thread that trains. */
export async function openPictures({ files, batchSize }: PicturesInput): Promise<() => Promise<number>> {
  const pictures = await Promise.all(files.map((file) => readFile(file)));
  const numbers = pictures.map((_, i) => i);
  const decode = (i: number): tf.Tensor => tf.tidy(() => tf.node.decodeJpeg(pictures[i]!, 3).toFloat());
  return () => {
    const decoded = tf.data
      .array(numbers)
      .shuffle(pictures.length, "7")
      .map((i) => decode(i as number));
    return samplesOf(decoded.batch(batchSize));
  };
}

async function samplesOf(dataset: tf.data.Dataset<tf.TensorContainer>): Promise<number> {
  let samples = 0;
  await dataset.forEachAsync((batch) => {
    const tensor = batch as tf.Tensor;
    samples += tensor.shape[0]!;
    tensor.dispose();
  });
  return samples;
}
