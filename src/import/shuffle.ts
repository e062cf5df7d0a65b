/**
 * Owns shuffling rows of any number on their way into shards: each goes to a bucket by lot, into a file; then each bucket is
 * read whole and its rows are dealt in an order drawn by lot. The result is a uniform shuffle, drawn from the seed alone.
 */
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Schema, tableFromIPC } from "apache-arrow";
import { hashAs } from "../merkle/hash.ts";
import { createRng } from "../merkle/rng.ts";
import { u64le } from "../model/bytes.ts";
import { createShardWriter, type ShardWriter } from "../shards/write.ts";
import { chunkOf } from "./arrow-rows.ts";
import { forEachRow, type RowChunk, type RowSink } from "./row-source.ts";
import { createSegmentBuilder, type SegmentBuilder } from "./segment-builder.ts";

/** A bucket is read whole: about so many bytes. */
const BUCKET_BYTES = 64 * 1024 * 1024;
const BUCKETS_MAX = 256;
/** What one byte of a source takes in Arrow at most, more or less: for choosing the number of buckets. */
const GROWTH = 4;

export interface ShuffleOptions {
  readonly schema: Schema;
  readonly seed: number | bigint;
  /** Of the files: it decides the number of buckets, so it must be the same wherever the same files are imported. */
  readonly sourceBytes: number;
  /** A folder of its own. */
  readonly folder: string;
}

/** Gives `sink` each row once, in an order that (rows, seed, sourceBytes) decide. */
export async function shuffleRows(
  chunks: AsyncIterable<RowChunk>,
  { schema, seed, folder, sourceBytes }: ShuffleOptions,
  sink: RowSink,
): Promise<void> {
  const count = Math.min(BUCKETS_MAX, Math.max(1, Math.ceil((sourceBytes * GROWTH) / BUCKET_BYTES)));
  const rng = createRng(hashAs("publishShuffle", u64le(seed)));
  const buckets: Bucket[] = [];
  for (let i = 0; i < count; i++) buckets.push(await makeBucket(schema, join(folder, `bucket-${i}`)));
  await forEachRow(chunks, (columns, row) => {
    const { builder, writer } = buckets[rng.integer(count)] as Bucket;
    const full = builder.append(columns, row);
    return full && writer.add(full);
  });
  for (const { builder, writer, dir } of buckets) {
    const last = builder.finish();
    if (last) await writer.add(last);
    const held: RowChunk[] = [];
    for (const { path } of await writer.finish()) held.push(...tableFromIPC(await readFile(path)).batches.map(chunkOf));
    await deal(held, (n) => rng.integer(n), sink);
    await rm(dir, { recursive: true });
  }
}

interface Bucket {
  readonly dir: string;
  readonly builder: SegmentBuilder;
  readonly writer: ShardWriter;
}

async function makeBucket(schema: Schema, dir: string): Promise<Bucket> {
  await mkdir(dir, { recursive: true });
  // A file for each segment: nothing is held but the segment that grows.
  return { dir, builder: createSegmentBuilder(schema), writer: createShardWriter({ folder: dir, shardBytes: 1 }) };
}

/** The rows of some chunks in an order by lot (Fisher–Yates). */
async function deal(held: readonly RowChunk[], below: (n: number) => number, sink: RowSink): Promise<void> {
  const total = held.reduce((sum, { rows }) => sum + rows, 0);
  const chunkAt = new Uint32Array(total);
  const rowAt = new Uint32Array(total);
  let filled = 0;
  for (const [c, { rows }] of held.entries()) {
    for (let row = 0; row < rows; row++, filled++) {
      chunkAt[filled] = c;
      rowAt[filled] = row;
    }
  }
  for (let i = total - 1; i > 0; i--) {
    const j = below(i + 1);
    [chunkAt[i], chunkAt[j]] = [chunkAt[j] as number, chunkAt[i] as number];
    [rowAt[i], rowAt[j]] = [rowAt[j] as number, rowAt[i] as number];
  }
  for (let i = 0; i < total; i++) {
    const written = sink((held[chunkAt[i] as number] as RowChunk).columns, rowAt[i] as number);
    if (written) await written;
  }
}
