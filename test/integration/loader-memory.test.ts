/**
 * What a user is promised about memory, by a real process: resident memory within the budget + 20 %, no tensor and no file
 * more than before, over twenty epochs.
 */
import { readdirSync } from "node:fs";
import { Binary, vectorFromArray, type RecordBatch } from "apache-arrow";
import sharp from "sharp";
import { beforeAll, expect, test } from "vitest";
import { createHostLoader } from "../../src/loader/host-loader.ts";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import { measureMemory } from "../loader/support/measure-memory.ts";
import { batchOf, floatBatches, makeVersion } from "../loader/support/version.ts";
import { collect } from "../support/collect.ts";
import { buildDist } from "../support/dist.ts";

const MiB = 1024 * 1024;
const WIDTH = 64;
const SHARD_BYTES = 64 * MiB;

beforeAll(buildDist);

test.runIf(process.platform === "linux")(
  "twenty shuffled epochs of more data than fits stay within the budget + 20 %, and leave no tensor or file",
  async () => {
    const rows = 1_200_000; // 307 MB
    await using data = await makeVersion({ splits: { "": floatBatches(rows, WIDTH, MiB) }, shardBytes: SHARD_BYTES });
    await using small = await makeVersion({
      splits: { "": floatBatches(16_000, WIDTH, MiB) },
      shardBytes: SHARD_BYTES,
    });
    const memory = 256 * MiB;
    const shuffle = { strength: "window", windowBytes: 64 * MiB } as const;
    const options = { xs: "x", batchSize: 256, shuffle, seed: 7, memory } as const;
    const report = await measureMemory(data.data, small.data, options, 20);
    const rise = report.peakBytes - report.startBytes;
    expect(rise / memory, `${Math.round(rise / MiB)} MiB more than before`).toBeLessThanOrEqual(1.2);
    expect(rise / memory).toBeGreaterThan(0.5); // it was really used
    expect(new Set(report.tensors).size).toBe(1);
    expect(report.files).toHaveLength(20);
    expect(new Set(report.files).size).toBe(1);
  },
  300_000,
);

const threadsNow = (): number => readdirSync("/proc/self/task").length;

test.runIf(process.platform === "linux")(
  "a large selection, read by two threads, gives the bytes that one thread gives, within its budget + 20 %",
  async () => {
    const rows = 2_400_000; // 614 MB
    await using data = await makeVersion({ splits: { "": floatBatches(rows, WIDTH, MiB) }, shardBytes: SHARD_BYTES });
    await using small = await makeVersion({
      splits: { "": floatBatches(16_000, WIDTH, MiB) },
      shardBytes: SHARD_BYTES,
    });
    const memory = 512 * MiB;
    for (const shuffle of [false, { strength: "window", windowBytes: 128 * MiB }] as const) {
      const digests = new Set<string | null>();
      for (const [reads, threads] of [
        ["worker", 2],
        ["inline", 0],
      ] as const) {
        const before = threadsNow();
        const options = { xs: "x", batchSize: 256, shuffle, seed: 7, memory, receipt: "bytes" } as const;
        await using loader = createHostLoader(data.version, options, { ...DEFAULT_PORTS, reads });
        const iterator = loader.iterate();
        while (await iterator.next()) loader.ack();
        digests.add(loader.receipt().bytesDigest);
        expect(threadsNow() - before).toBe(threads);
      }
      expect(digests.size).toBe(1);
    }
    const shuffle = { strength: "window", windowBytes: 128 * MiB } as const;
    const report = await measureMemory(data.data, small.data, { xs: "x", batchSize: 256, shuffle, seed: 7, memory }, 8);
    const rise = report.peakBytes - report.startBytes;
    expect(rise / memory, `${Math.round(rise / MiB)} MiB more than before`).toBeLessThanOrEqual(1.2);
    expect(new Set(report.tensors).size).toBe(1);
    expect(new Set(report.files.slice(1)).size).toBe(1); // the second thread is there since the first epoch
  },
  300_000,
);

test.runIf(process.platform === "linux")(
  "a full shuffle of more than fits, every row a read of its own, stays within the budget",
  async () => {
    const width = 4096;
    const rows = 80_000; // 1.3 GB
    await using data = await makeVersion({ splits: { "": floatBatches(rows, width, MiB) }, shardBytes: SHARD_BYTES });
    await using small = await makeVersion({
      splits: { "": floatBatches(1_000, width, MiB) },
      shardBytes: SHARD_BYTES,
    });
    const memory = 512 * MiB;
    const options = { xs: "x", batchSize: 128, shuffle: "full", seed: 7, memory, allowRandomReads: true } as const;
    const report = await measureMemory(data.data, small.data, options, 2);
    const rise = report.peakBytes - report.startBytes;
    expect(rise / memory, `${Math.round(rise / MiB)} MiB more than before`).toBeLessThanOrEqual(1.05);
    expect(rise / memory).toBeGreaterThan(0.5); // it was really used
    expect(new Set(report.tensors).size).toBe(1);
    expect(new Set(report.files.slice(1)).size).toBe(1);
  },
  300_000,
);

const SIDE = 224;

async function* pictures(count: number): AsyncGenerator<RecordBatch> {
  for (let n = 0; n < count; n += 32) {
    const some = Array.from({ length: 32 }, async (_, i) => {
      const pixels = Uint8Array.from(
        { length: SIDE * SIDE * 3 },
        (_v, at) => (at * 31 + (n + i) * 7 + (at >> 9)) % 256,
      );
      const raw = { width: SIDE, height: SIDE, channels: 3 } as const;
      return new Uint8Array(await sharp(pixels, { raw }).jpeg().toBuffer());
    });
    yield batchOf({ c: vectorFromArray(await Promise.all(some), new Binary()) });
  }
}

test.runIf(process.platform === "linux")(
  "pictures that threads decode, 19 MB a batch, stay within the budget + 20 %, and leave no tensor or file",
  async () => {
    const some = await collect(pictures(288));
    await using data = await makeVersion({ splits: { "": some }, shardBytes: SHARD_BYTES });
    await using small = await makeVersion({ splits: { "": some.slice(0, 1) }, shardBytes: SHARD_BYTES });
    const memory = 256 * MiB;
    const xs = { c: { image: {}, shape: [SIDE, SIDE, 3] } } as const;
    const options = { xs, batchSize: 32, shuffle: true, seed: 7, memory } as const;
    const report = await measureMemory(data.data, small.data, options, 10);
    const rise = report.peakBytes - report.startBytes;
    expect(rise / memory, `${Math.round(rise / MiB)} MiB more than before`).toBeLessThanOrEqual(1.2);
    expect(rise / memory).toBeGreaterThan(0.2); // batches were really on their way
    expect(new Set(report.tensors).size).toBe(1);
    expect(new Set(report.files.slice(1)).size).toBe(1); // threads are there since the first epoch
  },
  300_000,
);
