/**
 * However training ends (early, by an exception, by close, by a signal, by a dead thread), nothing is left behind: no tensor, no
 * file, no thread, no timer that keeps the process.
 */
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as tf from "@tensorflow/tfjs-node";
import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import { createHostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import type { ShardpactError } from "../../src/model/errors.ts";
import { createEvaluationWith } from "../../src/tfjs/evaluation.ts";
import { createLoaderWith, type Loader } from "../../src/tfjs/loader.ts";
import { makeVersion, numberedBatches, type TestVersion } from "../loader/support/version.ts";
import { collectGarbage } from "../support/garbage.ts";
import { openFiles } from "../support/open-files.ts";

const ROWS = 1200;
let data: TestVersion;
beforeAll(async () => {
  data = await makeVersion({
    splits: { train: numberedBatches(ROWS, 50), val: numberedBatches(200, 50, ROWS) },
    shardBytes: 2000,
  });
});
afterAll(() => data.close());

const columns = { xs: "x", ys: { y: { shape: [1] } }, batchSize: 32 } as const;
type Reads = "inline" | "worker";
const train = (o: Partial<LoaderOptions> = {}, reads: Reads = "inline"): Loader =>
  createLoaderWith(
    data.version,
    { ...columns, split: "train", shuffle: true, seed: 7, ...o },
    { ...DEFAULT_PORTS, reads },
  );

function trainable(): tf.LayersModel {
  const made = tf.sequential({ layers: [tf.layers.dense({ units: 1, inputShape: [3], kernelInitializer: "zeros" })] });
  made.compile({ optimizer: tf.train.sgd(1e-9), loss: "meanSquaredError" });
  return made;
}

let before: { tensors: number; files: number; threads: number };
/** Of the process, as Linux tells it. */
function threads(): number {
  try {
    return readdirSync("/proc/self/task").length;
  } catch {
    return 0;
  }
}

beforeEach(async () => {
  await using warm = train(); // tfjs makes what it keeps with the first batch
  for await (const batch of warm) batch[Symbol.dispose]();
  before = { tensors: tf.memory().numTensors, files: openFiles(), threads: threads() };
});

async function expectNothingLeft(): Promise<void> {
  expect(tf.memory().numTensors).toBe(before.tensors);
  await expect.poll(openFiles).toBeLessThanOrEqual(before.files);
  await expect.poll(threads).toBeLessThanOrEqual(before.threads);
}

const outcome = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "done",
    (error: ShardpactError) => error.code ?? String(error),
  );

