/**
 * What every way of reading shards must do: in this thread, in a worker that opens the stores itself, in one that asks
 * this thread for their bytes, and in two at once.
 */
import { spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Worker } from "node:worker_threads";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { countLeaves, leafRuns } from "../../src/loader/fetch/copy-parts.ts";
import { createInlineReads } from "../../src/loader/fetch/inline-reads.ts";
import { wholePart, type Part, type ShardReads } from "../../src/loader/fetch/reads.ts";
import { createWorkerReads } from "../../src/loader/fetch/worker-reads.ts";
import { bytesEqual, parseDigest, toHex, type Digest } from "../../src/model/bytes.ts";
import { openDirectoryStore } from "../../src/shards/directory-store.ts";
import type { ReadableStore } from "../../src/shards/port.ts";
import type { ShardRef } from "../../src/shards/shard-ref.ts";
import { fixture, publishFile, wideBatches, writeArrowJs } from "../shards/support.ts";
import { tempDir, type TempDir } from "../support/temp-dir.ts";

const where = { dataset: "digits", version: 3 };
const LEAF = 131_072;

let folder: TempDir;
let source: string;

beforeAll(async () => {
  folder = await tempDir("reads");
  source = await writeArrowJs(join(folder.path, "a.arrow"), wideBatches(2, 11));
});
afterAll(() => folder.remove());

const shared = (bytes: number): Uint8Array => new Uint8Array(new SharedArrayBuffer(bytes) as unknown as ArrayBuffer);

/** The store without what a thread needs to open it again. */
const withoutSpec = ({ url, open, quarantine }: ReadableStore): ReadableStore => ({ url, open, quarantine });

interface Made {
  readonly reads: ShardReads;
  readonly workers: Worker[];
}
type Make = (stores: readonly ReadableStore[], signal?: AbortSignal, onThread?: (worker: Worker) => void) => Made;

const never = new AbortController().signal;
const refuse = (message: string): void => {
  throw new Error(message);
};
const inWorkers =
  (threads: number, aloneBytes = 0): Make =>
  (stores, signal = never, told) => {
    const workers: Worker[] = [];
    const onThread = (worker: Worker): void => {
      workers.push(worker);
      told?.(worker);
    };
    const reads = createWorkerReads({
      where,
      stores,
      hashing: "blake3",
      threads,
      aloneBytes,
      signal,
      warn: refuse,
      onThread,
    });
    return { reads, workers };
  };
const inWorker = inWorkers(1);
const WAYS: readonly (readonly [string, Make])[] = [
  ["in this thread", (stores) => ({ reads: createInlineReads({ where, stores, hashing: "blake3" }), workers: [] })],
  ["in a worker", inWorker],
  ["in a worker that asks for bytes", (stores, signal) => inWorker(stores.map(withoutSpec), signal)],
  ["in two workers", inWorkers(2)],
];

async function storeOf(name: string) {
  const store = await openDirectoryStore(join(folder.path, name.replaceAll(" ", "-")));
  const pathIn = (digest: Digest) => {
    const hex = toHex(parseDigest(digest));
    return join(folder.path, name.replaceAll(" ", "-"), "b3", hex.slice(0, 2), hex);
  };
  return { store, pathIn };
}

async function readWhole(reads: ShardReads, shard: ShardRef): Promise<Uint8Array> {
  const out = shared(shard.bytes);
  const { segments } = await reads.map(shard);
  const all = segments.map(({ offset, bytes }, i) =>
    reads.read(shard, i, wholePart(bytes), out.subarray(offset, offset + bytes)),
  );
  const ended = await Promise.allSettled(all); // whoever goes on finds none of them still running
  for (const end of ended) if (end.status === "rejected") throw end.reason;
  return out;
}

