/**
 * A shard of 6.8 GB behind HTTP and in a NATS object store, read through a cache that holds a hundredth of it: places beyond 2³¹
 * and 2³² are asked for, kept and found damaged like any others. Nobody wrote the shard: what is read of it is made.
 */
import { readdir, stat } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { connect } from "nats";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createHostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import { DEFAULT_PORTS } from "../../src/loader/internal.ts";
import { type Digest, utf8 } from "../../src/model/bytes.ts";
import { openCachedStore } from "../../src/shards/cache/cached-store.ts";
import type { ObjectHandle, ReadableStore, ShardStore } from "../../src/shards/port.ts";
import { openStore } from "../../src/shards/stores/open-store.ts";
import { GIANT_ROWS, type GiantShard, makeGiantShard, X_BYTES } from "../loader/support/giant-shard.ts";
import { type JetStream, startJetStream } from "../support/jetstream.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

const MiB = 1024 * 1024;
const BATCH = 40;
const CACHE_BYTES_MAX = 64 * MiB;
const WINDOW: Partial<LoaderOptions> = { shuffle: { strength: "window", windowBytes: 4 * MiB, lanes: 4 } };
/** Where batches are read: a row to begin with, of the order. */
const PLACES: readonly (readonly [string, number, Partial<LoaderOptions>])[] = [
  ["2³¹", Math.floor(2 ** 31 / X_BYTES) - BATCH, {}],
  ["2³²", Math.floor(2 ** 32 / X_BYTES) - BATCH, {}],
  ["its end", GIANT_ROWS - 2 * BATCH, {}],
  ["all over it", 0, WINDOW],
  ["all over it, resumed", GIANT_ROWS - (GIANT_ROWS % BATCH) - 5 * BATCH, WINDOW],
];
/** Beyond 2³². */
const DAMAGED_ROW = Math.floor(2 ** 32 / X_BYTES) + 1000;

let dir: TempDir;
let giant: GiantShard;
let made: ShardStore;
let caches = 0;

beforeAll(async () => {
  dir = await tempDir("giant-remote");
  giant = await makeGiantShard();
  made = giant.version.stores[0] as ShardStore;
});
afterAll(async () => {
  await giant[Symbol.asyncDispose]();
  await dir.remove();
});

/** Ids of the rows of up to two batches; their values are what the rows hold. */
async function rowsFrom(store: ReadableStore, offset: number, o: Partial<LoaderOptions>): Promise<number[]> {
  const options = { xs: ["x", "id"], batchSize: BATCH, memory: 32 * MiB, seed: 3, ...o };
  const version = { ...giant.version, stores: [store as ShardStore] };
  const make = (more: Partial<LoaderOptions> = {}) =>
    createHostLoader(version, { ...options, ...more }, { ...DEFAULT_PORTS, reads: "inline" });
  await using loader = make({ resume: { ...make().state(), offset } });
  const iterator = loader.iterate();
  const rows: number[] = [];
  for (let i = 0; i < 2; i++) {
    const batch = await iterator.next();
    if (batch === null || batch.epoch > 0) break;
    const { x, id } = batch.columns.xs;
    [...(id?.data ?? [])].forEach((row, at) => {
      const values = Uint8Array.from(x?.data.subarray(at * X_BYTES, (at + 1) * X_BYTES) ?? []);
      expect(Buffer.compare(values, giant.xOf(row)), `x of row ${row}`).toBe(0);
      rows.push(row);
    });
  }
  return rows;
}

/** A store of pieces of the giant, its reads told to `onRead`. */
function watched(onRead: (digest: Digest, bytes: number, position: number) => void): ReadableStore {
  const open = async (digest: Digest, signal?: AbortSignal): Promise<ObjectHandle> => {
    const handle = await made.open(digest, signal);
    return {
      ...handle,
      readInto(target, position) {
        onRead(digest, target.byteLength, position);
        return handle.readInto(target, position);
      },
    };
  };
  return { url: made.url, open, quarantine: async () => undefined };
}

