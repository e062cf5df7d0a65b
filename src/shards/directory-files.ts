/**
 * Owns what a store in a folder asks of the file system, in two ways: without blocking, or blocking, for a thread that does nothing else.
 * A call that does not block goes through another thread, and for a small file that costs more than all else. Syncs are always waited for
 * elsewhere: a disk takes its time, and the thread has more to write meanwhile.
 */
import { closeSync, fstatSync, fsync, openSync, readSync, renameSync, statSync, writeSync, type Stats } from "node:fs";
import { open, rename, stat } from "node:fs/promises";
import { promisify } from "node:util";
import type { Maybe } from "./file-reads.ts";

export interface OpenedFile {
  stat(): Maybe<Stats>;
  /** How many bytes were read; 0 at the end. */
  read(target: Uint8Array, at: number, position: number): Maybe<number>;
  /** Appends what is in `bytes` from `at` on; how many were written. */
  write(bytes: Uint8Array, at: number): Maybe<number>;
  /** Makes the file last, or a folder's names. */
  sync(): Promise<void>;
  close(): Maybe<void>;
}

/** Errors are the file system's. */
export interface DirectoryFiles {
  /** `wx`: makes the file, which may not be there. */
  open(path: string, flags: "r" | "wx"): Maybe<OpenedFile>;
  stat(path: string): Maybe<Stats>;
  rename(from: string, to: string): Maybe<void>;
}

export const asyncFiles: DirectoryFiles = {
  async open(path, flags) {
    const file = await open(path, flags);
    return {
      stat: () => file.stat(),
      read: async (target, at, position) => (await file.read(target, at, target.byteLength - at, position)).bytesRead,
      write: async (bytes, at) => (await file.write(bytes, at)).bytesWritten,
      sync: () => file.sync(),
      close: () => file.close(),
    };
  },
  stat: (path) => stat(path),
  rename: (from, to) => rename(from, to),
};

const syncElsewhere = promisify(fsync);

export const blockingFiles: DirectoryFiles = {
  open(path, flags) {
    const fd = openSync(path, flags);
    return {
      stat: () => fstatSync(fd),
      read: (target, at, position) => readSync(fd, target, at, target.byteLength - at, position),
      write: (bytes, at) => writeSync(fd, bytes, at),
      sync: () => syncElsewhere(fd),
      close: () => closeSync(fd),
    };
  },
  stat: (path) => statSync(path),
  rename: (from, to) => renameSync(from, to),
};
