/**
 * Owns holding what a batch lies in: its blocks are pinned before their reads are waited for, and given back by whoever
 * gathered from them. Where there is nothing to wait for, there is no promise.
 */
import { ShardpactError } from "../../model/errors.ts";
import type { Maybe } from "../../model/maybe.ts";
import { untilAborted } from "../../shards/until-aborted.ts";
import type { Block, BlockCache } from "./block-cache.ts";
import type { Tile } from "./layout.ts";
import type { Located } from "./locate.ts";

/** Resolves when all have been read; null when they are. Loops by index: a batch lies in a hundred blocks. */
export function allReady(blocks: readonly Block[], signal: AbortSignal): Promise<void> | null {
  let at = 0;
  const skipReady = (): boolean => {
    while (at < blocks.length && (blocks[at] as Block).isReady) at++;
    return at === blocks.length;
  };
  const waitForAll = async (): Promise<void> => {
    while (!skipReady()) await (blocks[at] as Block).ready;
  };
  return skipReady() ? null : untilAborted(signal, waitForAll());
}

/** Pins all segments of a batch, waiting for the batches before it to give memory back. @throws `budget_too_small` */
export function pinAll(
  cache: BlockCache,
  { tiles }: Located,
  isFront: () => boolean,
  signal: AbortSignal,
): Maybe<readonly Block[]> {
  const blocks: Block[] = [];
  /** False when there is no room for the next one. */
  const pinMore = (): boolean => {
    while (blocks.length < tiles.length) {
      const block = cache.tryPin(tiles[blocks.length] as Tile, isFront());
      if (block === null) return false;
      blocks.push(block);
    }
    return true;
  };
  const pinRest = async (): Promise<readonly Block[]> => {
    while (!pinMore()) {
      const own = blocks.reduce((sum, { cost }) => sum + cost, 0);
      const { bytes } = tiles[blocks.length] as Tile;
      if (isFront() && cache.bytesHeld <= own) throw tooSmall(cache, own + bytes, tiles.length);
      await untilAborted(signal, cache.changed());
    }
    return blocks;
  };
  const giveUp = (error: unknown): never => {
    cache.unpin(blocks);
    throw error;
  };
  try {
    return pinMore() ? blocks : pinRest().catch(giveUp);
  } catch (error) {
    return giveUp(error);
  }
}

function tooSmall({ bytesMax, memoryMaxBytes }: BlockCache, tileBytes: number, tiles: number): ShardpactError {
  const neededBytes = memoryMaxBytes - bytesMax + tileBytes;
  return new ShardpactError(
    "budget_too_small",
    `one batch lies in ${tiles} pieces of record batches and needs more than ${neededBytes} bytes; memory allows ${memoryMaxBytes}`,
    {
      details: { memoryNeededBytes: neededBytes, memoryMaxBytes, pieces: tiles },
      hint: "Allow more memory, shuffle less, or publish with smaller record batches.",
    },
  );
}