/** Reads everything in {@link PLACES} through a small cache, and a damaged byte without. */
async function readsAll(store: ShardStore, damage: () => Promise<void>): Promise<void> {
  const cacheDir = join(dir.path, `cache-${++caches}`);
  {
    await using cached = await openCachedStore([store], { dir: cacheDir, bytesMax: CACHE_BYTES_MAX });
    for (const [name, offset, o] of PLACES) {
      const expected = await rowsFrom(made, offset, o);
      expect(expected.length).toBeGreaterThan(BATCH);
      expect(await rowsFrom(cached, offset, o), name).toEqual(expected);
    }
  }
  const kept = await readdir(join(cacheDir, "b3"), { recursive: true, withFileTypes: true });
  const pieces = kept.filter((f) => f.isFile() && f.name !== "size");
  const sizes = await Promise.all(pieces.map(async (f) => (await stat(join(f.parentPath, f.name))).size));
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  expect(bytes).toBeGreaterThan(CACHE_BYTES_MAX / 2);
  expect(bytes).toBeLessThanOrEqual(CACHE_BYTES_MAX);
  await damage();
  const offset = DAMAGED_ROW - (DAMAGED_ROW % BATCH);
  await expect(rowsFrom(store, offset, {})).rejects.toMatchObject({
    code: "shard_corrupt",
    details: { shard: "train/giant.arrow", segment: 1 },
  });
}

test("over HTTP, in ranges", async () => {
  const server = createServer((request, response) => {
    const digest = `b3:${(request.url ?? "").split("/").at(-1)}` as const;
    made.open(digest).then(
      async (handle) => {
        if (request.method === "HEAD") return void response.writeHead(200, { "content-length": handle.bytes }).end();
        const [, from = "", to = ""] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
        const body = new Uint8Array(Number(to) - Number(from) + 1);
        await handle.readInto(body, Number(from));
        response.writeHead(206).end(body);
      },
      () => response.writeHead(404).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await using store = await openStore(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    await readsAll(store, async () => void (giant.flippedAt = giant.xAt(DAMAGED_ROW) + 5));
  } finally {
    giant.flippedAt = null;
    server.closeAllConnections();
    server.close();
  }
});

describe("in a NATS object store", () => {
  let jetStream: JetStream;
  beforeAll(async () => {
    jetStream = await startJetStream(join(dir.path, "nats"));
  });
  afterAll(() => jetStream.server.stop());

  /** Those pieces of an object, or all. */
  async function putPieces(bucket: string, digest: Digest, some?: ReadonlySet<number>): Promise<void> {
    const nc = await connect({ servers: jetStream.url });
    const { views } = nc.jetstream();
    const [entries, pieces] = await Promise.all([views.os(bucket), views.os(`${bucket}-pieces`)]);
    await using handle = await made.open(digest);
    const all = Array.from({ length: some ? 0 : Math.ceil(handle.bytes / MiB) }, (_, n) => n * MiB);
    for (const position of some ?? all) {
      const bytes = new Uint8Array(Math.min(MiB, handle.bytes - position));
      await handle.readInto(bytes, position);
      await pieces.putBlob({ name: `${digest.slice(3)}/made/${position / MiB}` }, bytes);
    }
    const entry = { bytes: handle.bytes, pieceBytes: MiB, upload: "made" };
    await entries.putBlob({ name: digest.slice(3) }, utf8(JSON.stringify(entry)));
    await nc.close();
  }

  test("of which only pieces are there that are read", async () => {
    const [shard] = await giant.version.page(0);
    const digest = shard?.digest as Digest;
    const positions = new Set<number>();
    const store = watched((of, bytes, position) => {
      const first = Math.floor(position / (4 * MiB)) * 4 * MiB;
      for (let at = first; of === digest && at < position + bytes; at += 4 * MiB)
        for (let piece = at; piece < Math.min(at + 4 * MiB, giant.bytes); piece += MiB) positions.add(piece);
    });
    for (const [, offset, o] of PLACES) await rowsFrom(store, offset, o);
    await rowsFrom(store, DAMAGED_ROW - (DAMAGED_ROW % BATCH), {});
    expect(positions.size * MiB).toBeLessThan(giant.bytes / 10);
    await putPieces("giant", digest, positions);
    await using remote = await openStore(`${jetStream.url}/giant`);
    await putPieces("giant", shard?.segmentIndex as Digest);
    await readsAll(remote, async () => {
      giant.flippedAt = giant.xAt(DAMAGED_ROW) + 5;
      try {
        await putPieces("giant", digest, new Set([Math.floor(giant.flippedAt / MiB) * MiB]));
      } finally {
        giant.flippedAt = null;
      }
    });
  });
});
