/**
 * Owns what a loader reads from, opened once: the layout of its selection, open shards, verified blocks.
 */
import type { ConfirmedVersion } from "../../client/types.ts";
import { schemaFromCanonical } from "../../shards/schema.ts";
import type { BatchShape } from "../batch.ts";
import { COPIER_BYTES, createRowCopier } from "../columns/copy-rows.ts";
import type { GatherTools } from "../columns/gather.ts";
import { createImageThreads, imageThreadsFor, type ImageDecoder } from "../columns/image-threads.ts";
import { bindColumn } from "../columns/source.ts";
import type { LoaderPorts } from "../internal.ts";
import type { LoaderPlan } from "../plan.ts";
import { createArena, parcelCost } from "./arena.ts";
import { createBlockCache, type BlockCache } from "./block-cache.ts";
import { createBatchMemory } from "../batch-memory.ts";
import { batchesAhead, divideMemory, gatherBurst, pageBytesOf, readingThreadsFor } from "./budget.ts";
import { createInlineReads } from "./inline-reads.ts";
import { loadLayout } from "./layout.ts";
import { createLocator, type Locator } from "./locate.ts";
import type { ShardReads } from "./reads.ts";
import { SIDE_BYTES, sideMemoryOf } from "./side-memory.ts";
import { createTileReader } from "./tile-reader.ts";
import { createWorkerReads } from "./worker-reads.ts";

/** Starting a thread costs about as much as reading and hashing this many bytes. */
const WORKER_BYTES_MIN = 16 * 1024 * 1024;
export interface Source {
  readonly locator: Locator;
  readonly cache: BlockCache;
  /** What batches are gathered with. */
  readonly tools: GatherTools;
  readonly images: ImageDecoder;
  /** Batches that are assembled, or being assembled, before they are asked for. */
  readonly batchesAhead: number;
  /** Of these, how many are gathered at a stretch. */
  readonly gatherBurst: number;
  /** Settles what reading threads have read by now. */
  takeAnswers(): void;
  /** Forgets all verified bytes, as between epochs. */
  clear(): Promise<void>;
  close(): Promise<void>;
}

/** @param signal for as long as the source lives */
export async function openSource(
  version: ConfirmedVersion,
  plan: LoaderPlan,
  shape: BatchShape,
  signal: AbortSignal,
  ports: LoaderPorts,
): Promise<Source> {
  const shards = version.splits.find(({ name }) => name === plan.split)?.shards ?? 0;
  const layout = await loadLayout(version, plan.split, pageBytesOf(plan, shards), signal);
  const schema = schemaFromCanonical(version.schema);
  const reading = hasThread(plan, ports)
    ? readingThreadsFor(
        plan,
        version.stores.every(({ spec }) => spec),
      )
    : 0;
  const threads = { reading, images: hasImages(shape) ? imageThreadsFor(plan.bytes, ports.images) : 0 };
  const budget = divideMemory(plan, shape, shards, threads);
  const { tileBytesMax, keptBytesMax } = budget;
  const reads = openReads(version, reading, budget.indexBytesMax, signal, ports);
  const memory = createBatchMemory(budget.batchBytes);
  const images = createImageThreads({ threads: threads.images, memory, warn: ports.warn });
  const columns = [...new Set(shape.plans.map(({ path }) => path[0] as number))].sort((a, b) => a - b);
  const plans = shape.plans.map((column) => {
    const [top, ...below] = column.path;
    return { ...column, path: [columns.indexOf(top as number), ...below] };
  });
  const wanted = new Set(columns);
  const { strength, n } = plan.order;
  const blockRows = strength === "block" || strength === "window" ? n : 0;
  const arena = createArena(tileBytesMax + SIDE_BYTES + parcelCost(COPIER_BYTES));
  const place = arena.take(COPIER_BYTES);
  const copier = arena.memory && place && createRowCopier(arena.memory, place.bytes);
  const tiles = createTileReader({
    reads,
    schema,
    wanted,
    tileBytes: plan.tileBytes,
    blockRows,
    memory: sideMemoryOf(arena),
    keptBytesMax,
    memoryMaxBytes: plan.memoryMaxBytes,
    onCut: layout.cut,
  });
  const cache = createBlockCache({
    arena,
    bytesMax: tileBytesMax,
    memoryMaxBytes: plan.memoryMaxBytes,
    bytesKept: budget.tileBytesKept,
    blocksKept: 2 * plan.blocksOpen + 2,
    read: async (tile, buffer) => {
      const batch = await tiles.read(tile, buffer);
      return plans.map((column) => bindColumn(column, batch));
    },
  });
  const ahead = batchesAhead(plan, shape, threads.images);
  return {
    locator: createLocator(layout, tiles),
    cache,
    tools: { memory, copier },
    images,
    batchesAhead: ahead,
    gatherBurst: gatherBurst(ahead, shape),
    takeAnswers: reads.takeAnswers,
    clear: async () => {
      cache.clear();
      await tiles.forget();
    },
    close: async () => {
      await images.close();
      await cache.close();
      await reads.close();
    },
  };
}

function hasImages({ plans }: BatchShape): boolean {
  return plans.some(({ image }) => image !== null);
}

/** Whether shards are read in another thread than the caller's. */
function hasThread({ bytes }: LoaderPlan, { reads }: LoaderPorts): boolean {
  return reads === "worker" || (reads === "auto" && bytes >= WORKER_BYTES_MIN);
}

function openReads(
  version: ConfirmedVersion,
  threads: number,
  indexBytesMax: number,
  signal: AbortSignal,
  ports: LoaderPorts,
): ShardReads {
  const { dataset, version: number, stores, onPassedOver } = version;
  const where = { dataset, version: number };
  const options = { where, stores, hashing: ports.hashing, indexBytesMax, signal, onPassedOver };
  return threads > 0 ? createWorkerReads({ ...options, threads, warn: ports.warn }) : createInlineReads(options);
}
