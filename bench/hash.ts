/**
 * Bytes per second, verified: the loader against one thread of `b3sum` over the same files, and reading, hashing and decoding
 * alone against plain reads into reused buffers. And how much is read: of a large shard before its first batch, by all ranks.
 */
import { open } from "node:fs/promises";
import { createArena } from "../src/loader/fetch/arena.ts";
import { sideMemoryOf } from "../src/loader/fetch/side-memory.ts";
import type { BatchSegment, ShardPlace } from "../src/loader/fetch/layout.ts";
import { createHostLoader } from "../src/loader/host-loader.ts";
import { DEFAULT_PORTS } from "../src/loader/internal.ts";
import { hashBytes } from "../src/merkle/hash.ts";
import { schemaFromCanonical } from "../src/shards/schema.ts";
import { buildPackage, built } from "./built.ts";
import { counted, makeFloatData, type FloatData } from "./float-data.ts";
import { alternate, b3sum, timed, type Run } from "./peers.ts";
import { type Figure, latency, rate } from "./report.ts";

const RUNS = 5;
const MiB = 1024 * 1024;
const IN_FLIGHT = 4;
const UNIT = "bytes/s";

const never = new AbortController().signal;
const noWarning = (): void => undefined;

/** `fh.read` into one reused buffer of 1 MiB, nothing looked at. */
async function plainReads(files: readonly string[], bytes: number, look?: (piece: Uint8Array) => void): Promise<Run> {
  const buffer = new Uint8Array(MiB);
  const startedMs = performance.now();
  for (const file of files) {
    await using handle = await open(file);
    for (let at = 0; ;) {
      const { bytesRead } = await handle.read(buffer, 0, MiB, at);
      if (bytesRead === 0) break;
      look?.(buffer.subarray(0, bytesRead));
      at += bytesRead;
    }
  }
  return { amount: bytes, ms: performance.now() - startedMs };
}

/** Every record batch read, hashed and decoded by what the loader uses, into reused shared memory; nothing gathered. */
async function openDecoder({ version, bytes }: FloatData): Promise<{ run(): Promise<Run>; close(): Promise<void> }> {
  const { dataset, version: number, stores } = version;
  const where = { dataset, version: number };
  const { createWorkerReads } =
    await built<typeof import("../src/loader/fetch/worker-reads.ts")>("loader/fetch/worker-reads.ts");
  const { createTileReader } =
    await built<typeof import("../src/loader/fetch/tile-reader.ts")>("loader/fetch/tile-reader.ts");
  const reads = createWorkerReads({ where, stores, hashing: "blake3", signal: never, warn: noWarning });
  const schema = schemaFromCanonical(version.schema);
  const allocate = (size: number): Uint8Array => new Uint8Array(new SharedArrayBuffer(size) as unknown as ArrayBuffer);
  const memory = sideMemoryOf(createArena(4 * MiB));
  const reader = createTileReader({ reads, schema, wanted: new Set([0]), tileBytes: MiB, blockRows: 0, memory });
  const buffers = Array.from({ length: IN_FLIGHT }, () => allocate(2 * MiB));
  const segments: BatchSegment[] = [];
  for (const entry of await version.page(0)) {
    const shard: ShardPlace = { entry, firstRow: 0, rows: entry.rows, fileRow: null, batches: null };
    segments.push(...(await reader.open(shard)));
  }
  const run = async (): Promise<Run> => {
    const startedMs = performance.now();
    let next = 0;
    await Promise.all(
      buffers.map(async (buffer) => {
        for (let at = next++; at < segments.length; at = next++) {
          const segment = segments[at] as BatchSegment;
          const { tiles } = reader.tilesOf(segment) ?? (await reader.loadTiles(segment));
          for (const tile of tiles) await reader.read(tile, buffer);
        }
      }),
    );
    return { amount: bytes, ms: performance.now() - startedMs };
  };
  return { run, close: () => reads.close() };
}

