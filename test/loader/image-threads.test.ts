/**
 * Images decoded beside the training thread: the same pixels and the same refusals as in it, and what becomes of jobs when
 * they are too many, aborted, closed, or their thread dies.
 */
import { spawn } from "node:child_process";
import type { Worker } from "node:worker_threads";
import { Binary, makeVector, vectorFromArray } from "apache-arrow";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createBatchMemory } from "../../src/loader/batch-memory.ts";
import { imageOf } from "../../src/loader/columns/image-plan.ts";
import type { EncodedImage } from "../../src/loader/columns/image-job.ts";
import { createImageThreads, imageThreadsFor, type ImageDecoder } from "../../src/loader/columns/image-threads.ts";
import type { ColumnPlan, ImagePlan } from "../../src/loader/columns/column-plan.ts";
import type { ImageOptions } from "../../src/loader/columns/options.ts";
import { createHostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { dataOf } from "./support/arrow-data.ts";
import { batchOf, makeVersion, type TestVersion } from "./support/version.ts";

const never = (): AbortSignal => new AbortController().signal;
const refuse = (message: string): void => {
  throw new Error(message);
};

function threadsOf(threads: number): { decoder: ImageDecoder; workers: Worker[] } {
  const workers: Worker[] = [];
  const onThread = (worker: Worker): void => void workers.push(worker);
  return { decoder: createImageThreads({ threads, memory: createBatchMemory(0), warn: refuse, onThread }), workers };
}

/** What decoding needs of a column's plan. */
function planOf(options: ImageOptions, shape: readonly number[], nulls: ColumnPlan["nulls"] = null) {
  const image: ImagePlan = imageOf("c", { image: options });
  const width = shape.reduce((a, b) => a * b, 1);
  return { plan: { name: "c", shape, width, nulls } as ColumnPlan, image };
}

const encodedOf = (images: readonly (Uint8Array | null)[]): (EncodedImage | null)[] =>
  images.map((bytes, row) => bytes && { bytes, place: { shard: "s", segment: 1, row } });

/** Copied into memory that threads share, as tiles are. */
function shared(images: readonly (Uint8Array | null)[]): (Uint8Array | null)[] {
  const memory = new SharedArrayBuffer(images.reduce((sum, image) => sum + (image?.byteLength ?? 0), 0));
  let at = 0;
  return images.map((image) => {
    if (!image) return null;
    const view = new Uint8Array(memory as unknown as ArrayBuffer, at, image.byteLength);
    view.set(image);
    at += image.byteLength;
    return view;
  });
}

const picture = (height: number, width: number, n: number, channels: 1 | 3 | 4 = 3) =>
  sharp(
    Uint8Array.from({ length: height * width * channels }, (_, i) => (i * 31 + n * 7 + (i >> 4)) % 256),
    { raw: { height, width, channels } },
  );
const FORMATS = ["png", "jpeg", "webp", "gif", "tiff", "avif"] as const;

const outcome = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "done",
    (error: { code: string }) => error.code,
  );

let inThread: ImageDecoder;
let inline: ImageDecoder;
beforeAll(() => {
  inThread = threadsOf(2).decoder;
  inline = createImageThreads({ threads: 0, memory: createBatchMemory(0), warn: refuse });
});
afterAll(() => Promise.all([inThread.close(), inline.close()]));

