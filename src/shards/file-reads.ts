/**
 * Owns reading files that are published. A thread of its own reads synchronously, which costs a third: nobody waits for it.
 */
import { closeSync, fstatSync, openSync, readSync, type Stats } from "node:fs";
import { open } from "node:fs/promises";
import { ShardpactError, toShardpactError } from "../model/errors.ts";

/** Blocking reads have their result at once. */
export type Maybe<T> = T | Promise<T>;

export interface FileReads {
  /** A read blocks the thread: reading ahead gains nothing. */
  readonly isBlocking: boolean;
  stat(): Maybe<Stats>;
  /** Resolves with how many bytes were read, 0 at the end. @throws `store_failed` */
  read(target: Uint8Array, position: number): Maybe<number>;
  close(): Maybe<void>;
}

/** How a file is read. In a thread of our own: `blocking`. */
export type ReadKind = "async" | "blocking";

/** @throws `not_found`, `store_failed` */
export async function openFile(path: string, kind: ReadKind): Promise<FileReads> {
  try {
    return kind === "blocking" ? openBlocking(path) : await openAsync(path);
  } catch (cause) {
    const absent = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    throw new ShardpactError(absent ? "not_found" : "store_failed", `${path} cannot be opened: ${String(cause)}`, {
      cause,
    });
  }
}

async function openAsync(path: string): Promise<FileReads> {
  const handle = await open(path, "r");
  return {
    isBlocking: false,
    stat: () => handle.stat(),
    read: async (target, position) => {
      try {
        return (await handle.read(target, 0, target.byteLength, position)).bytesRead;
      } catch (cause) {
        throw toShardpactError(cause, "store_failed");
      }
    },
    close: () => handle.close(),
  };
}

function openBlocking(path: string): FileReads {
  const fd = openSync(path, "r");
  return {
    isBlocking: true,
    stat: () => fstatSync(fd),
    read: (target, position) => {
      try {
        return readSync(fd, target, 0, target.byteLength, position);
      } catch (cause) {
        throw toShardpactError(cause, "store_failed");
      }
    },
    close: () => closeSync(fd),
  };
}

/** The file's bytes in pieces of one buffer: each is overwritten once the next is asked for. Opened when the first is. */
export async function* filePieces(path: string, pieceBytes: number, kind: ReadKind): AsyncGenerator<Uint8Array> {
  const file = await openFile(path, kind);
  try {
    const buffer = new Uint8Array(Math.min(pieceBytes, Math.max(1, (await file.stat()).size)));
    for (let at = 0; ;) {
      const bytes = await file.read(buffer, at);
      if (bytes === 0) return;
      at += bytes;
      yield buffer.subarray(0, bytes);
    }
  } finally {
    await file.close();
  }
}
