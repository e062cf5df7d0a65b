/**
 * Owns verified tiles in memory, bounded in bytes: read into pooled buffers, pinned by the batches that
 * gather from them, and given back when they are the longest unused.
 *
 * Whoever pins does so batch after batch, so the batch in front always gets its memory and nothing waits in a circle.
 * Nothing outlives an epoch: `clear` gives back what was verified.
 */
import { invariant, ShardpactError } from "../../model/errors.ts";
import type { ColumnSource } from "../columns/source.ts";
import { createArena, parcelCost, type Arena, type Parcel } from "./arena.ts";
import type { Tile } from "./layout.ts";
import { BLOCK_BYTES } from "./shard-memory.ts";

/**
 * Reads that run at a time, at first, and once that many have ended. Few at first: the first batch waits for few bytes.
 * More then: the reading thread has work while this one is busy, or not even scheduled.
 */
const READS_FIRST = 4;
const READS_MAX = 16;

/** A tile that is, or is about to be, in memory. */
export interface Block {
  readonly tile: Tile;
  /** Settles when the read does. @throws what reading threw */
  readonly ready: Promise<void>;
  readonly isReady: boolean;
  /** The loader's columns, once ready: views into pooled memory, valid while pinned. */
  readonly sources: readonly ColumnSource[];
  /** Bytes that count against the bound. */
  readonly cost: number;
}

export interface BlockCache {
  readonly bytesMax: number;
  /** What a loader may take in all, of which `bytesMax` is for tiles. */
  readonly memoryMaxBytes: number;
  /**
   * The pinned block of a tile, its read begun; null while there is no room for it. Only the batch in front may fill
   * the memory to its bound, batches behind it no more than what is kept anyway. @throws `closed`
   */
  tryPin(tile: Tile, isFront: boolean): Block | null;
  /** Gives up a pin of each. */
  unpin(blocks: readonly Block[]): void;
  readonly bytesHeld: number;
  /** Resolves when memory was given back, or a read ended. */
  changed(): Promise<void>;
  /** Gives back all blocks that are not pinned. */
  clear(): void;
  /** Gives back everything, once the reads that run have ended. */
  close(): Promise<void>;
}

export interface BlockCacheOptions {
  /** Where tiles are read into, of `bytesMax` at least; the cache closes it. Default: one of its own. */
  readonly arena?: Arena;
  /** Bytes that may be held, and bytes or blocks (whichever is more) up to which unused blocks are kept. */
  readonly bytesMax: number;
  readonly bytesKept: number;
  /** Named when a batch does not fit. Default: `bytesMax`. */
  readonly memoryMaxBytes?: number;
  readonly blocksKept: number;
  /** Reads and verifies a tile into `buffer`; resolves with the columns, views into it. */
  readonly read: (tile: Tile, buffer: Uint8Array) => Promise<readonly ColumnSource[]>;
}

interface Entry extends Block {
  sources: readonly ColumnSource[];
  ready: Promise<void>;
  isReady: boolean;
  pins: number;
  /** In the table: later pins find it. */
  isListed: boolean;
  isReading: boolean;
  memory: Parcel | null;
  settle: (error?: unknown) => void;
}