describe("a thread gives what the caller's own would", () => {
  const cases: readonly (readonly [string, ImageOptions, ColumnPlan["nulls"]])[] = [
    ["as they are", {}, null],
    ["grey", { channels: 1 }, null],
    ["with alpha", { channels: 4 }, null],
    ["scaled, nulls filled", { scale: 1 / 255 }, "nan"],
    ["resized, nulls masked", { resize: [5, 6] }, "mask"],
    ["grey, resized, nulls filled", { channels: 1, resize: [20, 3], scale: 2 }, -1],
  ];
  test.each(cases)("%s", async (_name, options, nulls) => {
    const [height, width] = options.resize ?? [11, 13];
    const { plan, image } = planOf(options, [height, width, channelsOf(options)], nulls);
    const encoded = await Promise.all(
      FORMATS.map(async (format, n) => new Uint8Array(await picture(11, 13, n).toFormat(format).toBuffer())),
    );
    const rows = nulls === null ? encoded : [null, ...encoded.slice(0, 3), null, null, ...encoded.slice(3)];
    const expected = await inline.decode(plan, image, encodedOf(rows), never(), false);
    expect(expected.length).toBe(rows.length * plan.width);
    for (const images of [rows, shared(rows)]) {
      const pixels = await inThread.decode(plan, image, encodedOf(images), never(), false);
      expect(Buffer.from(pixels.buffer).equals(Buffer.from(expected.buffer))).toBe(true);
      expect(pixels.byteLength).toBe(pixels.buffer.byteLength); // memory of its own
    }
    const [first] = encoded;
    const at = nulls === null ? 0 : 1;
    let own = sharp(first).toColourspace(image.channels === 1 ? "b-w" : "srgb");
    if (options.resize) own = own.resize(width, height, { fit: "fill" });
    own = image.channels === 4 ? own.ensureAlpha() : own.removeAlpha();
    const numbers = Array.from(await own.raw().toBuffer(), (v) => Math.fround(v * image.scale));
    expect([...expected.subarray(at * plan.width, (at + 1) * plan.width)]).toEqual(numbers);
  });

  test("refusals too; word for word where the words are ours", async () => {
    const good = new Uint8Array(await picture(4, 5, 1).png().toBuffer());
    const jpeg = new Uint8Array(await picture(4, 5, 1).jpeg().toBuffer());
    const other = new Uint8Array(await picture(5, 4, 1).png().toBuffer());
    const svg = new TextEncoder().encode('<svg xmlns="http://www.w3.org/2000/svg" width="5" height="4"/>');
    const bad: readonly (readonly [Uint8Array, ImageOptions, string])[] = [
      [svg, {}, "image_malformed"],
      [new Uint8Array(0), {}, "image_malformed"],
      [jpeg.subarray(0, jpeg.length - 40), {}, "image_malformed"],
      [good.subarray(0, 60), {}, "image_malformed"],
      [other, {}, "shape_differs"],
      [other, { pixelsMax: 19 }, "image_malformed"],
    ];
    for (const [bytes, options, code] of bad) {
      const { plan, image } = planOf(options, [4, 5, 3]);
      const images = encodedOf([null, ...(options.pixelsMax ? [] : [good]), bytes, null]);
      const isCut = bytes.byteLength < bytes.buffer.byteLength; // then sharp finds out
      const told = (decoder: ImageDecoder): Promise<unknown> =>
        decoder.decode(plan, image, images, never(), false).then(
          () => null,
          // sharp's own words come from one buffer of the process: whoever decodes beside may take or clear them
          ({ code: is, message, hint, details }) => ({ is, hint, details, message: isCut ? "" : String(message) }),
        );
      const expected = await told(inline);
      expect(expected).toMatchObject({ is: code, details: { column: "c", shard: "s", segment: 1 } });
      expect(await told(inThread)).toEqual(expected);
    }
  });
});

const channelsOf = ({ channels = 3 }: ImageOptions): number => channels;

