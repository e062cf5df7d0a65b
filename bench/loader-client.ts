/**
 * Owns one loader of a bench in a process of its own, ours or one of TensorFlow.js, as Python's loaders have theirs: the
 * built package, and no other heap for the collector to mark. Forked by `loader-clients.ts`, told what to load; each
 * further message asks for a run.
 */
import { readFileSync } from "node:fs";
import { open } from "node:fs/promises";
import type { BatchSegment } from "../src/loader/fetch/layout.ts";
import type { Hashing } from "../src/loader/fetch/reads.ts";
import type { LoaderOptions } from "../src/loader/host-loader.ts";
import type { VersionData } from "../test/loader/support/version.ts";
import { built, builtVersion } from "./built.ts";
import type { Run } from "./peers.ts";
import { measureReadyTensors, openPictures, openTfData, type PicturesInput, type TfDataInput } from "./tfdata.ts";

const MiB = 1024 * 1024;
/** A run takes as many epochs as begin in this time. */
const RUN_MS = 800;
/** Before the first: V8 compiles what runs often, and tensors' memory settles. */
const WARM_UP_MS = 4000;
const DECODES_IN_FLIGHT = 4;

export interface LoaderJob {
  readonly kind: "loader";
  readonly data: VersionData;
  readonly options: LoaderOptions;
  readonly hashing: Hashing;
  /** What an epoch ends in; amounts are samples, or bytes of all of the version. */
  readonly ends: "tensors" | "arrays";
  readonly counts: "samples" | "bytes";
}

export type Job =
  | LoaderJob
  | ({ readonly kind: "rows" | "ready" } & TfDataInput)
  | ({ readonly kind: "pictures" } & PicturesInput)
  /** Record batches read, hashed and decoded by what the loader uses, nothing gathered. */
  | { readonly kind: "decoder"; readonly data: VersionData }
  /** Plain reads into one reused buffer, looked at by the hasher or by nobody. */
  | { readonly kind: "reads"; readonly files: readonly string[]; readonly hashed: boolean };

export interface ClientRun extends Run {
  readonly cpuMs: number;
  /** CPU time of the main thread. */
  readonly threadMs: number;
}

/** Does all of it once; resolves with how much that was. */
type Work = () => Promise<number>;

async function loaderWork({ data, options, hashing, ends, counts }: LoaderJob): Promise<Work> {
  const { DEFAULT_PORTS } = await built<typeof import("../src/loader/internal.ts")>("loader/internal.ts");
  const version = await builtVersion(data);
  const ports = { ...DEFAULT_PORTS, hashing };
  const amount = counts === "samples" ? data.rows : data.bytes;
  if (ends === "arrays") {
    const { createHostLoader } = await built<typeof import("../src/loader/host-loader.ts")>("loader/host-loader.ts");
    const loader = createHostLoader(version, options, ports, "at row 0");
    return async () => {
      const iterator = loader.iterate();
      for (let batch = await iterator.next(); batch; batch = await iterator.next()) {
        for (const { data: array } of Object.values(batch.columns.xs)) batch.recycle(array); // written, and done with
      }
      return amount;
    };
  }
  const { createLoaderWith } = await built<typeof import("../src/tfjs/loader.ts")>("tfjs/loader.ts");
  const loader = createLoaderWith(version, options, ports);
  return async () => {
    for await (const batch of loader) batch[Symbol.dispose]();
    return amount;
  };
}

