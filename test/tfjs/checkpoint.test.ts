import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import * as tf from "@tensorflow/tfjs-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkpoint, checkpointedState, createLoader, type Loader, restore } from "../../src/tfjs/index.ts";
import { liveDataset } from "../loader/support/live.ts";
import { makeVersion, numberedBatches, type TestVersion } from "../loader/support/version.ts";
import { tempDir } from "../support/temp-dir.ts";

let data: TestVersion;
beforeAll(async () => {
  data = await makeVersion({ splits: { train: numberedBatches(200, 16) } });
});
afterAll(() => data.close());

const options = { xs: "x", ys: { y: { shape: [1] } }, split: "train", batchSize: 32, shuffle: true, seed: 7 } as const;
const dataset = { loader: <S>(o: object): Loader => createLoader<S>(data.version, o as never) };
const train = (more: object = {}): Loader => dataset.loader({ ...options, ...more });

function trainable(): tf.LayersModel {
  const dense = tf.layers.dense({ units: 1, inputShape: [3], kernelInitializer: "zeros" });
  const made = tf.sequential({ layers: [dense] });
  made.compile({ optimizer: tf.train.adam(1e-3), loss: "meanSquaredError" });
  return made;
}

const weightsOf = (model: tf.LayersModel): number[] => model.getWeights().flatMap((w) => [...w.dataSync()]);

test("model, optimizer and cursor go on together: as if nothing had happened", async () => {
  await using dir = await tempDir("checkpoint");
  const whole = trainable();
  await using once = train();
  await whole.fitDataset(once, { epochs: 4, verbose: 0, ...once.fit() });

  const first = trainable();
  const before = train();
  await first.fitDataset(before, { epochs: 2, verbose: 0, ...before.fit() });
  const digest = await checkpoint(dir.path, { model: first, loader: before, extra: { note: "half" } });
  await before.close();
  first.dispose();

  const { model, loader, extra } = await restore(dir.path, dataset, options);
  expect(extra).toEqual({ note: "half" });
  expect(loader.state()).toMatchObject({ epoch: 2, offset: 0 });
  expect(loader.state().parent).toMatch(/^b3:/);
  await model.fitDataset(loader, { epochs: 4, verbose: 0, ...loader.fit() });
  for (const [i, weight] of weightsOf(model).entries()) expect(weight).toBeCloseTo(weightsOf(whole)[i] ?? NaN, 4);
  expect(digest).toMatch(/^b3:[0-9a-f]{64}$/);
  await loader.close();
  // tfjs's own tools read the same files.
  const folder = (await readdir(dir.path)).find((name) => name !== "latest") ?? "";
  const plain = await tf.loadLayersModel(`file://${join(dir.path, folder, "model.json")}`);
  expect(plain.countParams()).toBe(4);
});

test("in the middle of an epoch, at another world size", async () => {
  await using dir = await tempDir("checkpoint");
  const model = trainable();
  const loader = train();
  let steps = 0;
  for await (const batch of loader) {
    batch.ack();
    tf.dispose([batch.xs, batch.ys] as tf.Tensor[]);
    if (++steps === 3) break;
  }
  await checkpoint(dir.path, { model, loader });
  await loader.close();
  const { loader: next } = await restore(dir.path, dataset, { ...options, rank: 1, world: 2, batchSize: 8 });
  expect(next.state()).toMatchObject({ epoch: 0, offset: 96 });
  await next.close();
});

test("a pair that does not match is refused, and so is another order", async () => {
  await using dir = await tempDir("checkpoint");
  await expect(restore(dir.path, dataset, options)).rejects.toMatchObject({ code: "not_found" });
  const model = trainable();
  await using loader = train();
  await model.fitDataset(loader, { epochs: 1, verbose: 0, ...loader.fit() });
  await checkpoint(dir.path, { model, loader });
  await expect(restore(dir.path, dataset, { ...options, seed: 8 })).rejects.toMatchObject({
    code: "resume_mismatch",
    details: { field: "order.seed" },
  });
  const folder = (await readdir(dir.path)).find((name) => name !== "latest") ?? "";
  for (const name of ["weights.bin", "model.json", "checkpoint.json"]) {
    const path = join(dir.path, folder, name);
    const bytes = await readFile(path);
    const changed = Buffer.from(bytes);
    changed[changed.length - 2] = (changed[changed.length - 2] ?? 0) ^ 1;
    await writeFile(path, changed);
    await expect(restore(dir.path, dataset, options), name).rejects.toMatchObject({
      code: "damaged",
      message: expect.stringContaining(name) as string,
    });
    await writeFile(path, bytes);
  }
  const { model: whole, loader: again } = await restore(dir.path, dataset, options);
  whole.dispose();
  await again.close();
});

test("the group is told of a checkpoint before anybody can resume from it; the one before stays whole until then", async () => {
  await using dir = await tempDir("checkpoint");
  const newest = async (): Promise<string> => {
    const text = await readFile(join(dir.path, "latest"), "utf8").catch(() => '{"folder":""}');
    return (JSON.parse(text) as { folder: string }).folder;
  };
  const told: string[] = [];
  const version: TestVersion["version"] = {
    ...data.version,
    async sendReceipt(_run, _rank, receipt) {
      if (receipt["checkpoint"] === null) return;
      const folder = await newest();
      told.push(folder === "" ? "" : `${folder} ${(await stat(join(dir.path, folder))).ino}`);
    },
  };
  const model = trainable();
  await using loader = createLoader(version, { ...options, run: { id: "exp" } });
  await model.fitDataset(loader, { epochs: 1, verbose: 0, ...loader.fit() });
  const written: string[] = [];
  await mkdir(join(dir.path, ".1-0-0123456789ab.01234567.89abcdef")); // of a process that was killed
  for (let i = 0; i < 3; i++) {
    await checkpoint(dir.path, { model, loader }); // the same state three times
    const folder = await newest();
    written.push(`${folder} ${(await stat(join(dir.path, folder))).ino}`);
    expect((await readdir(dir.path)).sort()).toEqual([folder, "latest"].sort());
    const { model: again, loader: next } = await restore(dir.path, dataset, options);
    again.dispose();
    await next.close();
  }
  expect(told).toEqual(["", written[0], written[1]]);
});