describe("jobs", () => {
  const { plan, image } = planOf({}, [300, 300, 3]);
  let many: (EncodedImage | null)[];
  beforeAll(async () => {
    const one = new Uint8Array(await picture(300, 300, 1).png().toBuffer());
    many = encodedOf(Array.from({ length: 24 }, () => one));
  });

  test("go to threads that are started as they are needed, at most so many; all that wait get their turn", async () => {
    const { decoder, workers } = threadsOf(2);
    await decoder.decode(plan, image, many, never(), false);
    await decoder.decode(plan, image, many, never(), false);
    expect(workers.length).toBe(1);
    const all = await Promise.all(Array.from({ length: 9 }, () => decoder.decode(plan, image, many, never(), false)));
    expect(workers.length).toBe(2);
    expect(new Set(all.map(({ length }) => length))).toEqual(new Set([24 * plan.width]));
    await decoder.close();
    expect(workers.every((worker) => worker.threadId === -1)).toBe(true);
  });

  test("more than may wait are refused", async () => {
    const { decoder } = threadsOf(1);
    const all = Array.from({ length: LIMITS.imageJobsWaitingMax + 5 }, () =>
      outcome(decoder.decode(plan, image, many.slice(0, 1), never(), false)),
    );
    const ends = await Promise.all(all);
    expect(ends.filter((end) => end === "limit_exceeded").length).toBe(3); // one runs and one waits at the thread
    expect(ends.filter((end) => end === "done").length).toBe(LIMITS.imageJobsWaitingMax + 2);
    await decoder.close();
  });

  test("that are aborted end before their images do, wherever they are; others go on", async () => {
    const { decoder } = threadsOf(1);
    const controller = new AbortController();
    await decoder.decode(plan, image, many.slice(0, 1), never(), false); // the thread runs
    const [running, queued, waiting] = [1, 2, 3].map(() =>
      outcome(decoder.decode(plan, image, many, controller.signal, false)),
    );
    const other = decoder.decode(plan, image, many.slice(0, 2), never(), false);
    controller.abort();
    expect(await Promise.all([running, queued, waiting])).toEqual(["aborted", "aborted", "aborted"]);
    expect((await other).length).toBe(2 * plan.width);
    expect(await outcome(decoder.decode(plan, image, many, controller.signal, false))).toBe("aborted");
    expect((await decoder.decode(plan, image, many, never(), false)).length).toBe(24 * plan.width);
    await decoder.close();
  });

  test("end with `close`, while they are decoded and while they wait; close twice", async () => {
    const { decoder, workers } = threadsOf(2);
    const all = Array.from({ length: 9 }, () => outcome(decoder.decode(plan, image, many, never(), false)));
    await Promise.all([decoder.close(), decoder.close()]);
    const ends = await Promise.all(all);
    expect(ends.every((end) => end === "closed" || end === "done")).toBe(true);
    expect(ends.at(-1)).toBe("closed");
    expect(workers.every((worker) => worker.threadId === -1)).toBe(true);
    expect(await outcome(decoder.decode(plan, image, many, never(), false))).toBe("closed");
  });

  test("of a thread that dies fail as worker_failed; the next have a new one", async () => {
    const { decoder, workers } = threadsOf(1);
    await decoder.decode(plan, image, many.slice(0, 1), never(), false);
    const jobs = [1, 2, 3].map(() => outcome(decoder.decode(plan, image, many, never(), false)));
    await workers[0]?.terminate();
    const [running, queued, waiting] = await Promise.all(jobs);
    expect([running, queued, waiting]).toEqual(["worker_failed", "worker_failed", "done"]);
    expect(workers.length).toBe(2);
    await decoder.close();
  });

  test("share memory only if they may, and give it back when they fail, are aborted, or their thread dies", async () => {
    const bytes = 24 * plan.width * Float32Array.BYTES_PER_ELEMENT;
    const memory = createBatchMemory(bytes); // of one job
    const workers: Worker[] = [];
    const onThread = (worker: Worker): void => void workers.push(worker);
    const decoder = createImageThreads({ threads: 1, memory, warn: refuse, onThread });
    const isBack = (): boolean => {
      const shared = memory.takeShared(bytes);
      if (shared) memory.give(shared);
      return shared !== null;
    };
    const first = await decoder.decode(plan, image, many, never(), true);
    const second = await decoder.decode(plan, image, many, never(), true);
    expect([first.buffer instanceof SharedArrayBuffer, isBack()]).toEqual([true, false]);
    expect(second.buffer).toBeInstanceOf(ArrayBuffer); // none is left
    expect(Buffer.compare(new Uint8Array(first.buffer), new Uint8Array(second.buffer))).toBe(0);
    memory.give(first.buffer);
    expect((await decoder.decode(plan, image, many, never(), false)).buffer).toBeInstanceOf(ArrayBuffer);
    const bad = [...many.slice(1), ...encodedOf([Uint8Array.of(1)])];
    expect([await outcome(decoder.decode(plan, image, bad, never(), true)), isBack()]).toEqual([
      "image_malformed",
      true,
    ]);
    const controller = new AbortController();
    const aborted = outcome(decoder.decode(plan, image, many, controller.signal, true));
    expect(isBack()).toBe(false);
    controller.abort();
    expect([await aborted, isBack()]).toEqual(["aborted", true]);
    const dying = outcome(decoder.decode(plan, image, many, never(), true));
    await workers[0]?.terminate();
    expect([await dying, isBack()]).toEqual(["worker_failed", true]);
    await decoder.close();
  });

  test("are done in the caller's thread where none can be started, with one warning", async () => {
    const warnings: string[] = [];
    const decoder = createImageThreads({
      threads: 2,
      memory: createBatchMemory(0),
      warn: (text) => void warnings.push(text),
      onThread: (worker) => void worker.terminate(), // before it is ready
    });
    const all = await Promise.all([1, 2, 3].map(() => decoder.decode(plan, image, many, never(), false)));
    expect(new Set(all.map(({ length }) => length))).toEqual(new Set([24 * plan.width]));
    expect(warnings).toEqual([expect.stringMatching(/images are decoded in the main thread/)]);
    await decoder.close();
    expect(await outcome(decoder.decode(plan, image, many, never(), false))).toBe("closed");
  });
});

