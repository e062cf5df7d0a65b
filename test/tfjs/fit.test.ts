import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as tf from "@tensorflow/tfjs-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Batch, createEvaluation, createLoader, type Loader } from "../../src/tfjs/index.ts";
import type { Columns } from "../../src/loader/index.ts";
import { liveDataset } from "../loader/support/live.ts";
import { makeVersion, numberedBatches, type TestVersion } from "../loader/support/version.ts";

let data: TestVersion;
beforeAll(async () => {
  data = await makeVersion({ splits: { train: numberedBatches(200, 16), val: numberedBatches(50, 16, 200) } });
});
afterAll(() => data.close());

/** Steps so small that no value overflows. */
function trainable(): tf.LayersModel {
  const made = tf.sequential({ layers: [tf.layers.dense({ units: 1, inputShape: [3], kernelInitializer: "zeros" })] });
  made.compile({ optimizer: tf.train.sgd(1e-9), loss: "meanSquaredError" });
  return made;
}

const columns = { xs: "x", ys: { y: { shape: [1] } } } as const;
const train = (o: object = {}): Loader =>
  createLoader(data.version, { ...columns, split: "train", batchSize: 32, shuffle: true, seed: 7, ...o });

test("fitDataset trains whole epochs with validation, and leaks no tensor", async () => {
  const net = trainable();
  await using loader = train();
  await using val = createEvaluation(data.version, { ...columns, split: "val", batchSize: 20 });
  expect([loader.size, val.size]).toEqual([7, 3]);
  await net.fitDataset(loader, { epochs: 1, verbose: 0, validationData: val, ...loader.fit() });
  const before = tf.memory().numTensors;
  const batches: number[] = [];
  const fit = loader.fit();
  expect(fit.initialEpoch).toBe(1);
  const history = await net.fitDataset(loader, {
    epochs: 4,
    verbose: 0,
    validationData: val,
    ...fit,
    callbacks: [...fit.callbacks, { onEpochEnd: async () => void batches.push(loader.state().epoch) }],
  });
  expect(tf.memory().numTensors).toBe(before);
  expect(history.history["val_loss"]?.length).toBe(3);
  expect(batches).toEqual([2, 3, 4]); // exact at onBatchEnd: the epoch is over before the next iterator comes
  expect(loader.state()).toMatchObject({ epoch: 4, offset: 0 });
  expect(loader.receipt().spans).toMatchObject([{ epoch: 0, epochs: 4, from: 0, to: 200 }]);
});

test("early stop in the middle of an epoch goes on there, with and without fit()", async () => {
  for (const exact of [true, false]) {
    const net = trainable();
    await using loader = train();
    let seen = 0;
    const stop = {
      onBatchEnd: async () => {
        if (++seen === 3) net.stopTraining = true;
      },
    };
    const callbacks = exact ? [...loader.fit().callbacks, stop] : [stop];
    await net.fitDataset(loader, { epochs: 1, verbose: 0, callbacks });
    expect(loader.state().offset).toBe(exact ? 96 : 64); // a forgotten callback costs one repeated batch
    const sizes: number[] = [];
    for await (const batch of loader) {
      sizes.push(batch.offset);
      batch[Symbol.dispose]();
    }
    expect(sizes[0]).toBe(exact ? 96 : 64);
    expect(loader.state().epoch).toBe(1);
  }
});

test("validationBatches abandons iterators; the next pass starts over", async () => {
  const net = trainable();
  await using loader = train();
  await using val = createEvaluation(data.version, { ...columns, split: "val", batchSize: 20 });
  await net.fitDataset(loader, { epochs: 2, verbose: 0, validationData: val, validationBatches: 1, ...loader.fit() });
  const before = tf.memory().numTensors;
  const firsts: number[] = [];
  for (let pass = 0; pass < 2; pass++) {
    for await (const batch of val) {
      firsts.push(((batch.xs as tf.Tensor).arraySync() as number[][])[0]?.[0] ?? -1);
      batch[Symbol.dispose]();
    }
  }
  expect(firsts).toEqual([200, 220, 240, 200, 220, 240]);
  expect(tf.memory().numTensors).toBe(before);
});