test("killed at any moment, the old checkpoint or the new one is there, whole", { timeout: 120_000 }, async () => {
  await using dir = await tempDir("checkpoint");
  const script = `
    import ${JSON.stringify(new URL("../../src/tfjs-node-compat.ts", import.meta.url).href)};
    const tf = await import("@tensorflow/tfjs-node");
    const { checkpoint, createLoader } = await import(${JSON.stringify(new URL("../../src/tfjs/index.ts", import.meta.url).href)});
    const { makeVersion, numberedBatches } = await import(${JSON.stringify(new URL("../loader/support/version.ts", import.meta.url).href)});
    const data = await makeVersion({ splits: { train: numberedBatches(200, 16) } });
    const loader = createLoader(data.version, ${JSON.stringify(options)});
    const model = tf.sequential({ layers: [tf.layers.dense({ units: 300, inputShape: [3] })] });
    model.compile({ optimizer: "adam", loss: "meanSquaredError" });
    for (;;) {
      for await (const batch of loader) {
        batch.ack();
        tf.dispose([batch.xs, batch.ys]);
        await checkpoint(${JSON.stringify(dir.path)}, { model, loader });
        process.stdout.write(".");
      }
    }
  `;
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  for (const afterMs of [5, 30, 60]) {
    const child = spawn(process.execPath, ["--import", tsx, "--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
      cwd: join(import.meta.dirname, "../.."),
    });
    await once(child.stdout, "data");
    await new Promise((resolve) => setTimeout(resolve, afterMs));
    child.kill("SIGKILL");
    await once(child, "close");
    const { model, loader } = await restore(dir.path, dataset, options).catch(async (error: Error) => {
      throw new Error(`${error.message}: ${(await readdir(dir.path)).join(" ")}`);
    });
    expect(model.countParams()).toBe(1200);
    model.dispose();
    await loader.close();
  }
});

test("of a run that follows its dataset, tells which version to open", async () => {
  await using dir = await tempDir("checkpoint");
  await using live = liveDataset();
  const at = (version: number) => ({ loader: <S>(o: object) => createLoader<S>(live.at(version), o as never) });
  const follows = { ...options, run: { id: "live" }, follow: true };
  await live.publish({ splits: { train: numberedBatches(64, 16) } });
  const loader = at(1).loader(follows);
  const model = trainable();
  await model.fitDataset(loader, { epochs: 1, verbose: 0, ...loader.fit() });
  await live.publish({ splits: { train: numberedBatches(96, 16) } });
  const half = { onBatchEnd: async () => void (model.stopTraining = true) };
  const { initialEpoch, callbacks } = loader.fit();
  await model.fitDataset(loader, { epochs: 2, initialEpoch, verbose: 0, callbacks: [...callbacks, half] });
  await checkpoint(dir.path, { model, loader });
  await loader.close();
  const state = await checkpointedState(dir.path);
  expect(state).toMatchObject({ dataset: "things@v2", root: live.at(2).root, epoch: 1, offset: 32 });
  await expect(restore(dir.path, at(1), follows)).rejects.toMatchObject({
    code: "resume_mismatch",
    hint: expect.stringContaining("Open things@v2") as string,
  });
  const again = await restore(dir.path, at(2), follows);
  await again.model.fitDataset(again.loader, { epochs: 2, verbose: 0, ...again.loader.fit() });
  expect(again.loader.state()).toMatchObject({ dataset: "things@v2", epoch: 2, offset: 0 });
  await again.loader.close();
});

test("a checkpoint leaves no tensor, and a restored model takes its optimizer's with it", async () => {
  await using dir = await tempDir("checkpoint-owned");
  const model = trainable();
  await using loader = train();
  await model.fitDataset(loader, { epochs: 1, verbose: 0, ...loader.fit() });
  const { numTensors } = tf.memory();
  await checkpoint(dir.path, { model, loader });
  await Promise.all(["a", "b"].map((name) => checkpoint(join(dir.path, name), { model, loader })));
  const restored = await restore(join(dir.path, "b"), dataset, options);
  restored.model.dispose();
  await restored.loader.close();
  expect(tf.memory().numTensors).toBe(numTensors);
  model.dispose();
});

test("extra is JSON as JSON.stringify has it, or refused", async () => {
  await using dir = await tempDir("checkpoint-extra");
  await using loader = train();
  const model = trainable();
  const at = new Date(0);
  await checkpoint(dir.path, { model, loader, extra: { at } });
  const { extra, ...restored } = await restore(dir.path, dataset, options);
  expect(extra).toEqual({ at: at.toJSON() });
  restored.model.dispose();
  await restored.loader.close();
  const circle: { self?: unknown } = {};
  circle.self = circle;
  for (const bad of [{ n: 1n }, circle]) {
    const writing = checkpoint(dir.path, { model, loader, extra: bad });
    await expect(writing).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining("extra"),
    });
  }
  model.dispose();
});