test("threads that nobody closed keep no process alive, and one that works does", async () => {
  const code = `
    import { createImageThreads } from ${JSON.stringify(new URL("../../src/loader/columns/image-threads.ts", import.meta.url).href)};
    const memory = { take: (bytes) => new ArrayBuffer(bytes), takeShared: () => null, give: () => undefined };
    const decoder = createImageThreads({ threads: 2, memory, warn: console.error });
    const png = Buffer.from(${JSON.stringify((await picture(2, 2, 0).png().toBuffer()).toString("base64"))}, "base64");
    const images = [{ bytes: new Uint8Array(png), place: { shard: "s", segment: 0, row: 0 } }];
    const image = { channels: 3, resize: null, scale: 1, pixelsMax: 100 };
    const plan = { name: "c", shape: [2, 2, 3], width: 12, nulls: null };
    decoder.decode(plan, image, images, new AbortController().signal, false).then(({ length }) => console.log(length));
  `;
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "--eval", code], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let out = "";
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  const exit = await new Promise((done) => child.on("exit", done));
  expect([exit, out.trim()]).toEqual([0, "12"]);
});

test("a few bytes of images are decoded where they are, more in threads, never more than the bound", () => {
  expect(imageThreadsFor(1000, "auto")).toBe(0);
  expect(imageThreadsFor(2 ** 30, "inline")).toBe(0);
  for (const threads of [imageThreadsFor(2 ** 30, "auto"), imageThreadsFor(1000, "threads")]) {
    expect(threads).toBeGreaterThanOrEqual(1);
    expect(threads).toBeLessThanOrEqual(LIMITS.imageThreadsMax);
  }
});

