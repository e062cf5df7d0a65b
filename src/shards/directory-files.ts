/**
 * Owns what stores in folders and scans ask of the file system: without blocking, or blocking, for a thread that does nothing else, or blocking
 * as long as that is fast.
 * A call that does not block goes through another thread, and for a small file that costs more than all else. Syncs are always waited for
 * elsewhere: a disk takes its time, and the thread has more to write meanwhile.
 */
import {
  closeSync,
  fstat,
  fstatSync,
  fsync,
  open as openFd,
  openSync,
  read as readFd,
  readSync,
  renameSync,
  statSync,
  writeSync,
  type Stats,
} from "node:fs";
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
  open: (path, flags) => blockingFile(openSync(path, flags)),
  stat: (path) => statSync(path),
  rename: (from, to) => renameSync(from, to),
};

/**
 * Blocking calls that took longer, so many among the last ones, waited for a disk, and not just for a processor: the next ones should wait side by
 * side. Not one after the other: the kernel reads ahead, so of a cold file only some reads wait.
 */
const CACHED_CALL_MS_MAX = 2;
const SLOW_CALLS_MAX = 3;
const CALLS_WATCHED = 24;
/** So many do, before one is tried again. */
const CALLS_BESIDE = 128;

const elsewhere = { open: promisify(openFd), stat: promisify(fstat), read: promisify(readFd) };

/**
 * Files are opened and read without leaving the thread while they come from the page cache: a call in another thread costs nearly as
 * much again, takes a processor from others, and its answer waits until this one is idle. @param nowMs a clock that never goes back
 */
export function cachedFiles(nowMs: () => number = () => performance.now()): DirectoryFiles {
  let calls = 0; // that blocked
  let slow: readonly number[] = []; // which of them, the last few
  let beside = 0; // calls that are left to go without blocking
  const call = <T>(blocking: () => T, waiting: () => Promise<T>): Maybe<T> => {
    if (beside > 0) {
      beside--;
      return waiting();
    }
    const startedMs = nowMs();
    try {
      return blocking();
    } finally {
      calls++;
      if (nowMs() - startedMs > CACHED_CALL_MS_MAX) {
        slow = [...slow.slice(1 - SLOW_CALLS_MAX), calls];
        const isDisk = slow.length === SLOW_CALLS_MAX && calls - (slow[0] as number) < CALLS_WATCHED;
        if (isDisk) beside = CALLS_BESIDE;
      }
    }
  };
  const openedFd = (fd: number): OpenedFile => ({
    ...blockingFile(fd),
    stat: () =>
      call(
        () => fstatSync(fd),
        () => elsewhere.stat(fd),
      ),
    read: (target, at, position) => {
      const length = target.byteLength - at;
      return call(
        () => readSync(fd, target, at, length, position),
        async () => (await elsewhere.read(fd, target, at, length, position)).bytesRead,
      );
    },
  });
  return {
    ...asyncFiles,
    open: (path, flags) =>
      call(
        () => openedFd(openSync(path, flags)),
        async () => openedFd(await elsewhere.open(path, flags)),
      ),
  };
}

function blockingFile(fd: number): OpenedFile {
  return {
    stat: () => fstatSync(fd),
    read: (target, at, position) => readSync(fd, target, at, target.byteLength - at, position),
    write: (bytes, at) => writeSync(fd, bytes, at),
    sync: () => syncElsewhere(fd),
    close: () => closeSync(fd),
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
