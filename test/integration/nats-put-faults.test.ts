/**
 * Puts into a NATS object store over a line that is cut, and a server that is killed, at any moment of them: they come through,
 * leave exactly what a put without faults leaves, and half an object is never seen.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { join } from "node:path";
import { connect } from "nats";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { type Digest, formatDigest } from "../../src/model/bytes.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import type { ShardpactError } from "../../src/model/errors.ts";
import type { ShardStore } from "../../src/shards/port.ts";
import { openStore } from "../../src/shards/stores/open-store.ts";
import { someBytes } from "../contract/shard-store.ts";
import { type JetStream, startJetStream } from "../support/jetstream.ts";
import { openTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

const MiB = 1024 * 1024;
const CHUNKS_A_PIECE = 8;
const bytes = someBytes(5 * MiB + 1000, 1);
const digest = formatDigest(hashBytes(bytes));
let dir: TempDir;
let jetStream: JetStream;
let buckets = 0;

beforeAll(async () => {
  dir = await tempDir("nats-put-faults");
  jetStream = await startJetStream(join(dir.path, "nats"));
});
afterAll(async () => {
  await jetStream.server.stop();
  await dir.remove();
});
afterEach(() => vi.restoreAllMocks());
vi.setConfig({ testTimeout: 40_000 });

/** An empty bucket, reached over a line that may fail. */
async function bucketOf(): Promise<{ store: ShardStore; name: string; line: TcpProxy } & AsyncDisposable> {
  const name = `puts-${++buckets}`;
  const line = await openTcpProxy("127.0.0.1", Number(new URL(jetStream.url).port));
  const store = await openStore(`nats://127.0.0.1:${line.port}/${name}`);
  await store.stat(digest); // connected
  const close = async (): Promise<void> => {
    line.flow();
    await store.close();
    await line.close();
  };
  return { store, name, line, [Symbol.asyncDispose]: close };
}

async function* chunks(of: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < of.byteLength; at += 300_000) yield of.subarray(at, at + 300_000);
}

/** The line is cut and comes back; answers that were under way are lost. */
async function cut(line: TcpProxy, lostMs = 15): Promise<void> {
  line.hold("back");
  await sleep(lostMs);
  await line.down();
  line.flow();
  await sleep(100);
  await line.up();
}

/** Deadlines pass so many times as fast. */
function hurryDeadlines(times: number): void {
  const timeout = AbortSignal.timeout.bind(AbortSignal);
  vi.spyOn(AbortSignal, "timeout").mockImplementation((ms) => timeout(ms / times));
}

/** Messages that the server holds: of entries, and of pieces. */
async function held(name: string, url = jetStream.url): Promise<[number, number]> {
  const nc = await connect({ servers: url });
  const { streams } = await nc.jetstreamManager();
  const [entries, pieces] = await Promise.all([streams.info(`OBJ_${name}`), streams.info(`OBJ_${name}-pieces`)]);
  await nc.close();
  return [entries.state.messages, pieces.state.messages];
}

/** A chunk and what names it, for each object of the client. */
const whole = (objects: number): [number, number] => [
  2 * objects,
  objects * (Math.floor(bytes.byteLength / MiB) * (CHUNKS_A_PIECE + 1) + 2),
];

async function expectWhole(store: ShardStore, of: Digest = digest, expected: Uint8Array = bytes): Promise<void> {
  await using handle = await store.open(of);
  const back = new Uint8Array(handle.bytes);
  expect(await handle.readInto(back, 0)).toBe(expected.byteLength);
  expect(Buffer.compare(back, expected)).toBe(0);
}

test("any number of requests at a time is no leak", async () => {
  await using bucket = await bucketOf();
  const warnings: Error[] = [];
  const onWarning = (warning: Error): void => void warnings.push(warning);
  process.on("warning", onWarning);
  await bucket.store.put(digest, chunks(bytes));
  await Promise.all(Array.from({ length: 40 }, () => bucket.store.stat(digest)));
  await sleep(0);
  process.off("warning", onWarning);
  expect(warnings).toEqual([]);
});

test("a line that is cut in the middle of pieces, twice: the put goes on, nothing is left over", async () => {
  await using bucket = await bucketOf();
  let told = 0;
  const cuts: Promise<void>[] = [];
  const onBytes = (n: number): void => {
    told += n;
    if (told === MiB || told === 4 * MiB) cuts.push(cut(bucket.line));
  };
  expect(await bucket.store.put(digest, chunks(bytes), { bytes: bytes.byteLength, onBytes })).toBe("stored");
  expect(told).toBe(bytes.byteLength);
  expect(cuts).toHaveLength(2);
  await Promise.all(cuts);
  await expectWhole(bucket.store);
  expect(await held(bucket.name)).toEqual(whole(1));
});

test("the answer to any request of a put is lost: it is stored once, nothing is left over", async () => {
  await using bucket = await bucketOf();
  const { store, line } = bucket;
  for (let n = 0; n < 14; n++) {
    const small = someBytes(2000, 100 + n);
    const of = formatDigest(hashBytes(small));
    line.delay(8); // a request and its answer take sixteen, a put has ten of them
    const putting = store.put(of, chunks(small));
    await sleep(n * 14);
    const cutting = cut(line);
    expect(await putting).toBe("stored");
    await cutting;
    await expectWhole(store, of, small);
    expect(await held(bucket.name)).toEqual([2 * (n + 1), 2 * (n + 1)]);
  }
});