describe.each(["inline", "worker"] as const)("training that ends (%s)", (reads) => {
  test("by break, in the middle of a batch, again and again", async () => {
    const loader = train({}, reads);
    for (let pass = 0; pass < 5; pass++) {
      for await (const batch of loader) {
        batch[Symbol.dispose]();
        if (batch.offset > 64 * pass) break;
      }
    }
    await loader.close();
    await expectNothingLeft();
  });

  test("by an exception in the step: the batch comes again", async () => {
    const loader = train({}, reads);
    const failing = async (): Promise<void> => {
      for await (const batch of loader) {
        try {
          if (batch.offset === 96) throw new RangeError("NaN loss");
        } finally {
          batch[Symbol.dispose]();
        }
      }
    };
    await expect(failing()).rejects.toThrow("NaN loss");
    expect(loader.state().offset).toBe(96); // the one that failed was not acknowledged
    const iterator = await loader.iterator();
    const again = (await iterator.next()).value;
    expect(again?.offset).toBe(96);
    again?.[Symbol.dispose]();
    await loader.close();
    await expectNothingLeft();
  });

  test("by an exception in a callback of fitDataset, and by stopTraining", async () => {
    const net = trainable();
    const weights = tf.memory().numTensors;
    const loader = train({}, reads);
    const stop = { onBatchEnd: async (step: number) => void (net.stopTraining = step === 2) };
    await net.fitDataset(loader, { epochs: 1, verbose: 0, callbacks: [...loader.fit().callbacks, stop] });
    expect(loader.state().offset).toBe(96);
    const fail = { onBatchBegin: () => Promise.reject(new Error("no disk for the log")) };
    await expect(net.fitDataset(loader, { epochs: 1, verbose: 0, callbacks: [fail] })).rejects.toThrow("no disk");
    await loader.close();
    expect(tf.memory().numTensors - weights).toBeLessThanOrEqual(3); // tfjs itself keeps the batch that a callback threw on
    net.dispose();
    tf.disposeVariables();
  });

  test("by an exception in map, which says whose it is", async () => {
    let calls = 0;
    const map: LoaderOptions["map"] = (c) => {
      if (++calls === 3) throw new RangeError("crop is larger than the image");
      return c;
    };
    const loader = train({ map }, reads);
    const seen: number[] = [];
    const drain = async (): Promise<void> => {
      for await (const batch of loader) {
        seen.push(batch.offset);
        batch[Symbol.dispose]();
      }
    };
    await expect(drain()).rejects.toMatchObject({
      code: "invalid_argument",
      message: expect.stringContaining("crop is larger") as string,
    });
    expect(seen).toEqual([0, 32]);
    await drain(); // from the batch that failed on
    expect(seen).toEqual(Array.from({ length: Math.ceil(ROWS / 32) }, (_, i) => i * 32));
    await loader.close();
    await expectNothingLeft();
  });

  test("by close at any moment, by several at once, in the middle of a next()", { timeout: 60_000 }, async () => {
    for (const delayMs of [0, 0, 1, 2, 4, 8, 16, 32]) {
      const loader = train({}, reads);
      const iterator = await loader.iterator();
      const got = Promise.all(
        [iterator.next(), iterator.next()].map(async (next) => {
          const found = await next;
          found.value?.[Symbol.dispose]();
        }),
      );
      const pending = outcome(got);
      if (delayMs > 0) await sleep(delayMs);
      await Promise.all([loader.close(), loader.close(), loader.close()]);
      expect(["closed", "loader_busy"]).toContain(await pending);
      await expect(iterator.next()).rejects.toMatchObject({ code: "closed" });
      await loader.close();
    }
    await expectNothingLeft();
  });

  test("by return() while a batch is on its way", async () => {
    const loader = train({}, reads);
    const iterator = await loader.iterator();
    const [next] = await Promise.all([iterator.next(), iterator.return()]);
    expect(next.done).toBe(true);
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
    const host = createHostLoader(
      data.version,
      { xs: "x", split: "train", batchSize: 32 },
      { ...DEFAULT_PORTS, reads },
    );
    const started = host.iterate();
    const onItsWay = started.next();
    await started.return();
    expect(await onItsWay).toBeNull();
    await host.close();
    for await (const batch of loader) {
      expect(batch.offset).toBe(0);
      batch[Symbol.dispose]();
      break;
    }
    await loader.close();
    await expectNothingLeft();
  });

  test("by a signal at any moment: aborted, then and afterwards", { timeout: 60_000 }, async () => {
    const reasons = [undefined, "a text", new Error("a reason"), new DOMException("late", "TimeoutError")];
    for (const [i, reason] of reasons.slice(reads === "worker" ? 2 : 0).entries()) {
      for (const batches of reads === "worker" ? [0, 5] : [0, 1, 5]) {
        const controller = new AbortController();
        const loader = train({ signal: controller.signal }, reads);
        let seen = 0;
        const drain = async (): Promise<void> => {
          for await (const batch of loader) {
            batch[Symbol.dispose]();
            if (++seen === batches) controller.abort(reason);
          }
        };
        if (batches === 0) setTimeout(() => controller.abort(reason), i);
        expect(await outcome(drain())).toBe("aborted");
        expect(await outcome(drain())).toBe("aborted");
        await loader.close();
      }
    }
    await expectNothingLeft();
  });

  test("with two iterators at once: one of them is told, and nothing is lost", async () => {
    const loader = train({}, reads);
    const seen: number[] = [];
    const consume = async (): Promise<void> => {
      for await (const batch of loader) {
        seen.push(batch.offset);
        batch[Symbol.dispose]();
        await sleep(1);
      }
    };
    const ends = await Promise.all([outcome(consume()), outcome(consume()), outcome(consume())]);
    expect(ends.toSorted()).toEqual(["done", "loader_busy", "loader_busy"]);
    const offsets = Array.from({ length: Math.ceil(ROWS / 32) }, (_, i) => i * 32);
    expect([...new Set(seen)].toSorted((a, b) => a - b)).toEqual(offsets);
    await loader.close();
    await expectNothingLeft();
  });
});