describe("a loader whose images are decoded in threads", () => {
  const ROWS = 200;
  let data: TestVersion;
  let bad: TestVersion;
  const rows = async (broken: number): Promise<(Uint8Array | null)[]> =>
    Promise.all(
      Array.from({ length: ROWS }, async (_, n) => {
        if (n === broken) return Uint8Array.of(1, 2, 3);
        return n % 9 === 4 ? null : new Uint8Array(await picture(6, 5, n).jpeg().toBuffer());
      }),
    );
  const version = async (broken: number): Promise<TestVersion> => {
    const images = await rows(broken);
    const batches = Array.from({ length: 8 }, (_, b) => {
      const part = images.slice(b * 25, b * 25 + 25);
      const id = vectorFromArray(Float32Array.from(part, (_v, i) => b * 25 + i));
      return batchOf({ c: makeVector(dataOf(new Binary(), part)), id });
    });
    return makeVersion({ splits: { "": batches }, shardBytes: 4000 });
  };
  beforeAll(async () => {
    [data, bad] = await Promise.all([version(-1), version(120)]);
  });
  afterAll(() => Promise.all([data.close(), bad.close()]));

  const xs = { c: { image: {}, shape: [6, 5, 3], nulls: "mask" }, id: {} } as const;
  const options: LoaderOptions = { xs, batchSize: 7, shuffle: true, seed: 3, receipt: "bytes" };
  const make = (images: "threads" | "inline", o: Partial<LoaderOptions> = {}, of = data) =>
    createHostLoader(of.version, { ...options, ...o }, { ...DEFAULT_PORTS, images });

  async function bytesOf(images: "threads" | "inline"): Promise<unknown[]> {
    const mapped: number[] = [];
    const map: LoaderOptions["map"] = (columns, { ids }) => {
      expect(columns.xs["c"]?.data.buffer).toBeInstanceOf(ArrayBuffer); // what a map sees is its own
      mapped.push(...ids);
      return columns;
    };
    await using loader = make(images, { map });
    const seen: unknown[] = [];
    const iterator = loader.iterate();
    for (let batch = await iterator.next(); batch; batch = await iterator.next()) {
      const columns = Object.entries(batch.columns.xs).map(([name, { data: numbers }]) => [name, ...numbers]);
      seen.push([...batch.ids], columns);
    }
    return [...seen, mapped, loader.receipt().bytesDigest];
  }

  test("gives the same batches in the same order, mapped in it, and the same digest of their bytes", async () => {
    const expected = await bytesOf("inline");
    expect(expected.length).toBe(2 * Math.ceil(ROWS / 7) + 2);
    expect(await bytesOf("threads")).toEqual(expected);
  });

  test("hands out the batches before a bad image, then names it; what stood in line is given back", async () => {
    await using loader = make("threads", { shuffle: false }, bad);
    for (let round = 0; round < 2; round++) {
      const iterator = loader.iterate();
      const ends: string[] = [];
      while (ends.length === 0 || ends.at(-1) === "done") {
        ends.push(
          await iterator.next().then(
            (batch) => (batch ? "done" : "end"),
            (error: { code: string; message: string }) => `${error.code} ${error.message}`,
          ),
        );
      }
      expect(ends.length).toBe(round === 0 ? Math.floor(120 / 7) + 1 : 1); // again at the cursor
      expect(ends.at(-1)).toMatch(/^image_malformed an image of 'c' does not decode: it is no PNG.* row 20\)$/);
    }
  });

  test("is abandoned again and again: memory of batches that nobody saw comes back", async () => {
    await using loader = make("threads", { receipt: "order" });
    for (let round = 0; round < 12; round++) {
      const iterator = loader.iterate();
      const batch = await iterator.next();
      const array = batch?.columns.xs["c"]?.data as Float32Array;
      expect(array.buffer).toBeInstanceOf(SharedArrayBuffer);
      batch?.recycle(array);
      if (round % 3 === 0) await new Promise((done) => setTimeout(done, 20)); // so that some are decoded, some not
      await iterator.return();
    }
  });

  test("is left anywhere, aborted, closed twice: nothing hangs, and the cursor holds", async () => {
    await using loader = make("threads");
    for (let steps = 0; steps < 9; steps += 2) {
      const iterator = loader.iterate();
      for (let i = 0; i <= steps; i++) expect(await iterator.next()).not.toBeNull();
      if (steps % 4 === 0) await iterator.return();
    }
    expect(loader.state().offset).toBe((0 + 2 + 4 + 6 + 8) * 7);
    const controller = new AbortController();
    const aborted = make("threads", { signal: controller.signal });
    const iterator = aborted.iterate();
    await iterator.next();
    controller.abort();
    const ends: string[] = []; // what was decoded by then still comes: as many as are ahead, with one for each thread
    while (ends.at(-1) !== "aborted" && ends.length < 2 + LIMITS.imageThreadsMax + 1) {
      ends.push(await outcome(iterator.next()));
    }
    expect(ends.at(-1)).toBe("aborted");
    await Promise.all([aborted.close(), aborted.close()]);
    const pending = outcome(loader.iterate().next());
    await Promise.all([loader.close(), loader.close()]);
    expect(["closed", "aborted", "done"]).toContain(await pending);
  });
});
