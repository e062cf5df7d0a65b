/**
 * Owns the data of the loader benches: rows of float32, in shards of 64 MiB and record batches of 1 MiB, in a store.
 */
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import type { ConfirmedVersion } from "../src/client/types.ts";
import type { ShardStore } from "../src/shards/port.ts";
import { floatBatches, makeVersion, type TestVersion, type VersionData } from "../test/loader/support/version.ts";

const SHARD_BYTES = 64 * 1024 * 1024;
const RECORD_BATCH_BYTES = 1024 * 1024;

export interface FloatData extends AsyncDisposable {
  readonly version: ConfirmedVersion;
  /** The version for another process. */
  readonly data: VersionData;
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
  const made = await makeVersion({ splits: { train: floatBatches(rows, width, batchBytes) }, shardBytes });
  const files = await shardFiles(made);
  const { version, data, close } = made;
  return { version, data, rows, width, bytes: version.bytes, files, [Symbol.asyncDispose]: close };
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
