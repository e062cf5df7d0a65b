/**
 * Owns the data of the loader benches: rows of float32, in shards of 64 MiB and record batches of 1 MiB, in a store.
 */
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { Field, FixedSizeList, Float32, makeData, makeVector, type RecordBatch } from "apache-arrow";
import type { ConfirmedVersion } from "../src/client/types.ts";
import type { ShardStore } from "../src/shards/port.ts";
import { batchOf, makeVersion, type TestVersion } from "../test/loader/support/version.ts";

const SHARD_BYTES = 64 * 1024 * 1024;
const RECORD_BATCH_BYTES = 1024 * 1024;

export interface FloatData extends AsyncDisposable {
  readonly version: ConfirmedVersion;
  readonly rows: number;
  readonly width: number;
  readonly bytes: number;
  /** Shard files in the store, the largest first. */
  readonly files: readonly string[];
}

/** @param batchBytes bytes of a record batch, about */
export async function makeFloatData(
  width: number,
  megabytes: number,
  batchBytes = RECORD_BATCH_BYTES,
  shardBytes = SHARD_BYTES,
): Promise<FloatData> {
  const rows = Math.floor((megabytes * 1e6) / (width * 4));
  const made = await makeVersion({ splits: { train: [...recordBatches(rows, width, batchBytes)] }, shardBytes });
  const files = await shardFiles(made);
  const { version, close } = made;
  return { version, rows, width, bytes: version.bytes, files, [Symbol.asyncDispose]: close };
}

function* recordBatches(rows: number, width: number, batchBytes: number): Generator<RecordBatch> {
  const type = new FixedSizeList(width, new Field("item", new Float32(), false));
  const batchRows = Math.max(1, Math.floor(batchBytes / (width * 4)));
  for (let from = 0; from < rows; from += batchRows) {
    const length = Math.min(batchRows, rows - from);
    const values = new Float32Array(length * width);
    for (let i = 0; i < values.length; i++) values[i] = (from + i) % 9973;
    const child = makeData({ type: new Float32(), length: values.length, data: values });
    yield batchOf({ x: makeVector(makeData({ type, length, child })) });
  }
}

async function shardFiles({ store }: TestVersion): Promise<string[]> {
  const found = (await readdir(store, { recursive: true, withFileTypes: true })).filter((f) => f.isFile());
  const sized = await Promise.all(
    found.map(async (f) => {
      const file = path.join(f.parentPath, f.name);
      return { file, bytes: (await stat(file)).size };
    }),
  );
  return sized
    .filter(({ bytes }) => bytes > 1e6) // the others are segment indexes
    .toSorted((a, b) => b.bytes - a.bytes)
    .map(({ file }) => file);
}

/** The version, with the bytes counted that leave its store. */
export function counted(version: ConfirmedVersion): { version: ConfirmedVersion; read: { bytes: number } } {
  const read = { bytes: 0 };
  const stores = version.stores.map((store): ShardStore => {
    const { spec: _, ...rest } = store; // without it, the reading thread asks this one
    return {
      ...rest,
      open: async (digest, signal) => {
        const handle = await store.open(digest, signal);
        const readInto = async (target: Uint8Array, position: number): Promise<number> => {
          const got = await handle.readInto(target, position);
          read.bytes += got;
          return got;
        };
        return { ...handle, readInto };
      },
    };
  });
  return { version: { ...version, stores }, read };
}