export function createBlockCache(options: BlockCacheOptions): BlockCache {
  const { bytesMax, read } = options;
  const arena = options.arena ?? createArena(bytesMax);
  let bytesKept = Math.min(bytesMax, options.bytesKept);
  const entries = new Map<Tile, Entry>();
  const idle = new Set<Entry>(); // listed and not pinned, the longest unused first
  const queue: Entry[] = [];
  const reads = new Set<Promise<void>>();
  const waiting: (() => void)[] = [];
  let held = 0;
  let ended = 0; // reads
  let closed = false;

  const wake = (): void => {
    if (waiting.length === 0) return;
    for (const done of waiting.splice(0)) done();
  };

  function unlist(entry: Entry): void {
    entry.isListed = false;
    idle.delete(entry);
    entries.delete(entry.tile);
    freeIfUnused(entry);
  }

  function freeIfUnused(entry: Entry): void {
    if (entry.isListed || entry.isReading || entry.pins > 0 || !entry.memory) return;
    held -= entry.cost;
    arena.give(entry.memory);
    entry.memory = null;
    entry.sources = [];
    wake();
  }

  function makeRoom(cost: number, isFront: boolean): boolean {
    bytesKept = Math.min(bytesMax, Math.max(bytesKept, cost * options.blocksKept));
    for (const entry of idle) {
      if (held + cost + (entries.size + 1) * BLOCK_BYTES <= bytesKept) break;
      unlist(entry);
    }
    return isFront ? held + cost <= bytesMax : held + cost + (entries.size + 1) * BLOCK_BYTES <= bytesKept;
  }

  /** Memory for a tile, for which idle blocks go as long as there is none in one place. */
  function takeMemory({ bytes }: Tile): Parcel | null {
    let memory = arena.take(bytes);
    for (const entry of idle) {
      if (memory) break;
      unlist(entry);
      memory = arena.take(bytes);
    }
    return memory;
  }

  async function load(entry: Entry, memory: Parcel): Promise<void> {
    try {
      entry.sources = await read(entry.tile, memory.bytes);
      entry.isReady = true;
      entry.settle();
    } catch (error) {
      entry.settle(error);
      entry.isReading = false;
      if (entry.isListed) unlist(entry); // the next pin reads again
    }
    entry.isReading = false;
    freeIfUnused(entry);
    wake();
  }

  function startReads(): void {
    while (reads.size < Math.min(READS_MAX, READS_FIRST + ended)) {
      const entry = queue.shift();
      if (!entry) return;
      const isWanted = entry.isListed || entry.pins > 0;
      if (!isWanted || closed || !entry.memory) continue;
      entry.isReading = true;
      const running = load(entry, entry.memory).finally(() => {
        reads.delete(running);
        ended++;
        startReads();
      });
      reads.add(running);
    }
  }

  function add(tile: Tile, memory: Parcel): Entry {
    const { promise: ready, resolve, reject } = settled();
    const entry: Entry = {
      tile,
      ready,
      isReady: false,
      sources: [],
      cost: memory.cost,
      pins: 0,
      isListed: true,
      isReading: false,
      memory,
      settle: (error) => (error === undefined ? resolve() : reject(error)),
    };
    entries.set(tile, entry);
    held += memory.cost;
    queue.push(entry);
    return entry;
  }

  return {
    bytesMax,
    memoryMaxBytes: options.memoryMaxBytes ?? bytesMax,
    tryPin(tile, isFront) {
      if (closed) throw new ShardpactError("closed", "the loader is closed");
      const known = entries.get(tile);
      if (!known && !makeRoom(parcelCost(tile.bytes), isFront)) return null;
      const memory = known ? null : takeMemory(tile);
      const entry = known ?? (memory && add(tile, memory));
      if (!entry) return null;
      if (entry.pins++ === 0) idle.delete(entry);
      if (queue.length > 0) startReads();
      return entry;
    },
    unpin(blocks) {
      for (let i = 0; i < blocks.length; i++) {
        const entry = blocks[i] as Entry;
        entry.pins--;
        invariant(entry.pins >= 0, "a block is unpinned once for each pin");
        if (entry.pins === 0 && entry.isListed) idle.add(entry);
        freeIfUnused(entry);
      }
      wake(); // also when others still pin it: whoever unpins may have been in front, and the next batch is now
    },
    get bytesHeld() {
      return held;
    },
    changed: () => new Promise((done) => waiting.push(done)),
    clear() {
      for (const entry of [...idle]) unlist(entry);
    },
    async close() {
      closed = true;
      await Promise.allSettled([...reads]);
      for (const entry of queue.splice(0)) entry.settle(new ShardpactError("closed", "the loader is closed"));
      for (const entry of [...entries.values()]) unlist(entry);
      arena.close();
      wake();
    },
  };
}

function settled(): { promise: Promise<void>; resolve: () => void; reject: (error: unknown) => void } {
  let resolve: () => void = () => undefined;
  let reject: (error: unknown) => void = () => undefined;
  const promise = new Promise<void>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  promise.catch(() => undefined); // whoever pinned the block awaits it later, or has gone
  return { promise, resolve, reject };
}
