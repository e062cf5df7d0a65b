/**
 * Bytes per second, verified: the loader against one thread of `b3sum` over the same files, and reading, hashing and decoding
 * alone against plain reads into reused buffers. And how much is read: of a large shard before its first batch, by all ranks.
 */
import { createHostLoader } from "../src/loader/host-loader.ts";
import { DEFAULT_PORTS } from "../src/loader/internal.ts";
import { buildPackage } from "./built.ts";
import { counted, makeFloatData } from "./float-data.ts";
import { startClient } from "./loader-clients.ts";
import { alternate, b3sum } from "./peers.ts";
import { type Figure, latency, rate } from "./report.ts";

const RUNS = 5;
const MiB = 1024 * 1024;
const UNIT = "bytes/s";

async function throughput(note: (line: string) => void): Promise<Figure[]> {
  await using data = await makeFloatData(64, 307);
  const { files, bytes } = data;
  await buildPackage();
  const options = { xs: "x", batchSize: 256, shuffle: false } as const;
  const asked = { options, hashing: "blake3", ends: "arrays", counts: "bytes" } as const;
  await using loader = startClient({ kind: "loader", data: data.data, ...asked });
  await using reading = startClient({ kind: "reads", files, hashed: false });
  await using hashing = startClient({ kind: "reads", files, hashed: true });
  await using decoder = startClient({ kind: "decoder", data: data.data });
  const hasB3sum = (await b3sum(files, bytes)) !== null;
  if (!hasB3sum) note("no b3sum here: BLAKE3 of @napi-rs/blake-hash in one thread, after plain reads, stands for it");
  const found = await alternate(RUNS, {
    epoch: loader.run,
    reads: reading.run,
    b3sum: async () => (await b3sum(files, bytes)) ?? (await hashing.run()),
    decoded: decoder.run,
  });
  for (const [name, { cpuNs }] of Object.entries(found)) note(`${name}: ${(cpuNs * 1000).toFixed(0)} CPU µs a MB`);
  const hasher = hasB3sum ? "b3sum --num-threads 1" : "one thread of @napi-rs/blake-hash";
  const plain = "fh.read, one reused 1 MiB buffer";
  const { epoch: ours, decoded: read, reads, b3sum: theirs } = found;
  return [
    rate("hash", "loader, contiguous, verified", UNIT, ours.rate, { name: hasher, value: theirs.rate }, 0.8),
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
