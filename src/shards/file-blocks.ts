/**
 * Owns reading a file from one end to the other in blocks that lie in the processor's cache until they are used up. What is not
 * used of a block comes again in front of the next one.
 */
import type { Maybe } from "../model/maybe.ts";
import { ShardpactError, invariant } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import type { FileReads } from "./file-reads.ts";
import { malformed } from "./malformed.ts";

/** With what is kept it fits a core's second-level cache, so that only the first look at it waits for memory. */
const BLOCK_BYTES = 4 * LIMITS.leafBytes;
const KEPT_BYTES_MAX = LIMITS.leafBytes;
/** Fresh memory costs a page fault for every 4 KiB, about what hashing them does: of buffers in use, so many stay. */
const SPARE_BUFFERS_MAX = 2;
const spare: Uint8Array[] = [];

export interface Block {
  /** What was kept, then what is fresh. Overwritten once the next is asked for. */
  readonly bytes: Uint8Array;
  readonly fresh: Uint8Array;
}

export interface FileBlocks {
  /** @param kept bytes at the end of the block before, less than a leaf. Null at the end of the file. @throws `shard_malformed`, `store_failed`, `aborted` */
  next(kept: number): Promise<Block | null>;
  /** Ends what is under way. */
  close(): Promise<void>;
}

/** Reads ahead by a block, unless reads block the thread. */
export function openBlocks(path: string, file: FileReads, fileBytes: number, signal?: AbortSignal): FileBlocks {
  const keptAt = fileBytes > BLOCK_BYTES ? KEPT_BYTES_MAX : 0;
  const count = file.isBlocking || keptAt === 0 ? 1 : 2;
  const buffers = Array.from({ length: count }, () => takeBuffer(keptAt, fileBytes));
  const bufferOf = (turn: number): Uint8Array => buffers[turn % count] as Uint8Array;
  let position = 0; // of the next read
  let turn = 0;
  let ahead: Maybe<unknown> = null;

  function start(): Maybe<unknown> {
    const bytes = Math.min(BLOCK_BYTES, fileBytes - position);
    const read = readExactly(path, file, position, bufferOf(turn++).subarray(keptAt, keptAt + bytes));
    position += bytes;
    if (read instanceof Promise) read.catch(() => undefined); // told when its turn comes, unless reading stops first
    return read;
  }
  let given = 0; // blocks
  let end = 0; // of the last one, in its buffer
  let left = fileBytes;
  return {
    async next(kept) {
      if (signal?.aborted)
        throw new ShardpactError("aborted", `scanning ${path} was aborted`, { cause: signal.reason });
      invariant(kept <= keptAt, "what is kept is at most a leaf");
      if (left === 0) return null;
      const buffer = bufferOf(given);
      if (kept > 0) buffer.set(bufferOf(given + count - 1).subarray(end - kept, end), keptAt - kept);
      const reading = ahead ?? start();
      if (reading instanceof Promise) await reading;
      const bytes = Math.min(BLOCK_BYTES, left);
      given += 1;
      end = keptAt + bytes;
      left -= bytes;
      ahead = count > 1 && left > 0 ? start() : null;
      return { bytes: buffer.subarray(keptAt - kept, end), fresh: buffer.subarray(keptAt, end) };
    },
    async close() {
      await Promise.allSettled([ahead]);
      if (keptAt > 0) spare.push(...buffers.splice(0, Math.max(0, SPARE_BUFFERS_MAX - spare.length)));
    },
  };
}

function takeBuffer(keptAt: number, fileBytes: number): Uint8Array {
  return keptAt === 0 ? new Uint8Array(fileBytes) : (spare.pop() ?? new Uint8Array(KEPT_BYTES_MAX + BLOCK_BYTES));
}

/** Fills `target`. A promise only where reads are. @throws `shard_malformed` when the file ends before, `store_failed` */
export function readExactly(path: string, file: FileReads, position: number, target: Uint8Array): Maybe<Uint8Array> {
  for (let at = 0; at < target.byteLength;) {
    const bytes = file.read(target.subarray(at), position + at);
    if (typeof bytes !== "number") return readRest(path, file, position, target, at, bytes);
    if (bytes === 0) throw becameShorter(path, position + at);
    at += bytes;
  }
  return target;
}

async function readRest(
  path: string,
  file: FileReads,
  position: number,
  target: Uint8Array,
  from: number,
  first: Promise<number>,
): Promise<Uint8Array> {
  for (let at = from, reading: Maybe<number> = first; ; reading = file.read(target.subarray(at), position + at)) {
    const bytes = await reading;
    if (bytes === 0) throw becameShorter(path, position + at);
    at += bytes;
    if (at === target.byteLength) return target;
  }
}

function becameShorter(path: string, at: number): ShardpactError {
  return malformed(path, at, "the file became shorter while it was read");
}
