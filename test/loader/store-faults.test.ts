/**
 * Stores that fail in every way that we could think of: the right bytes come all the same, or a clear error; nothing is made up, left open
 * or waited for without end.
 */
import { appendFile, mkdir, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { createPassedOverNotices } from "../../src/client/passed-over.ts";
import type { Notice } from "../../src/client/session.ts";
import type { ConfirmedVersion } from "../../src/client/types.ts";
import { createHostLoader, type HostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import { isShardpactError, ShardpactError } from "../../src/model/errors.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { openCachedStore } from "../../src/shards/cache/cached-store.ts";
import type { ObjectHandle, ReadableStore, ShardStore } from "../../src/shards/port.ts";
import { openHttpStore } from "../../src/shards/stores/http-store.ts";
import { openFiles } from "../support/open-files.ts";
import { serveFolder, type HttpFault } from "../support/static-server.ts";
import { tempDir } from "../support/temp-dir.ts";
import { makeVersion, numberedBatches, type TestVersion } from "./support/version.ts";

const ROWS = 1500;
let data: TestVersion;
beforeAll(async () => {
  data = await makeVersion({ splits: { "": numberedBatches(ROWS, 60) }, shardBytes: 3000 });
});
afterAll(() => data.close());
afterEach(() => vi.restoreAllMocks());

const FAULTS = ["fail", "foreign", "timeout", "slow", "short", "wrong", "ends", "vanish", "grown"] as const;
type Fault = (typeof FAULTS)[number];

interface Faulty extends ReadableStore {
  readonly quarantined: string[];
  readonly open_: { handles: number };
}

/** A store in front of another whose n-th call (opens and reads alike) fails as `faultAt(n)` says. */
function faulty(store: ShardStore, faultAt: (call: number) => Fault | null): Faulty {
  let calls = 0;
  const quarantined: string[] = [];
  const open_ = { handles: 0 };
  const failing = async (fault: Fault | null): Promise<void> => {
    if (fault === "fail") throw new ShardpactError("store_failed", "HTTP 500");
    if (fault === "foreign") throw new TypeError("socket hang up");
    if (fault === "timeout") throw new ShardpactError("timeout", "no answer in time");
    if (fault === "vanish") throw new ShardpactError("not_found", "it was there a moment ago");
    if (fault === "slow") await sleep(1 + (calls % 5));
  };
  const handleOf = (handle: ObjectHandle, bytes: number): ObjectHandle => {
    open_.handles++;
    let isOpen = true;
    const close = async (): Promise<void> => {
      if (isOpen) open_.handles--;
      isOpen = false;
      await handle.close();
    };
    const readInto = async (target: Uint8Array, position: number): Promise<number> => {
      const fault = faultAt(calls++);
      await failing(fault);
      if (fault === "ends") return 0;
      if (fault === "short" && target.byteLength > 1)
        return handle.readInto(target.subarray(0, target.byteLength >> 1), position);
      const got = await handle.readInto(target, position);
      if (fault === "wrong" && got > 0) target[got >> 1] = (target[got >> 1] as number) ^ 8;
      return got;
    };
    return { bytes, readInto, close, [Symbol.asyncDispose]: close };
  };
  return {
    url: "faulty:store",
    quarantined,
    open_,
    async open(digest, signal) {
      const fault = faultAt(calls++);
      await failing(fault);
      const handle = await store.open(digest, signal);
      return handleOf(handle, handle.bytes + (fault === "grown" ? 1 : 0));
    },
    quarantine: async (digest) => void quarantined.push(digest),
  };
}

const over = (stores: readonly ReadableStore[]): ConfirmedVersion => ({
  ...data.version,
  stores: stores as readonly ShardStore[],
});
const PORTS = { ...DEFAULT_PORTS, reads: "inline" } as const;
const OPTIONS = { xs: "x", batchSize: 64, shuffle: "full", seed: 5 } as const;
const make = (
  version: ConfirmedVersion,
  o: Partial<LoaderOptions> = {},
  reads: "inline" | "worker" = "inline",
): HostLoader => createHostLoader(version, { ...OPTIONS, ...o }, { ...PORTS, reads });

/** The rows that a loader gives until it ends; those of a batch must belong together. */
async function rowsOf(loader: HostLoader): Promise<number[]> {
  const rows: number[] = [];
  const iterator = loader.iterate();
  for (let batch = await iterator.next(); batch; batch = await iterator.next()) {
    const x = batch.columns.xs["x"]?.data ?? [];
    for (let i = 0; i < x.length; i += 3) {
      expect([x[i + 1], x[i + 2]]).toEqual([(x[i] as number) + 0.5, -(x[i] as number)]);
      rows.push(x[i] as number);
    }
    loader.ack();
  }
  return rows;
}

const expectedRows = async (): Promise<number[]> => {
  await using loader = make(data.version);
  return await rowsOf(loader);
};

/** What a loader over bad stores may say. */
const FAILURES = new Set(["shard_corrupt", "not_found", "store_failed", "timeout"]);

describe.each(["inline", "worker"] as const)("stores that fail now and then (%s)", (reads) => {
  const schedule = fc.array(fc.tuple(fc.nat(7), fc.constantFrom(...FAULTS)), { minLength: 1, maxLength: 20 });
  const RUNS = reads === "inline" ? 25 : 8;

  test("with a good one behind them, all rows come in order; nothing stays open", { timeout: 120_000 }, async () => {
    const expected = await expectedRows();
    const files = openFiles();
    await fc.assert(
      fc.asyncProperty(schedule, async (faults) => {
        const bad = faulty(data.version.stores[0] as ShardStore, (call) =>
          faults[call % faults.length]?.[0] === call % 8 ? (faults[call % faults.length]?.[1] ?? null) : null,
        );
        await using loader = make(over([bad, ...data.version.stores]), {}, reads);
        expect(await rowsOf(loader)).toEqual(expected);
        await loader.close();
        expect(bad.open_.handles).toBe(0);
      }),
      { numRuns: RUNS },
    );
    await expect.poll(openFiles).toBeLessThanOrEqual(files);
  });

  test(
    "alone, it is the right rows or a clear error, and iterating again goes on at the cursor",
    { timeout: 120_000 },
    async () => {
      const expected = await expectedRows();
      await fc.assert(
        fc.asyncProperty(schedule, async (faults) => {
          let calls = 0;
          const isOver = () => calls > 400; // then it is whole again
          const bad = faulty(data.version.stores[0] as ShardStore, (call) => {
            calls = call;
            const fault = faults[call % faults.length];
            return isOver() || fault?.[0] !== call % 8 ? null : fault[1];
          });
          await using loader = make(over([bad]), {}, reads);
          const rows: number[] = [];
          for (let tries = 0; tries < 200 && loader.state().epoch === 0; tries++) {
            const iterator = loader.iterate();
            try {
              for (let batch = await iterator.next(); batch; batch = await iterator.next()) {
                rows.push(...Array.from(batch.columns.xs["x"]?.data ?? []).filter((_, i) => i % 3 === 0));
                loader.ack();
              }
            } catch (error) {
              expect(isShardpactError(error) && FAILURES.has(error.code), String(error)).toBe(true);
            }
          }
          expect(rows).toEqual(expected);
        }),
        { numRuns: RUNS },
      );
    },
  );

  test("one that did not help is told of, though another one did: wrong bytes by shard, failures by store", async () => {
    const [good] = data.version.stores;
    for (const fault of ["wrong", "fail"] as const) {
      const bad = faulty(good as ShardStore, () => fault);
      const notices: Notice[] = [];
      const onPassedOver = createPassedOverNotices((notice) => notices.push(notice));
      await using loader = make({ ...over([bad, good as ShardStore]), onPassedOver }, {}, reads);
      expect(await rowsOf(loader)).toEqual(await expectedRows());
      expect(await rowsOf(loader)).toHaveLength(ROWS); // the next epoch asks it again, and says no more
      if (fault === "fail") expect(notices).toMatchObject([{ code: "store_failed", details: { store: bad.url } }]);
      else {
        expect(notices.length).toBeGreaterThan(2);
        expect(new Set(notices.map(({ code }) => code))).toEqual(new Set(["bad_copy"]));
        expect(new Set(notices.map(({ message }) => message)).size).toBe(notices.length);
        expect(notices[0]?.message).toContain(bad.url);
      }
    }
  });

  test("one that gives less than it is asked for is read on, not taken for damaged", async () => {
    const bad = faulty(data.version.stores[0] as ShardStore, () => "short");
    await using loader = make(over([bad]), {}, reads);
    expect(await rowsOf(loader)).toEqual(await expectedRows());
    expect(bad.quarantined).toEqual([]);
  });

  test(
    "one that hangs ends with its caller: by close, or by a signal with a reason of its own",
    { timeout: 60_000 },
    async () => {
      for (const way of ["close", "abort"] as const) {
        let calls = 0;
        const store = data.version.stores[0] as ShardStore;
        const never = new Promise<never>(() => undefined); // it hears no signal
        const { url, quarantine } = store;
        const hanging: ReadableStore = {
          url,
          quarantine: (digest, reason) => quarantine.call(store, digest, reason),
          async open(digest) {
            if (++calls > 6) return never;
            const handle = await store.open(digest);
            return {
              ...handle,
              readInto: (target, position) => (++calls > 6 ? never : handle.readInto(target, position)),
            };
          },
        };
        const controller = new AbortController();
        const loader = make(over([hanging]), { signal: controller.signal }, reads);
        const reading = rowsOf(loader).then(
          () => expect.unreachable("it hangs"),
          (error: ShardpactError) => error,
        );
        await sleep(300);
        const reason = new Error("the user went home");
        if (way === "abort") controller.abort(reason);
        else await loader.close();
        const { code, cause } = await reading;
        expect(["aborted", "closed"]).toContain(code);
        if (way === "abort") expect([code, cause]).toEqual(["aborted", reason]);
        await loader.close();
      }
    },
  );
});

describe("a web server", () => {
  test(
    "that fails in one way after the other: the next store in line serves, or it is tried again",
    { timeout: 120_000 },
    async () => {
      const expected = await expectedRows();
      await using server = await serveFolder(data.store);
      await using remote = openHttpStore(server.url);
      for (const fault of ["500", "short", "reset", "wrong", "no_range"] as const satisfies readonly HttpFault[]) {
        server.fail(fault, 40);
        await using loader = make(over([remote, ...data.version.stores]));
        expect(await rowsOf(loader), fault).toEqual(expected);
      }
      for (const fault of ["500", "short", "reset"] as const) {
        server.fail(fault, 2); // a request is made three times
        await using loader = make(over([remote]));
        expect(await rowsOf(loader), fault).toEqual(expected);
      }
      server.fail("wrong", 1);
      await using lied = make(over([remote]));
      await expect(rowsOf(lied)).rejects.toMatchObject({ code: "shard_corrupt" });
    },
  );

  test("that hangs is given up at its deadline, and the next store serves", { timeout: 60_000 }, async () => {
    const expected = await expectedRows();
    await using server = await serveFolder(data.store);
    await using remote = openHttpStore(server.url);
    const timeout = AbortSignal.timeout.bind(AbortSignal);
    const deadlines: number[] = [];
    vi.spyOn(AbortSignal, "timeout").mockImplementation((ms) => {
      deadlines.push(ms);
      return timeout(ms / 200);
    });
    server.fail("hang", 3);
    await using loader = make(over([remote, ...data.version.stores]));
    expect(await rowsOf(loader)).toEqual(expected);
    expect(new Set(deadlines)).toEqual(new Set([LIMITS.storeRequestTimeoutMs]));
    server.fail("hang", 1000);
    await using alone = make(over([remote]));
    await expect(rowsOf(alone)).rejects.toMatchObject({ code: "store_failed" });
  });

  test("that goes away in the middle of an epoch is a clear error, and comes back", { timeout: 60_000 }, async () => {
    const expected = await expectedRows();
    const server = await serveFolder(data.store);
    await using remote = openHttpStore(server.url);
    await using loader = make(over([remote]), { batchSize: 4, memory: 80_000 });
    const iterator = loader.iterate();
    const first = await iterator.next();
    loader.ack();
    await server.close();
    await expect(rowsOf(loader)).rejects.toMatchObject({ code: "store_failed", retryable: true });
    expect(Array.from(first?.columns.xs["x"]?.data ?? []).filter((_, i) => i % 3 === 0)).toEqual(expected.slice(0, 4));
  });
});

describe("a cache folder", () => {
  const DAMAGE: Readonly<Record<string, (path: string) => Promise<void>>> = {
    "a flipped bit": async (path) => {
      const bytes = await readFile(path);
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
      await writeFile(path, bytes);
    },
    "a cut": (path) => truncate(path, 7),
    "more bytes": (path) => appendFile(path, "more"),
    "nothing left": (path) => rm(path),
    "a folder in its place": async (path) => {
      await rm(path);
      await mkdir(path);
    },
  };

  test.each(Object.entries(DAMAGE))(
    "with %s in every piece, while it is read: all rows come",
    async (_name, damage) => {
      const expected = await expectedRows();
      await using folder = await tempDir("cache");
      const dir = join(folder.path, "cache");
      await using cache = await openCachedStore(data.version.stores, { dir, bytesMax: 64 * 1024 * 1024 });
      const stores = [cache, ...data.version.stores];
      await using warm = make(over(stores));
      expect(await rowsOf(warm)).toEqual(expected);
      await using loader = make(over(stores), { batchSize: 16 });
      const iterator = loader.iterate();
      const first = await iterator.next();
      loader.ack();
      for (const name of await readdir(join(dir, "b3"), { recursive: true })) {
        if (/\/\d+$/.test(name)) await damage(join(dir, "b3", name));
      }
      const got = Array.from(first?.columns.xs["x"]?.data ?? []).filter((_, i) => i % 3 === 0);
      expect([...got, ...(await rowsOf(loader))]).toEqual(expected);
      await using again = make(over(stores));
      expect(await rowsOf(again)).toEqual(expected);
    },
  );

  test("that is removed while it is read: all rows come", async () => {
    const expected = await expectedRows();
    await using folder = await tempDir("cache");
    const dir = join(folder.path, "cache");
    await using cache = await openCachedStore(data.version.stores, { dir, bytesMax: 64 * 1024 * 1024 });
    await using loader = make(over([cache, ...data.version.stores]), { batchSize: 16 });
    const iterator = loader.iterate();
    const first = await iterator.next();
    loader.ack();
    await rm(dir, { recursive: true, maxRetries: 5 }); // it is being filled meanwhile
    const got = Array.from(first?.columns.xs["x"]?.data ?? []).filter((_, i) => i % 3 === 0);
    expect([...got, ...(await rowsOf(loader))]).toEqual(expected);
  });
});
