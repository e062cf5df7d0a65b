/**
 * Owns the shards that are being published, between the scan and the commit: on disk, in bytewise order of their names, since
 * a million of them take more memory than publishing should.
 */
import type { PageEntry } from "../merkle/page.ts";
import { utf8 } from "../model/bytes.ts";
import type { Spool, SpoolPlace } from "./spool.ts";

export interface PreparedShard {
  readonly entry: PageEntry;
  readonly path: string;
  /** Reads the encoded segment index, an object under `entry.segmentIndex`. */
  readIndex(): Promise<Uint8Array>;
}

/** Can be gone through several times, also side by side. */
export interface ShardList extends AsyncIterable<PreparedShard> {
  readonly count: number;
  readonly rows: number;
  readonly bytes: number;
}

export interface ShardListWriter {
  /** Names ascend. */
  add(entry: PageEntry, path: string, index: Uint8Array): Promise<void>;
  /** The list of what was added; nothing may be added any more. It can be read until the spool is closed. */
  finish(): Promise<ShardList>;
}

/** Shards that are read back at a time. */
const CHUNK_SHARDS = 512;

interface Kept {
  readonly entry: PageEntry;
  readonly path: string;
  readonly index: SpoolPlace;
}

export function writeShardList(spool: Spool): ShardListWriter {
  const chunks: SpoolPlace[] = [];
  let chunk: Kept[] = [];
  let [count, rows, bytes] = [0, 0, 0];

  async function flush(): Promise<void> {
    if (chunk.length > 0) chunks.push(await spool.put(utf8(JSON.stringify(chunk))));
    chunk = [];
  }
  async function* read(): AsyncGenerator<PreparedShard> {
    for (const place of chunks) {
      const kept = JSON.parse(new TextDecoder().decode(await spool.read(place))) as readonly Kept[];
      for (const { entry, path, index } of kept) yield { entry, path, readIndex: () => spool.read(index) };
    }
  }
  return {
    async add(entry, path, index) {
      chunk.push({ entry, path, index: await spool.put(index) });
      count += 1;
      rows += entry.rows;
      bytes += entry.bytes;
      if (chunk.length === CHUNK_SHARDS) await flush();
    },
    async finish() {
      await flush();
      return { count, rows, bytes, [Symbol.asyncIterator]: read };
    },
  };
}
