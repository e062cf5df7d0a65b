/**
 * Arrays of batches are used again only when nobody can see it: a tensor that is kept, whatever was read from one, and whatever a
 * map kept, hold their values while later batches come.
 */
import * as tf from "@tensorflow/tfjs-node";
import { Binary, vectorFromArray } from "apache-arrow";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createBatchMemory } from "../../src/loader/batch-memory.ts";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import type { LoaderOptions } from "../../src/loader/host-loader.ts";
import { copyNow } from "../../src/tfjs/backend-copy.ts";
import { createLoaderWith, type Batch, type Loader } from "../../src/tfjs/loader.ts";
import { batchOf, makeVersion, numberedBatches, type TestVersion } from "../loader/support/version.ts";

const ROWS = 1210; // the last batch is a short one
let data: TestVersion;
beforeAll(async () => {
  data = await makeVersion({ splits: { train: numberedBatches(ROWS, 50) }, shardBytes: 2000 });
});
afterAll(() => data.close());

const load = (o: Partial<LoaderOptions> = {}): Loader =>
  createLoaderWith(
    data.version,
    { xs: "x", ys: { y: { shape: [1] } }, batchSize: 32, shuffle: true, seed: 7, ...o },
    { ...DEFAULT_PORTS, reads: "inline" },
  );

/** Takes an epoch, and keeps what `keep` makes of each batch. */
async function kept<T>(loader: Loader, keep: (batch: Batch) => T): Promise<T[]> {
  const all: T[] = [];
  for await (const batch of loader) all.push(keep(batch));
  return all;
}

const tensorsOf = ({ xs, ys }: Batch): tf.Tensor[] => [xs as tf.Tensor, ys as tf.Tensor];
const numbersOf = (batch: Batch): number[][] => tensorsOf(batch).map((tensor) => [...tensor.dataSync()]);

describe("what outlives its batch", () => {
  test("a tensor that is kept, and values that were read from one", async () => {
    await using loader = load();
    const plain = await kept(loader, (batch) => {
      using _ = batch;
      return numbersOf(batch);
    });
    expect(plain.length).toBe(Math.ceil(ROWS / 32));
    expect(new Set(plain.map((numbers) => numbers.join())).size).toBe(plain.length);

    await using again = load();
    const batches = await kept(again, (batch) => batch);
    expect(batches.map(numbersOf)).toEqual(plain);
    for (const batch of batches) batch[Symbol.dispose]();

    await using third = load();
    const views = await kept(third, (batch) => {
      using _ = batch;
      return tensorsOf(batch).map((tensor) => tensor.dataSync());
    });
    expect(views.map((all) => all.map((view) => [...view]))).toEqual(plain);
  });

  test("an array that a map keeps or gives twice", async () => {
    const seen: Float32Array[] = [];
    await using loader = load({
      map: (columns) => {
        seen.push(columns.xs["x"]?.data as Float32Array);
        return { ...columns, xs: { ...columns.xs, same: columns.xs["x"] as never } };
      },
    });
    const copies = await kept(loader, ({ xs }) => {
      const { x, same } = xs as Record<string, tf.Tensor>;
      const values = [...(x as tf.Tensor).dataSync()];
      expect([...(same as tf.Tensor).dataSync()]).toEqual(values);
      tf.dispose(xs as tf.NamedTensorMap);
      return values;
    });
    expect(seen.map((array) => [...array])).toEqual(copies);
  });
});

test("pixels that threads wrote: memory goes there and back again, and no tensor changes", async () => {
  const pictures = await Promise.all(
    Array.from({ length: 300 }, (_, n) =>
      sharp(
        Uint8Array.from({ length: 75 }, (_v, i) => (n * 7 + i) % 256),
        { raw: { height: 5, width: 5, channels: 3 } },
      )
        .png()
        .toBuffer(),
    ),
  );
  const rows = batchOf({
    c: vectorFromArray(
      pictures.map((bytes) => new Uint8Array(bytes)),
      new Binary(),
    ),
  });
  await using images = await makeVersion({ splits: { "": [rows] }, shardBytes: 1 << 20 });
  await using loader = createLoaderWith(
    images.version,
    { xs: { c: { image: {}, shape: [5, 5, 3] } }, batchSize: 16, shuffle: true, seed: 7 },
    { ...DEFAULT_PORTS, images: "threads" },
  );
  for (let epoch = 0; epoch < 2; epoch++) {
    const all: { readonly ids: readonly number[]; readonly xs: tf.Tensor; readonly view: unknown }[] = [];
    for await (const batch of loader) {
      const xs = batch.xs as tf.Tensor;
      all.push({ ids: [...batch.ids], xs, view: xs.dataSync() });
    }
    for (const { ids, xs, view } of all) {
      const expected = ids.flatMap((n) => Array.from({ length: 75 }, (_, i) => (n * 7 + i) % 256));
      expect([...(view as Float32Array)]).toEqual(expected);
      expect([...xs.dataSync()]).toEqual(expected);
      xs.dispose();
    }
  }
});

test("an array that TensorFlow keeps using does not count as copied, whatever its place", () => {
  const outcomes = { copied: 0, shared: 0 };
  for (let i = 0; i < 200; i++) {
    const array = new Float32Array(Buffer.allocUnsafeSlow(256).buffer).fill(i);
    const tensor = tf.tensor(array);
    const isFree = copyNow(tf.backend(), tensor, array);
    outcomes[isFree ? "copied" : "shared"]++;
    expect(array[0]).toBe(i);
    if (isFree) array.fill(-1);
    expect(tensor.dataSync()).toEqual(new Float32Array(64).fill(i));
    expect(copyNow(tf.backend(), tensor, array)).toBe(isFree);
    tensor.dispose();
  }
  expect(outcomes.copied).toBeGreaterThan(0);
  expect(outcomes.shared).toBeGreaterThan(0); // a quarter or so begins at a multiple of 64: or else nothing was tried here
  expect(copyNow({}, tf.scalar(1), new Float32Array(1))).toBe(false);
});

test("memory is lent again by size, up to its bound, and only what was lent", () => {
  const memory = createBatchMemory(250);
  const [first, second, third, other] = [100, 100, 100, 50].map((bytes) => memory.take(bytes)) as [
    ArrayBuffer,
    ArrayBuffer,
    ArrayBuffer,
    ArrayBuffer,
  ];
  memory.give(new ArrayBuffer(100));
  memory.give(first);
  memory.give(first);
  expect(memory.take(100)).toBe(first);
  expect(memory.take(100)).not.toBe(first);
  for (const lent of [first, second, third, other]) memory.give(lent);
  const taken = [100, 100, 100, 50].map((bytes) => memory.take(bytes));
  expect(taken.slice(0, 2)).toEqual([second, first]);
  expect(taken[2]).not.toBe(third); // 300 bytes would have been too many
  expect(taken[3]).toBe(other);
});

test("shared memory is taken once, up to its bound, and lent again as long as it comes back", () => {
  const memory = createBatchMemory(250);
  const [first, second] = [memory.takeShared(100), memory.takeShared(100)] as [SharedArrayBuffer, SharedArrayBuffer];
  expect([first.byteLength, memory.takeShared(100), memory.takeShared(51)]).toEqual([100, null, null]);
  memory.give(second);
  memory.give(second);
  memory.give(new SharedArrayBuffer(100));
  expect([memory.takeShared(60), memory.takeShared(100), memory.takeShared(100)]).toEqual([null, second, null]);
  expect(memory.takeShared(100)).toBeNull(); // the first never comes back, and is not replaced
});