async function throughput(note: (line: string) => void): Promise<Figure[]> {
  await using data = await makeFloatData(64, 307);
  const { version, files, bytes, rows } = data;
  await buildPackage();
  const { createHostLoader: shipped } =
    await built<typeof import("../src/loader/host-loader.ts")>("loader/host-loader.ts");
  await using loader = shipped(version, { xs: "x", batchSize: 256, shuffle: false }, DEFAULT_PORTS);
  const epoch = (): Promise<Run> =>
    timed(async () => {
      const iterator = loader.iterate();
      let seen = 0;
      for (let batch = await iterator.next(); batch; batch = await iterator.next()) seen += batch.to - batch.from;
      return bytes * (seen / rows);
    });
  const decoder = await openDecoder(data);
  const hasB3sum = (await b3sum(files, bytes)) !== null;
  if (!hasB3sum) note("no b3sum here: BLAKE3 of @napi-rs/blake-hash in one thread, after plain reads, stands for it");
  const found = await alternate(RUNS, {
    epoch,
    reads: () => plainReads(files, bytes),
    b3sum: async () => (await b3sum(files, bytes)) ?? plainReads(files, bytes, hashBytes),
    decoded: decoder.run,
  });
  await decoder.close();
  for (const [name, { cpuNs }] of Object.entries(found)) note(`${name}: ${(cpuNs * 1000).toFixed(0)} CPU µs a MB`);
  const hashing = hasB3sum ? "b3sum --num-threads 1" : "one thread of @napi-rs/blake-hash";
  const plain = "fh.read, one reused 1 MiB buffer";
  const { epoch: ours, decoded: read, reads, b3sum: theirs } = found;
  return [
    rate("hash", "loader, contiguous, verified", UNIT, ours.rate, { name: hashing, value: theirs.rate }, 0.8),
    rate("hash", "read + hash + decode", UNIT, read.rate, { name: plain, value: reads.rate }, 0.5),
  ];
}

/** Share of a shard of 256 MB, one giant record batch, that is read before its first batch is there. */
async function firstBatch(): Promise<Figure> {
  await using data = await makeFloatData(64, 256, 256e6, 512 * MiB);
  const { version, read } = counted(data.version);
  await using loader = createHostLoader(version, { xs: "x", batchSize: 256, shuffle: false }, DEFAULT_PORTS);
  await loader.iterate().next();
  const share = read.bytes / data.bytes;
  return latency("hash", "256 MB shard: read before its first batch", "share", share, { name: "goal", value: 0.05 }, 1);
}

/** Bytes that all ranks together take from the store in one epoch ÷ bytes of the dataset. */
async function ranks(note: (line: string) => void): Promise<Figure[]> {
  await using data = await makeFloatData(64, 512);
  const shuffle = { strength: "window", windowBytes: 128 * MiB } as const;
  const figures: Figure[] = [];
  for (const [world, batchSize, goal] of [
    [2, 256, 1.6],
    [3, 100, 1.6],
    [7, 33, 1.6],
    [8, 128, 1.6],
    [24, 16, 2.1],
    [64, 16, 2.1],
  ] as const) {
    const { version, read } = counted(data.version);
    for (let rank = 0; rank < world; rank++) {
      const o = { xs: "x", batchSize, shuffle, seed: 7, rank, world } as const;
      await using loader = createHostLoader(version, o, { ...DEFAULT_PORTS, reads: "inline" });
      const iterator = loader.iterate();
      while (await iterator.next());
    }
    const times = read.bytes / data.bytes;
    note(`${world} ranks × ${batchSize} rows: ${times.toFixed(2)} ×`);
    const name = `${world} ranks × ${batchSize} rows read the data`;
    figures.push(latency("hash", name, "times", times, { name: "goal", value: goal }, 1));
  }
  return figures;
}

export async function benchHash(note: (line: string) => void): Promise<Figure[]> {
  return [...(await throughput(note)), await firstBatch(), ...(await ranks(note))];
}