test("repeat() runs through epochs for batchesPerEpoch, and is refused in the middle of one", async () => {
  const net = trainable();
  await using loader = train();
  const endless = loader.repeat();
  expect(endless.size).toBe(Infinity);
  await net.fitDataset(endless, { epochs: 3, batchesPerEpoch: 7, verbose: 0, ...loader.fit() });
  expect(loader.state()).toMatchObject({ epoch: 3, offset: 0 });
  const iterator = await loader.iterator();
  (await iterator.next()).value?.ack();
  expect(() => loader.repeat()).toThrow(/middle of an epoch/);
  await iterator.return();
});

test("by hand: one key is a plain tensor, several are a record; ack and dispose", async () => {
  await using loader = createLoader(data.version, {
    xs: ["x", "even"],
    ys: "y",
    split: "train",
    batchSize: 64,
    seed: 1,
  });
  const before = tf.memory().numTensors;
  for await (const batch of loader) {
    const xs = batch.xs as Record<string, tf.Tensor>;
    expect(xs["x"]?.shape).toEqual([(batch.ys as tf.Tensor).shape[0], 3]);
    expect(Array.from((batch.ys as tf.Tensor).dataSync().slice(0, 6))).toEqual(
      [0, 1, 2, 3, 4, 5].map((i) => (batch.offset + i) % 5),
    );
    batch.ack();
    expect(loader.state().offset).toBe((batch.offset + 64) % 256 === 0 ? 0 : batch.offset + 64);
    batch[Symbol.dispose]();
    if (batch.offset === 64) break;
  }
  expect(tf.memory().numTensors).toBe(before);
  expect(loader.explain()).toMatchObject({ steps: 4, order: { strength: "none" } });
});

test("columns of single values train as model.fit and trainOnBatch have them: [rows, 1], not broadcast", async () => {
  const net = tf.sequential({ layers: [tf.layers.dense({ units: 1, inputShape: [3], kernelInitializer: "ones" })] });
  net.compile({ optimizer: tf.train.sgd(0), loss: "meanSquaredError" });
  const options = { xs: "x", ys: "y", split: "train", batchSize: 200 } as const;
  await using loader = createLoader(data.version, options);
  const losses: number[] = [];
  for await (const batch of loader) {
    expect((batch.ys as tf.Tensor).shape).toEqual([200]);
    losses.push((await net.trainOnBatch(batch.xs as tf.Tensor, batch.ys as tf.Tensor)) as number);
    batch[Symbol.dispose]();
  }
  const { history } = await net.fitDataset(loader, { epochs: 2, verbose: 0, ...loader.fit() });
  await using val = createEvaluation(data.version, options);
  const evaluated = (await net.evaluateDataset(val as never, {})) as tf.Scalar;
  losses.push(history["loss"]?.[0] as number, evaluated.dataSync()[0] as number);
  // Broadcast, it would be a number near that.
  for (const loss of losses) expect(loss / (losses[0] as number)).toBeCloseTo(1, 6);
});

test("several inputs of single values, by the names of the model's inputs", async () => {
  const inputs = ["even", "y"].map((name) => tf.input({ shape: [1], name }));
  const sum = tf.layers.add().apply(inputs) as tf.SymbolicTensor;
  const net = tf.model({ inputs, outputs: tf.layers.dense({ units: 1 }).apply(sum) as tf.SymbolicTensor });
  net.compile({ optimizer: tf.train.sgd(0), loss: "meanSquaredError" });
  const options = { xs: ["even", "y"], ys: { y: {} }, split: "train", batchSize: 50 } as const;
  await using loader = createLoader(data.version, options);
  await using val = createEvaluation(data.version, { ...options, split: "val" });
  const { history } = await net.fitDataset(loader, { epochs: 1, verbose: 0, validationData: val, ...loader.fit() });
  expect(history["val_loss"]).toHaveLength(1);
  await using kept = createLoader(data.version, { ...options, ys: { y: { shape: [] } } });
  const batch = (await (await kept.iterator()).next()).value as Batch;
  expect((batch.ys as tf.Tensor).shape).toEqual([50]);
  batch[Symbol.dispose]();
});