test(
  "any order of next, return, ack, new iterators, close: no batch is skipped, and nothing is left",
  { timeout: 60_000 },
  async () => {
    const steps = fc.array(fc.constantFrom("next", "next", "next", "both", "return", "new", "ack", "error"), {
      minLength: 1,
      maxLength: 14,
    });
    await fc.assert(
      fc.asyncProperty(steps, async (actions) => {
        const loader = train({ batchSize: 100, map: (c) => ({ ...c }) });
        let iterator = await loader.iterator();
        let acknowledged = 0;
        const take = async (): Promise<void> => {
          const { value } = await iterator.next();
          if (!value) return;
          expect(value.offset).toBe(loader.state().offset); // the first that is not acknowledged
          expect(loader.state().offset === 0 || loader.state().offset >= acknowledged).toBe(true);
          acknowledged = loader.state().offset;
          value[Symbol.dispose]();
        };
        for (const action of actions) {
          if (action === "next") await take().catch((error: ShardpactError) => expect(error.code).toBe("loader_busy"));
          else if (action === "both") {
            const other = await loader.iterator();
            const ends = await Promise.allSettled([iterator.next(), other.next()]);
            for (const end of ends) if (end.status === "fulfilled") end.value.value?.[Symbol.dispose]();
            iterator = other;
          } else if (action === "return") await iterator.return();
          else if (action === "new") iterator = await loader.iterator();
          else if (action === "ack") loader.fit().callbacks.forEach((c) => void c.onBatchEnd());
        }
        await Promise.all([loader.close(), loader.close()]);
      }),
      { numRuns: 60 },
    );
    await expectNothingLeft();
  },
);

describe("evaluation", () => {
  test("of many passes, abandoned or whole, takes the memory of one", { timeout: 120_000 }, async () => {
    await using large = await makeVersion({
      splits: { val: numberedBatches(1_500_000, 100_000) },
      shardBytes: 8_000_000,
    });
    const MiB = 1024 * 1024;
    const options = { xs: ["x", "y"], batchSize: 50_000, split: "val" };
    await using val = createEvaluationWith(large.version, options, { ...DEFAULT_PORTS, reads: "inline" });
    const pass = async (batches: number): Promise<void> => {
      for await (const batch of val) {
        batch[Symbol.dispose]();
        if (--batches === 0) break;
      }
    };
    await pass(100);
    collectGarbage();
    const held = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 12; i++) await pass(i % 3 === 0 ? 3 : 100);
    expect(process.memoryUsage().arrayBuffers - held).toBeLessThan(300 * MiB); // of one arena: 256
    await expectNothingLeftButTensors();
  });

  async function expectNothingLeftButTensors(): Promise<void> {
    expect(tf.memory().numTensors).toBe(before.tensors);
  }

  test("starts over each time, whatever became of the pass before; close ends it", async () => {
    const val = createEvaluationWith(data.version, { ...columns, split: "val" }, DEFAULT_PORTS);
    const abandoned = await val.iterator();
    for (let i = 0; i < 3; i++) (await abandoned.next()).value?.[Symbol.dispose]();
    const firsts: number[] = [];
    for (let i = 0; i < 3; i++) {
      for await (const batch of val) {
        firsts.push(((batch.xs as tf.Tensor).arraySync() as number[][])[0]?.[0] ?? -1);
        batch[Symbol.dispose]();
        if (firsts.length % 2 === 0) break;
      }
    }
    expect(firsts).toEqual([1200, 1232, 1200, 1232, 1200, 1232]);
    await expect(abandoned.next()).rejects.toMatchObject({ code: "loader_busy" });
    const pending = outcome((await val.iterator()).next());
    await Promise.all([val.close(), val.close()]);
    expect(await pending).toBe("closed");
    expect(await outcome((await val.iterator()).next())).toBe("closed");
    await expectNothingLeft();
  });
});