async function decoderWork(data: VersionData): Promise<Work> {
  const { createArena } = await built<typeof import("../src/loader/fetch/arena.ts")>("loader/fetch/arena.ts");
  const { SIDE_BYTES, sideMemoryOf } =
    await built<typeof import("../src/loader/fetch/side-memory.ts")>("loader/fetch/side-memory.ts");
  const { schemaFromCanonical } = await built<typeof import("../src/shards/schema.ts")>("shards/schema.ts");
  const { createTileReader } =
    await built<typeof import("../src/loader/fetch/tile-reader.ts")>("loader/fetch/tile-reader.ts");
  const { createWorkerReads } =
    await built<typeof import("../src/loader/fetch/worker-reads.ts")>("loader/fetch/worker-reads.ts");
  const version = await builtVersion(data);
  const reads = createWorkerReads({
    where: { dataset: version.dataset, version: version.version },
    stores: version.stores,
    hashing: "blake3",
    threads: 2, // as the loader has for a selection of this size
    signal: new AbortController().signal,
    warn: () => undefined,
  });
  const memory = sideMemoryOf(createArena(SIDE_BYTES));
  const schema = schemaFromCanonical(data.schema);
  const sizes = { tileBytes: MiB, blockRows: 0, keptBytesMax: 8 * MiB };
  const reader = createTileReader({ reads, schema, wanted: new Set([0]), memory, ...sizes });
  const shared = (): Uint8Array => new Uint8Array(new SharedArrayBuffer(2 * MiB) as unknown as ArrayBuffer);
  const buffers = Array.from({ length: DECODES_IN_FLIGHT }, shared);
  const segments: BatchSegment[] = [];
  for (const entry of await version.page(0)) {
    segments.push(...(await reader.open({ entry, firstRow: 0, rows: entry.rows, fileRow: null, batches: null })));
  }
  return async () => {
    let next = 0;
    const decode = async (buffer: Uint8Array): Promise<void> => {
      for (let at = next++; at < segments.length; at = next++) {
        const segment = segments[at] as BatchSegment;
        const { tiles } = reader.tilesOf(segment) ?? (await reader.loadTiles(segment));
        for (const tile of tiles) await reader.read(tile, buffer);
      }
    };
    await Promise.all(buffers.map(decode));
    return data.bytes;
  };
}

async function plainReads(files: readonly string[], hashed: boolean): Promise<number> {
  const { hashBytes } = await built<typeof import("../src/merkle/hash.ts")>("merkle/hash.ts");
  const buffer = new Uint8Array(MiB);
  let bytes = 0;
  for (const file of files) {
    await using handle = await open(file);
    for (let at = 0, got = -1; got !== 0; at += got) {
      got = (await handle.read(buffer, 0, MiB, at)).bytesRead;
      if (hashed) hashBytes(buffer.subarray(0, got));
      bytes += got;
    }
  }
  return bytes;
}

async function workOf(job: Job): Promise<Work> {
  switch (job.kind) {
    case "loader":
      return loaderWork(job);
    case "rows":
      return openTfData(job);
    case "ready":
      return () => measureReadyTensors(job);
    case "pictures":
      return openPictures(job);
    case "decoder":
      return decoderWork(job.data);
    case "reads":
      return () => plainReads(job.files, job.hashed);
  }
}

async function warmedUp(work: Work): Promise<Work> {
  for (const startedMs = performance.now(); performance.now() - startedMs < WARM_UP_MS;) await work();
  return work;
}

/** CPU time of the main thread so far, which Node itself does not tell; NaN where there is no /proc. */
function threadCpuMs(): number {
  try {
    return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]) / 1e6;
  } catch {
    return NaN;
  }
}

async function measure(work: Work): Promise<ClientRun> {
  const before = process.cpuUsage();
  const threadMs = threadCpuMs();
  const startedMs = performance.now();
  let amount = 0;
  do amount += await work();
  while (performance.now() - startedMs < RUN_MS);
  const { user, system } = process.cpuUsage(before);
  const ms = performance.now() - startedMs;
  return { amount, ms, cpuMs: (user + system) / 1000, threadMs: threadCpuMs() - threadMs };
}

process.once("message", (job: Job) => {
  const opening = workOf(job).then(warmedUp);
  process.on("message", () => {
    void opening.then(measure).then((run) => process.send?.(run));
  });
});
