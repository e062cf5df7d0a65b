/**
 * S3 and NATS stores that fail in every way that a server, a balancer or a line can: the right bytes come all the same, from the
 * next store or the next try, or a clear error within the deadline that names the bad copy.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { RecordBatch } from "apache-arrow";
import { connect } from "nats";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { createHostLoader } from "../../src/loader/host-loader.ts";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import type { ShardpactError } from "../../src/model/errors.ts";
import { LIMITS } from "../../src/model/limits.ts";
import type { ShardStore } from "../../src/shards/port.ts";
import { openStore } from "../../src/shards/stores/open-store.ts";
import { batchOf, listsOf, makeVersion, type TestVersion } from "../loader/support/version.ts";
import { type FaultProxy, openFaultProxy, PROXY_FAULTS, type ProxyFault } from "../support/fault-proxy.ts";
import { type JetStream, startJetStream } from "../support/jetstream.ts";
import { type S3Server, startS3 } from "../support/s3-server.ts";
import { openTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

const ROWS = 6_000;
/** Numbers in a row: the first is the row's number, the others are made of it. */
const WIDTH = 256;
let dir: TempDir;
let data: TestVersion;
let expected: readonly number[];
let buckets = 0;

beforeAll(async () => {
  dir = await tempDir("remote-store-faults");
  data = await makeVersion({ splits: { "": wideBatches() }, shardBytes: 1024 * 1024 });
  expected = await rowsOf(data.version.stores);
  expect(expected).toHaveLength(ROWS);
});
afterAll(async () => {
  await data.close();
  await dir.remove();
});
afterEach(() => vi.restoreAllMocks());

function* wideBatches(): Generator<RecordBatch> {
  for (let from = 0; from < ROWS; from += 500) {
    const values = new Float32Array(500 * WIDTH);
    for (let i = 0; i < values.length; i++) values[i] = from + Math.floor(i / WIDTH) + (i % WIDTH) / WIDTH;
    yield batchOf({ x: listsOf(values, WIDTH) });
  }
}
vi.setConfig({ testTimeout: 30_000 });

/** All rows through these stores, with little read ahead; those of a batch must belong together. */
async function rowsOf(stores: readonly ShardStore[], onBatch?: () => unknown): Promise<number[]> {
  const options = { xs: "x", batchSize: 64, shuffle: "none", memory: 3_000_000 } as const;
  await using loader = createHostLoader({ ...data.version, stores }, options, { ...DEFAULT_PORTS, reads: "inline" });
  const rows: number[] = [];
  const iterator = loader.iterate();
  for (let batch = await iterator.next(); batch; batch = await iterator.next()) {
    const x = batch.columns.xs["x"]?.data ?? [];
    for (let i = 0; i < x.length; i++) {
      const [row = -1, column] = [x[i - (i % WIDTH)], i % WIDTH];
      if (x[i] !== row + column / WIDTH) expect.unreachable(`row ${row} is torn at ${column}`);
      if (column === 0) rows.push(row);
    }
    loader.ack();
    await onBatch?.();
  }
  return rows;
}

const failureOf = (reading: Promise<unknown>): Promise<ShardpactError> =>
  reading.then(
    () => expect.unreachable("it must fail"),
    (error: ShardpactError) => error,
  );

/** A good copy of all shards and indexes. */
async function fill(store: ShardStore): Promise<void> {
  const [local] = data.version.stores as [ShardStore];
  for (const { digest, segmentIndex } of data.data.pages.flat()) {
    await store.put(digest, bytesOf(local, digest));
    await store.put(segmentIndex, bytesOf(local, segmentIndex), { context: "segmentIndex" });
  }
}

async function* bytesOf(store: ShardStore, digest: `b3:${string}`): AsyncGenerator<Uint8Array> {
  await using handle = await store.open(digest);
  const bytes = new Uint8Array(handle.bytes);
  await handle.readInto(bytes, 0);
  yield bytes;
}

/** Deadlines are what they are in `LIMITS`, and pass three hundred times as fast. */
function hurryDeadlines(): Set<number> {
  const deadlines = new Set<number>();
  const timeout = AbortSignal.timeout.bind(AbortSignal);
  vi.spyOn(AbortSignal, "timeout").mockImplementation((ms) => {
    deadlines.add(ms);
    return timeout(ms / 300);
  });
  return deadlines;
}