test("a server that is killed in the middle of a put, and started again: the put goes on, nothing is left over", async () => {
  await using own = await startJetStream(join(dir.path, "killed"));
  await using store = await openStore(`${own.url}/killed`);
  let told = 0;
  const restarts: Promise<void>[] = [];
  const restart = async (): Promise<void> => {
    await own.server.kill("SIGKILL");
    await own.server.start();
  };
  const onBytes = (n: number): void => {
    told += n;
    if (told === 3 * MiB) restarts.push(restart());
  };
  expect(await store.put(digest, chunks(bytes), { onBytes })).toBe("stored");
  expect(restarts).toHaveLength(1);
  await Promise.all(restarts);
  await expectWhole(store);
  expect(await held("killed", own.url)).toEqual(whole(1));
});

test("a line that is cut for good: given up at the deadline, nothing is to be seen; what is left goes with a later put", async () => {
  await using bucket = await bucketOf();
  await using direct = await openStore(`${jetStream.url}/${bucket.name}`);
  hurryDeadlines(100);
  let told = 0;
  const onBytes = (n: number): void => {
    told += n;
    if (told === 2 * MiB) void bucket.line.down();
  };
  await expect(bucket.store.put(digest, chunks(bytes), { onBytes })).rejects.toMatchObject({
    code: "store_failed",
    retryable: true,
    message: expect.stringContaining("no answer within"),
  });
  expect(await direct.stat(digest)).toBeNull();
  await expect(direct.open(digest)).rejects.toMatchObject({ code: "not_found" });
  expect((await held(bucket.name))[1]).toBeGreaterThanOrEqual(2 * (CHUNKS_A_PIECE + 1));
  vi.restoreAllMocks();
  expect(await direct.put(digest, chunks(bytes))).toBe("stored");
  expect((await held(bucket.name))[1]).toBeGreaterThan(whole(1)[1]); // its writer may be alive
  await direct.quarantine(digest, "to be put again");
  const nowMs = Date.now();
  vi.spyOn(Date, "now").mockReturnValue(nowMs + 25 * 3_600_000);
  expect(await direct.put(digest, chunks(bytes))).toBe("stored");
  const [, pieces] = await held(bucket.name);
  expect(pieces).toBe(2 * whole(1)[1]); // the copy that was set aside is evidence, and stays
  await expectWhole(direct);
});

test("a line that is cut for good at any request of a put: the object is there whole, or not at all", async () => {
  await using bucket = await bucketOf();
  await using direct = await openStore(`${jetStream.url}/${bucket.name}`);
  const { store, line } = bucket;
  const outcomes: Record<string, number> = {};
  for (let n = 0; n < 14; n++) {
    await vi.waitFor(() => store.stat(digest), 10_000);
    hurryDeadlines(200);
    const small = someBytes(2000, 200 + n);
    const of = formatDigest(hashBytes(small));
    line.delay(8);
    const putting = store.put(of, chunks(small)).catch((error: ShardpactError) => error.code);
    await sleep(n * 14);
    line.hold("back");
    await sleep(15);
    await line.down();
    const there = [await putting, (await direct.stat(of)) === null ? "not there" : "there"].join(", ");
    outcomes[there] = (outcomes[there] ?? 0) + 1;
    if (there.endsWith(" there") && !there.endsWith("not there")) await expectWhole(direct, of, small);
    vi.restoreAllMocks();
    line.flow();
    await line.up();
  }
  expect(outcomes["stored, not there"]).toBeUndefined();
  expect(outcomes["store_failed, not there"]).toBeGreaterThan(0);
});

test("the line is cut for good after the entry has come, before its answer: the put fails, the object is there whole", async () => {
  await using bucket = await bucketOf();
  await using direct = await openStore(`${jetStream.url}/${bucket.name}`);
  const watcher = await connect({ servers: jetStream.url });
  watcher.subscribe(`$O.${bucket.name}.M.>`, {
    callback() {
      bucket.line.hold("back");
      void bucket.line.down();
    },
  });
  await watcher.flush();
  bucket.line.delay(100);
  hurryDeadlines(50);
  await expect(bucket.store.put(digest, chunks(bytes))).rejects.toMatchObject({ code: "store_failed" });
  await watcher.close();
  await expectWhole(direct);
  expect(await direct.put(digest, chunks(bytes))).toBe("present");
});

test("of many that put one object at once over a bad line, one stores it; nothing of the others is left over", async () => {
  await using bucket = await bucketOf();
  await using direct = await openStore(`${jetStream.url}/${bucket.name}`);
  const putting = [bucket.store, direct, bucket.store, direct].map((store) => store.put(digest, chunks(bytes)));
  await sleep(60);
  await cut(bucket.line);
  const results = await Promise.all(putting);
  expect(results.filter((result) => result === "stored")).toHaveLength(1);
  expect(await held(bucket.name)).toEqual(whole(1));
  await expectWhole(direct);
});