test("class weights of fitDataset weigh each row by its class", async () => {
  const weights = [1, 2, 0.5, 3, 0];
  const net = tf.sequential({
    layers: [tf.layers.dense({ units: 5, inputShape: [3], kernelInitializer: "zeros", activation: "softmax" })],
  });
  net.setWeights([tf.zeros([3, 5]), tf.tensor([0, 1, 2, 3, 4])]);
  net.compile({ optimizer: tf.train.sgd(0), loss: "categoricalCrossentropy" });
  await using loader = createLoader(data.version, {
    ...{ xs: "x", ys: { y: { oneHot: 5 } }, split: "train", batchSize: 200 },
  });
  const classWeight = Object.fromEntries(weights.map((weight, i) => [i, weight]));
  const { history } = await net.fitDataset(loader, { epochs: 1, verbose: 0, classWeight, ...loader.fit() });
  const logSum = Math.log([0, 1, 2, 3, 4].reduce((sum, logit) => sum + Math.exp(logit), 0));
  const losses = Array.from({ length: 200 }, (_, row) => (weights[row % 5] as number) * (logSum - (row % 5)));
  expect(history["loss"]?.[0]).toBeCloseTo(losses.reduce((a, b) => a + b, 0) / 200, 3);
});

test("a map that gives back what is no batch is refused, and says what it gave", async () => {
  const given: [(c: Columns) => unknown, string, string][] = [
    [async (c) => c, "invalid_argument", "a promise"],
    [() => undefined, "invalid_argument", "nothing"],
    [({ xs, mask }) => ({ xs, mask }), "invalid_argument", "no { xs, ys }"],
    [(c) => ({ ...c, ys: { y: { ...c.ys["y"], data: new Float64Array(8) } } }), "invalid_argument", "Float64Array"],
    [(c) => ({ ...c, ys: { y: tf.zeros([8]) } }), "invalid_argument", "'y'"],
    [
      (c) => ({ ...c, ys: { y: { ...c.ys["y"], data: new Float32Array(4), shape: [4] } } }),
      "shape_differs",
      "'y' 4 rows",
    ],
    [
      (c) => ({ ...c, ys: { y: { ...c.ys["y"], data: new Float32Array(4), shape: [8] } } }),
      "shape_differs",
      "4 values",
    ],
  ];
  for (const [map, code, said] of given) {
    await using loader = createLoader(data.version, {
      ...{ xs: "x", ys: "y", split: "train", batchSize: 8, map: map as never },
    });
    await expect(loader[Symbol.asyncIterator]().next()).rejects.toMatchObject({
      code,
      message: expect.stringContaining(said) as string,
    });
  }
});

test("an option that nobody knows is refused, with the nearest names", () => {
  const make = (o: object) => () =>
    createLoader(data.version, { ...columns, split: "train", batchSize: 8, ...o } as never);
  expect(make({ shufle: true })).toThrow(
    expect.objectContaining({ code: "invalid_argument", hint: "Did you mean shuffle?" }),
  );
  expect(make({ xs: { x: { onehot: 3 } } })).toThrow(
    expect.objectContaining({ code: "invalid_argument", hint: "Did you mean oneHot?" }),
  );
});

test("padding is refused where fitDataset would train on it, and masked by hand", async () => {
  await using loader = train({ last: "pad", world: 3, rank: 0 });
  await expect(loader.iterator()).rejects.toMatchObject({ code: "invalid_argument" });
  let masked = 0;
  for await (const batch of loader) {
    masked += batch.mask ? 32 - batch.mask.sum().dataSync()[0]! : 0;
    batch[Symbol.dispose]();
  }
  expect(masked).toBeGreaterThan(0);
});