describe("an S3 bucket", () => {
  let s3: S3Server;
  let proxy: FaultProxy;
  beforeAll(async () => {
    s3 = await startS3(join(dir.path, "s3"));
  });
  afterAll(() => s3.stop());

  /** A bucket with a good copy, and a store that reaches it through the proxy. */
  async function bucketOf(): Promise<{ store: ShardStore; name: string } & AsyncDisposable> {
    const name = `faults-${++buckets}`;
    const direct = await s3.bucket(name);
    await using filler = await openStore(direct);
    await fill(filler);
    const address = new URL(direct);
    proxy = await openFaultProxy(address.searchParams.get("endpoint") ?? "");
    address.searchParams.set("endpoint", proxy.url);
    const store = await openStore(address.href);
    const close = async (): Promise<void> => {
      await store.close();
      await proxy.close();
    };
    return { store, name, [Symbol.asyncDispose]: close };
  }

  /** The first `times` requests for each object fail so; a wrong size is told where a size is asked for. */
  function atFirst(fault: ProxyFault, times: number): (method: string, path: string) => ProxyFault | null {
    const seen = new Map<string, number>();
    return (method, path) => {
      if (method !== (fault === "grown" ? "HEAD" : "GET")) return null;
      const count = (seen.get(path) ?? 0) + 1;
      seen.set(path, count);
      return count <= times ? fault : null;
    };
  }

  test.each(PROXY_FAULTS)("%s at first: the next store serves, and all rows come in order", async (fault) => {
    hurryDeadlines();
    await using bucket = await bucketOf();
    proxy.set(atFirst(fault, 2));
    expect(await rowsOf([bucket.store, ...data.version.stores])).toEqual(expected);
  });

  test.each(["500", "503", "reset", "short", "less", "empty", "no_range", "drip"] as const)(
    "%s at first, and no other store: it is tried again",
    async (fault) => {
      await using bucket = await bucketOf();
      proxy.set(atFirst(fault, 2));
      expect(await rowsOf([bucket.store])).toEqual(expected);
      await expect(readdir(join(s3.dir, bucket.name, "shards", "quarantine"))).rejects.toMatchObject({
        code: "ENOENT",
      });
    },
  );

  test.each([
    ...(["500", "503", "reset", "short", "less", "empty", "no_range"] as const).map(
      (f) => [f, "store_failed"] as const,
    ),
    ["404", "not_found"],
    ["wrong", "shard_corrupt"],
  ] as const)("%s for good, and no other store: %s, naming the store", async (fault, code) => {
    await using bucket = await bucketOf();
    proxy.set(atFirst(fault, Infinity));
    const error = await failureOf(rowsOf([bucket.store]));
    expect(error.code, error.message).toBe(code);
    expect(error.message).toContain(bucket.store.url);
    if (code !== "shard_corrupt") return;
    const kept = await readdir(join(s3.dir, bucket.name, "shards", "quarantine"));
    const why = kept.filter((name) => name.endsWith(".reason.txt"));
    expect(why.length).toBeGreaterThan(0);
    for (const name of why) {
      expect(kept).toContain(name.replace(".reason.txt", ""));
      const reason = await readFile(join(s3.dir, bucket.name, "shards", "quarantine", name), "utf8");
      expect(reason).toContain(bucket.store.url);
    }
  });

  test.each(["hang", "stall"] as const)("%s for good: given up at the deadline", async (fault) => {
    const deadlines = hurryDeadlines();
    await using bucket = await bucketOf();
    proxy.set(atFirst(fault, Infinity));
    expect(await rowsOf([bucket.store, ...data.version.stores])).toEqual(expected);
    const error = await failureOf(rowsOf([bucket.store]));
    expect(error).toMatchObject({ code: "store_failed", message: expect.stringContaining("no answer within") });
    expect(deadlines).toEqual(new Set([LIMITS.storeRequestTimeoutMs]));
  });

  test("a server that is killed in the middle of an epoch: a clear error alone, and the next store's rows", async () => {
    await using own = await startS3(join(dir.path, "s3-own"));
    await using filler = await openStore(await own.bucket("killed"));
    await fill(filler);
    let batches = 0;
    const reading = rowsOf([filler, ...data.version.stores], async () => {
      if (++batches === 2) await own.stop();
    });
    expect(await reading).toEqual(expected);
    expect(await failureOf(rowsOf([filler]))).toMatchObject({ code: "store_failed", retryable: true });
  });
});

