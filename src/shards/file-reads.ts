/**
 * Owns reading files that are published. A thread of its own reads synchronously, which costs a third: nobody waits for it.
 */
import type { Stats } from "node:fs";
import type { Maybe } from "../model/maybe.ts";
import { ShardpactError, toShardpactError } from "../model/errors.ts";
import { asyncFiles, blockingFiles, type OpenedFile } from "./directory-files.ts";

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
    const isBlocking = kind === "blocking";
    return readsOf(await (isBlocking ? blockingFiles : asyncFiles).open(path, "r"), isBlocking);
  } catch (cause) {
    const absent = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    throw new ShardpactError(absent ? "not_found" : "store_failed", `${path} cannot be opened: ${String(cause)}`, {
      cause,
    });
  }
}

/** Its errors are told as those of a store. */
function readsOf(file: OpenedFile, isBlocking: boolean): FileReads {
  const failed = (cause: unknown): never => {
    throw toShardpactError(cause, "store_failed");
  };
  return {
    isBlocking,
    stat: () => file.stat(),
    read: (target, position) => {
      try {
        const bytes = file.read(target, 0, position);
        return bytes instanceof Promise ? bytes.catch(failed) : bytes;
      } catch (cause) {
        return failed(cause);
      }
    },
    close: () => file.close(),
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