test("a thread that is killed is worker_failed; the next iterator goes on with a new one", async () => {
  const { MessagePort } = await import("node:worker_threads");
  let killed = 0;
  const post = MessagePort.prototype.postMessage;
  let kill = false;
  MessagePort.prototype.postMessage = function (
    this: InstanceType<typeof MessagePort>,
    ...args: Parameters<typeof post>
  ) {
    if (!kill || (args[0] as { kind?: unknown }).kind !== "calls") return post.apply(this, args);
    kill = false;
    killed++;
    return post.call(this, null); // no such message: it throws where nothing catches
  };
  try {
    await using loader = createHostLoader(
      data.version,
      { xs: "x", split: "train", batchSize: 8, memory: 60_000 },
      { ...DEFAULT_PORTS, reads: "worker" },
    );
    let seen = 0;
    const drain = async (): Promise<void> => {
      const iterator = loader.iterate();
      for (let batch = await iterator.next(); batch; batch = await iterator.next()) {
        expect(batch.columns.xs["x"]?.data[0]).toBe(batch.from);
        loader.ack();
        if (++seen === 5) kill = true;
      }
    };
    expect(await outcome(drain())).toBe("worker_failed");
    expect(killed).toBe(1);
    await drain();
    expect(loader.state()).toMatchObject({ epoch: 1, offset: 0 });
  } finally {
    MessagePort.prototype.postMessage = post;
  }
  await expectNothingLeft();
});

test.each(["closed", "abandoned"])(
  "a process whose loaders are %s ends by itself",
  { timeout: 60_000 },
  async (how) => {
    const source = (path: string): string => JSON.stringify(new URL(`../../${path}`, import.meta.url).href);
    const script = `
    import ${source("src/tfjs-node-compat.ts")};
    import * as tf from "@tensorflow/tfjs-node";
    import { makeVersion, numberedBatches } from ${source("test/loader/support/version.ts")};
    import { createLoaderWith } from ${source("src/tfjs/loader.ts")};
    import { createEvaluationWith } from ${source("src/tfjs/evaluation.ts")};
    import { DEFAULT_PORTS } from ${source("src/loader/internal.ts")};
    const data = await makeVersion({ splits: { "": numberedBatches(3000, 50) }, shardBytes: 2000 });
    const made = [];
    for (const reads of ["inline", "worker"]) {
      for (const make of [createLoaderWith, createEvaluationWith]) {
        const loader = make(data.version, { xs: "x", batchSize: 16, seed: 1 }, { ...DEFAULT_PORTS, reads });
        const iterator = await loader.iterator();
        (await iterator.next()).value[Symbol.dispose]();
        made.push(loader);
      }
    }
    if (${JSON.stringify(how)} === "closed") await Promise.all(made.map((loader) => loader.close()));
    await data.close();
    console.log("end");
  `;
    const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "--eval", script], {
      stdio: ["ignore", "pipe", "inherit"],
      cwd: join(import.meta.dirname, "..", ".."),
    });
    let out = "";
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
    const code = await new Promise((done) => child.on("exit", done));
    expect([code, out.trim()]).toEqual([0, "end"]);
  },
);