describe("a NATS object store", () => {
  let jetStream: JetStream;
  beforeAll(async () => {
    jetStream = await startJetStream(join(dir.path, "nats"));
  });
  afterAll(() => jetStream.server.stop());

  /** A bucket with a good copy, and a store that reaches it over a line that may fail. */
  async function bucketOf(): Promise<{ store: ShardStore; name: string; line: TcpProxy } & AsyncDisposable> {
    const name = `faults-${++buckets}`;
    await using filler = await openStore(`${jetStream.url}/${name}`);
    await fill(filler);
    const line = await openTcpProxy("127.0.0.1", Number(new URL(jetStream.url).port));
    const store = await openStore(`nats://127.0.0.1:${line.port}/${name}`);
    const close = async (): Promise<void> => {
      line.flow();
      await store.close();
      await line.close();
    };
    return { store, name, line, [Symbol.asyncDispose]: close };
  }

  /** Removes or replaces stored messages behind the store's back; the last of each object, or all. */
  async function damage(bucket: string, change: "chunk gone" | "entry gone" | "other bytes"): Promise<void> {
    const nc = await connect({ servers: jetStream.url });
    const { views } = nc.jetstream();
    const [entries, pieces] = await Promise.all([views.os(bucket), views.os(`${bucket}-pieces`)]);
    if (change === "entry gone") for (const { name } of await entries.list()) await entries.delete(name);
    if (change === "chunk gone") {
      const jsm = await nc.jetstreamManager();
      await jsm.streams.purge(`OBJ_${bucket}-pieces`, { filter: `$O.${bucket}-pieces.C.>` });
    }
    if (change === "other bytes") {
      for (const { name } of await pieces.list()) {
        const bytes = (await pieces.getBlob(name)) as Uint8Array;
        bytes[bytes.byteLength >> 1] = (bytes[bytes.byteLength >> 1] as number) ^ 8;
        await pieces.putBlob({ name }, bytes);
      }
    }
    await nc.close();
  }

  test.each([
    ["chunk gone", "store_failed"],
    ["entry gone", "not_found"],
    ["other bytes", "shard_corrupt"],
  ] as const)("%s: the next store serves; alone it is %s, naming the store", async (change, code) => {
    hurryDeadlines();
    await using bucket = await bucketOf();
    await damage(bucket.name, change);
    expect(await rowsOf([bucket.store, ...data.version.stores])).toEqual(expected);
    if (code === "shard_corrupt") expect(await quarantined(bucket.name)).toContain(bucket.store.url);
    await using again = await bucketOf();
    await damage(again.name, change);
    const error = await failureOf(rowsOf([again.store]));
    expect(error.code, error.message).toBe(code);
    expect(error.message).toContain(again.store.url);
  });

  /** Why copies were set aside. */
  async function quarantined(bucket: string): Promise<string> {
    const nc = await connect({ servers: jetStream.url });
    const kept = await (await nc.jetstream().views.os(`${bucket}-quarantine`)).list();
    await nc.close();
    expect(kept.length).toBeGreaterThan(0);
    return kept.map(({ description }) => description).join();
  }

  test("a slow line: all rows come", async () => {
    await using bucket = await bucketOf();
    bucket.line.delay(5);
    expect(await rowsOf([bucket.store])).toEqual(expected);
  });

  test("a line that is cut in the middle of an epoch, and comes back: all rows come", async () => {
    await using bucket = await bucketOf();
    let batches = 0;
    const rows = await rowsOf([bucket.store], async () => {
      if (++batches !== 2) return;
      await bucket.line.down();
      setTimeout(() => void bucket.line.up(), 300);
    });
    expect(rows).toEqual(expected);
  });

  test.each(["stopped server", "silent line", "line that is cut"] as const)(
    "%s: given up at the deadline, the next store serves; whole again, it serves itself",
    async (fault) => {
      const deadlines = hurryDeadlines();
      await using bucket = await bucketOf();
      const [local] = data.version.stores as [ShardStore];
      const [entry] = data.data.pages.flat();
      await (await bucket.store.open(entry?.digest as `b3:${string}`)).close(); // connected
      const { server } = jetStream;
      if (fault === "stopped server") await server.kill("SIGSTOP");
      else if (fault === "silent line") bucket.line.hold("back");
      else await bucket.line.down();
      try {
        expect(await rowsOf([bucket.store, local])).toEqual(expected);
        const error = await failureOf(rowsOf([bucket.store]));
        expect(error).toMatchObject({ code: "store_failed", retryable: true });
        expect(error.message).toContain(bucket.store.url);
        expect(deadlines).toEqual(new Set([LIMITS.storeRequestTimeoutMs]));
      } finally {
        if (fault === "stopped server") await server.kill("SIGCONT");
        bucket.line.flow();
        await bucket.line.up();
      }
      vi.restoreAllMocks();
      // A line that was down for long is told at once, until the client has dialled again.
      await vi.waitFor(async () => expect(await rowsOf([bucket.store])).toEqual(expected), 10_000);
    },
  );
});