test("a flipped byte in a shard is shard_corrupt before a tensor is made of it", async () => {
  await using damaged = await makeVersion({ splits: { train: numberedBatches(200, 16) }, shardBytes: 1_000_000 });
  const [entry] = await damaged.version.page(0);
  const path = await findFile(damaged.store, entry!.digest.slice(3));
  const bytes = await readFile(path);
  const at = Math.floor(bytes.length / 2);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  await writeFile(path, bytes);
  await using loader = createLoader(damaged.version, { ...columns, batchSize: 16, seed: 7 });
  const before = tf.memory().numTensors;
  const rows: number[] = [];
  const drain = async () => {
    for await (const batch of loader) {
      rows.push(...(batch.ys as tf.Tensor).dataSync());
      batch[Symbol.dispose]();
    }
  };
  await expect(drain()).rejects.toMatchObject({ code: "shard_corrupt", details: { dataset: "things", leaf: 0 } });
  expect(rows).toEqual(rows.map((_, i) => i % 5)); // what came before was good
  expect(rows.length).toBeLessThan(200);
  expect(tf.memory().numTensors).toBe(before);
  expect(await readdir(join(damaged.store, "quarantine"))).not.toEqual([]);
  const again = trainable().fitDataset(loader, { epochs: 1, verbose: 0 }); // the only copy is in quarantine now
  await expect(again).rejects.toMatchObject({ code: "not_found" });
});

async function findFile(folder: string, digest: string): Promise<string> {
  for (const name of await readdir(folder, { recursive: true })) if (name.endsWith(digest)) return join(folder, name);
  throw new Error(`no file for ${digest}`);
}

test("fitDataset follows a dataset that grows between epochs; size is that of the present epoch", async () => {
  await using live = liveDataset();
  const rows = [64, 160, 160];
  const publish = (count: number) => live.publish({ splits: { train: numberedBatches(count, 16) } });
  await publish(64);
  const options = { ...columns, split: "train", batchSize: 32, shuffle: true, seed: 7 } as const;
  await using loader = createLoader(live.at(1), { ...options, run: { id: "live" }, follow: true });
  const net = trainable();
  const seen: [size: number, batches: number][] = [];
  let batches = 0;
  const count = {
    onBatchEnd: async () => void batches++,
    onEpochEnd: async (epoch: number) => {
      seen.push([loader.size, batches]);
      batches = 0;
      if (epoch === 0) await publish(160);
    },
  };
  const fit = loader.fit();
  await net.fitDataset(loader, { epochs: 3, verbose: 0, ...fit, callbacks: [...fit.callbacks, count] });
  expect(seen).toEqual(rows.map((of) => [of / 32, of / 32]));
  expect(loader.receipt().spans.map(({ to, epochs }) => [to, epochs])).toEqual([
    [64, 1],
    [160, 2],
  ]);
  expect(loader.explain()).toMatchObject({ dataset: "things@v2", follow: true });
  // With batchesPerEpoch epochs of fitDataset are not those of the loader, which go on moving at their own ends.
  await publish(96);
  const forever = loader.repeat();
  expect(forever.size).toBe(Infinity);
  await net.fitDataset(forever, { epochs: 2, batchesPerEpoch: 3, verbose: 0 });
  expect(loader.state()).toMatchObject({ dataset: "things@v3", epoch: 4, offset: 64 });
});

test("padding that a later version may need is refused before the first batch", async () => {
  await using live = liveDataset();
  await live.publish({ splits: { train: numberedBatches(64, 16) } });
  const padded = { ...columns, batchSize: 32, last: "pad", run: { id: "pad" } } as const;
  await expect(createLoader(live.at(1), padded).iterator()).resolves.toBeDefined();
  await expect(createLoader(live.at(1), { ...padded, follow: true }).iterator()).rejects.toMatchObject({
    code: "invalid_argument",
  });
});