describe.each(WAYS)("reading %s", (way, make) => {
  test("gives any parts of a segment, and counts the leaves that they touch", async () => {
    const { store } = await storeOf(`parts ${way}`);
    const { entry } = await publishFile(source, [store]);
    const { reads } = make([store]);
    const file = new Uint8Array(await readFile(source));
    expect(bytesEqual(await readWhole(reads, entry), file)).toBe(true);
    const { segments } = await reads.map(entry);
    const at = segments.findIndex((s) => s.kind === "batch");
    const { offset, bytes } = segments[at] as (typeof segments)[number];
    const cuts = fc.uniqueArray(
      fc.oneof(
        fc.nat(bytes),
        fc.nat(11).map((i) => Math.min(bytes, i * LEAF)),
      ),
      { minLength: 2, maxLength: 8 },
    );
    await fc.assert(
      fc.asyncProperty(cuts, async (found) => {
        const sorted = found.toSorted((a, b) => a - b);
        const parts: Part[] = [];
        let size = 0;
        for (let i = 0; i + 1 < sorted.length; i += 2) {
          const [from, to] = [sorted[i] as number, sorted[i + 1] as number];
          parts.push({ from, to, at: size });
          size += to - from;
        }
        const target = shared(size + 8).fill(255);
        const before = reads.verifiedBytes;
        await reads.read(entry, at, parts, target);
        for (const part of parts) {
          const got = target.subarray(part.at, part.at + part.to - part.from);
          expect(bytesEqual(got, file.subarray(offset + part.from, offset + part.to))).toBe(true);
        }
        expect([...target.subarray(size)]).toEqual(Array(8).fill(255)); // nothing beside the parts
        const read = reads.verifiedBytes - before;
        expect(read).toBeLessThanOrEqual(countLeaves(parts) * LEAF);
        expect(read).toBeGreaterThan((countLeaves(parts) - 1) * LEAF);
      }),
      { numRuns: 40 },
    );
    await reads.close();
    await store.close();
  });

  test("finds one flipped bit in every kind of segment, and takes the next store's copy", async () => {
    const [bad, good] = [await storeOf(`bad ${way}`), await storeOf(`good ${way}`)];
    const [alone, both] = [make([bad.store]).reads, make([bad.store, good.store]).reads];
    for (const kind of ["head", "schema", "dictionary", "batch", "footer"] as const) {
      const path = kind === "schema" ? fixture("pyarrow.arrow") : source; // arrow-js writes no schema message
      const { entry } = await publishFile(path, [bad.store, good.store]);
      const { segments } = await both.map(entry);
      const at = segments.findIndex((s) => s.kind === kind);
      const segment = segments[at] as (typeof segments)[number];
      const bytes = await readFile(bad.pathIn(entry.digest));
      const place = segment.offset + segment.bytes - 1;
      bytes[place] = (bytes[place] as number) ^ 4;
      await writeFile(bad.pathIn(entry.digest), bytes);
      await expect(readWhole(alone, entry)).rejects.toMatchObject({
        code: "shard_corrupt",
        details: { ...where, segment: at, segmentKind: kind, leaf: segment.leafCount - 1, store: bad.store.url },
      });
      expect(await bad.store.stat(entry.digest)).toBeNull(); // quarantined
      await writeFile(bad.pathIn(entry.digest), bytes);
      expect(bytesEqual(await readWhole(both, entry), new Uint8Array(await readFile(path)))).toBe(true);
      expect(await bad.store.stat(entry.digest)).toBeNull();
      await alone.forget();
      await both.forget();
    }
    await alone.close();
    await both.close();
  });

  test("finds a flipped bit in the segment index, and says what is missing", async () => {
    const { store, pathIn } = await storeOf(`index ${way}`);
    const { entry } = await publishFile(source, [store]);
    const bytes = await readFile(pathIn(entry.segmentIndex));
    bytes[70] = (bytes[70] as number) ^ 1;
    await writeFile(pathIn(entry.segmentIndex), bytes);
    const { reads } = make([store]);
    await expect(reads.map(entry)).rejects.toMatchObject({
      code: "shard_corrupt",
      details: { segmentKind: "index", shard: entry.name },
    });
    await expect(reads.map(entry)).rejects.toMatchObject({ code: "not_found" });
    await reads.close();
    await expect(reads.map(entry)).rejects.toMatchObject({ code: "closed" });
    await reads.close();
  });

  test("goes on after it forgot its shards", async () => {
    const { store } = await storeOf(`forget ${way}`);
    const { entry } = await publishFile(source, [store]);
    const { reads } = make([store]);
    const first = await readWhole(reads, entry);
    await reads.forget();
    expect(bytesEqual(await readWhole(reads, entry), first)).toBe(true);
    await reads.close();
  });
});

