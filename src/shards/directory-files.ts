/**
 * Owns what stores in folders and scans ask of the file system: without blocking, or blocking, for a thread that does nothing else, or blocking
 * as long as that is fast.
 * A call that does not block goes through another thread, and for a small file that costs more than all else. Syncs are always waited for
 * elsewhere: a disk takes its time, and the thread has more to write meanwhile.
 */
import { closeSync, fstatSync, fsync, openSync, readSync, renameSync, statSync, writeSync, type Stats } from "node:fs";
import { open, rename, stat, type FileHandle } from "node:fs/promises";
import { promisify } from "node:util";
import type { Maybe } from "../model/maybe.ts";

/** Blocking calls have their result at once. */
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
  open: async (path, flags) => openedFile(await open(path, flags)),
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

/** Blocking reads that took longer, so many after each other, waited for a disk, and not just for a processor: the next ones should wait side by side. */
const CACHED_READ_MS_MAX = 2;
const SLOW_READS_MAX = 3;
/** So many do, before one is tried again. */
const READS_BESIDE = 128;

/**
 * Reads block while files come from the page cache: a read in another thread costs nearly as much again, and takes a processor
 * from others. @param nowMs a clock that never goes back
 */
export function cachedFiles(nowMs: () => number = () => performance.now()): DirectoryFiles {
  let slow = 0; // blocking reads, one after the other
  let beside = 0; // reads that are left to go without blocking
  return {
    ...asyncFiles,
    async open(path, flags) {
      const file = await open(path, flags);
      const opened = openedFile(file);
      return {
        ...opened,
        read(target, at, position) {
          if (beside > 0) {
            beside--;
            return opened.read(target, at, position);
          }
          const startedMs = nowMs();
          const bytes = readSync(file.fd, target, at, target.byteLength - at, position);
          slow = nowMs() - startedMs > CACHED_READ_MS_MAX ? slow + 1 : 0;
          if (slow >= SLOW_READS_MAX) beside = READS_BESIDE;
          return bytes;
        },
      };
    },
  };
}

function openedFile(file: FileHandle): OpenedFile {
  return {
    stat: () => file.stat(),
    read: async (target, at, position) => (await file.read(target, at, target.byteLength - at, position)).bytesRead,
    write: async (bytes, at) => (await file.write(bytes, at)).bytesWritten,
    sync: () => file.sync(),
    close: () => file.close(),
  };
}