describe.each(WAYS.slice(1, 3))("a thread %s", (way, make) => {
  test("that dies fails its calls as worker_failed; the next call has a new one", async () => {
    const { store } = await storeOf(`dies ${way}`);
    const { entry } = await publishFile(source, [store]);
    const { reads, workers } = make([store]);
    const { segments } = await reads.map(entry);
    const at = segments.findIndex((s) => s.kind === "batch");
    const bytes = segments[at]?.bytes as number;
    const running = Array.from({ length: 100 }, () => reads.read(entry, at, wholePart(bytes), shared(bytes)));
    void workers[0]?.terminate();
    const after = await Promise.allSettled(running);
    expect(after.map((r) => (r.status === "rejected" ? (r.reason as { code: string }).code : "done"))).toContain(
      "worker_failed",
    );
    await reads.read(entry, at, wholePart(bytes), shared(bytes));
    expect(workers.length).toBe(2);
    await reads.close();
  });

  test("has ended when `close` resolves", async () => {
    const { store } = await storeOf(`closes ${way}`);
    const { entry } = await publishFile(source, [store]);
    const { reads, workers } = make([store]);
    const reading = readWhole(reads, entry).then(
      () => "done",
      (error: { code: string }) => error.code,
    );
    const closing = reads.close();
    expect(["done", "closed", "aborted"]).toContain(await reading);
    await closing;
    expect(workers.every((worker) => worker.threadId === -1)).toBe(true);
  });
});

describe("two threads", () => {
  /** Reads of all segments at once, several times each: more than one thread is given before the other starts. */
  const readAll = async (reads: ShardReads, shard: ShardRef) => {
    const { segments } = await reads.map(shard);
    const all = [...segments, ...segments, ...segments].map(({ bytes }, i) =>
      reads.read(shard, i % segments.length, wholePart(bytes), shared(bytes)),
    );
    return Promise.allSettled(all);
  };

  test("share the reads; the second is started when the first is behind", async () => {
    const { store } = await storeOf("two");
    const { entry } = await publishFile(source, [store]);
    const { reads, workers } = inWorkers(2)([store]);
    const one = (await reads.map(entry)).segments[0]?.bytes as number;
    await reads.read(entry, 0, wholePart(one), shared(one));
    expect(workers.length).toBe(1);
    expect((await readAll(reads, entry)).every(({ status }) => status === "fulfilled")).toBe(true);
    expect(workers.length).toBe(2);
    await reads.close();
    expect(workers.every((worker) => worker.threadId === -1)).toBe(true);
  });

  test("the second is not started before the first has read enough to make it worth while", async () => {
    const { store } = await storeOf("two, late");
    const { entry } = await publishFile(source, [store]);
    const { reads, workers } = inWorkers(2, 4 * entry.bytes)([store]);
    await readAll(reads, entry);
    expect([reads.verifiedBytes, workers.length]).toEqual([3 * entry.bytes, 1]);
    await readAll(reads, entry);
    await readAll(reads, entry);
    expect(workers.length).toBe(2);
    await reads.close();
  });

  test("a bad copy is told as bad, also by the thread that finds it gone", async () => {
    const { store, pathIn } = await storeOf("two bad");
    const { entry } = await publishFile(source, [store]);
    const good = await readFile(pathIn(entry.digest));
    const bad = Buffer.from(good);
    const { reads } = inWorkers(2)([store]);
    const { segments } = await reads.map(entry);
    const { offset } = segments.find(({ kind }) => kind === "batch") as (typeof segments)[number];
    bad[offset] = (bad[offset] as number) ^ 1;
    const codes = new Set<string>();
    for (let i = 0; i < 25; i++) {
      await writeFile(pathIn(entry.digest), bad);
      for (const end of await readAll(reads, entry)) {
        codes.add(end.status === "rejected" ? (end.reason as { code: string }).code : "read");
      }
      expect(await store.stat(entry.digest)).toBeNull(); // quarantined
      await reads.forget();
    }
    expect([...codes].toSorted()).toEqual(["read", "shard_corrupt"]);
    await reads.close();
  });

  test("where a second one can't be had, the first reads everything", async () => {
    const { store } = await storeOf("two, one");
    const { entry } = await publishFile(source, [store]);
    let started = 0;
    const { reads, workers } = inWorkers(2)([store], never, (worker) => {
      if (++started > 1) void worker.terminate(); // before it is ready
    });
    expect((await readAll(reads, entry)).every(({ status }) => status === "fulfilled")).toBe(true);
    expect((await readAll(reads, entry)).every(({ status }) => status === "fulfilled")).toBe(true);
    expect(workers.length).toBe(2);
    await reads.close();
  });
});

test("what a thread has read is taken without a turn of the event loop", async () => {
  const { store } = await storeOf("taken");
  const { entry } = await publishFile(source, [store]);
  const { reads } = inWorker([store]);
  const { segments } = await reads.map(entry);
  const at = segments.findIndex((s) => s.kind === "batch");
  const bytes = segments[at]?.bytes as number;
  let turned = false;
  let settled = false;
  const reading = reads.read(entry, at, wholePart(bytes), shared(bytes)).finally(() => (settled = true));
  setImmediate(() => (turned = true));
  const deadlineMs = performance.now() + 20_000;
  while (!settled && performance.now() < deadlineMs) {
    reads.takeAnswers();
    for (let i = 0; i < 20; i++) await Promise.resolve();
  }
  expect({ settled, turned }).toEqual({ settled: true, turned: false });
  await reading;
  await reads.close();
});

test("a store that the thread can't open: reads go on inline, with one warning", async () => {
  const { store } = await storeOf("inline");
  const { entry } = await publishFile(source, [store]);
  const { url, open, quarantine } = store;
  const spec = { kind: "directory", url: "s3://elsewhere" } as const;
  const warnings: string[] = [];
  const stores = [{ url, open, quarantine, spec }];
  const reads = createWorkerReads({
    where,
    stores,
    hashing: "blake3",
    threads: 2,
    signal: never,
    warn: (text) => void warnings.push(text),
  });
  expect((await readWhole(reads, entry)).byteLength).toBe(entry.bytes);
  expect(warnings).toEqual([expect.stringMatching(/main thread.*s3:\/\/elsewhere/)]);
  expect(reads.verifiedBytes).toBe(entry.bytes);
  await reads.close();
});

test("a thread that nobody closed keeps no process alive", async () => {
  const { store } = await storeOf("alive");
  const { entry } = await publishFile(source, [store]);
  const code = `
    import { createWorkerReads } from ${JSON.stringify(new URL("../../src/loader/fetch/worker-reads.ts", import.meta.url).href)};
    import { openDirectoryStore } from ${JSON.stringify(new URL("../../src/shards/directory-store.ts", import.meta.url).href)};
    const stores = [await openDirectoryStore(${JSON.stringify(store.url)})];
    const reads = createWorkerReads({ where: { dataset: "d", version: 1 }, stores, hashing: "blake3", threads: 1, signal: new AbortController().signal, warn: console.error });
    console.log((await reads.map(${JSON.stringify(entry)})).segments.length);
  `;
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "--eval", code], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let out = "";
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  const exit = await new Promise((done) => child.on("exit", done));
  expect([exit, Number(out) > 2]).toEqual([0, true]);
});

test("leaf runs join parts that share or adjoin a leaf", () => {
  const part = (from: number, to: number): Part => ({ from, to, at: 0 });
  const runs = leafRuns([part(5, 9), part(10, 10), part(LEAF - 1, LEAF + 1), part(5 * LEAF, 6 * LEAF)]);
  expect(runs.map(({ first, end, parts }) => [first, end, parts.length])).toEqual([
    [0, 2, 2],
    [5, 6, 1],
  ]);
  expect(countLeaves([part(0, 1), part(LEAF, LEAF + 1)])).toBe(2);
});
