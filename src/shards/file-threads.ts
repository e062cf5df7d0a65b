/**
 * Owns the threads that a publish works in: the same ones scan files and then bring them into the store, on all cores. A thread
 * takes some 40 ms of CPU time to start, half of it in Node alone, so for little there are none.
 */
import { availableParallelism } from "node:os";
import type { FileCall, UploadCall } from "./file-worker.ts";
import type { ScannedShard } from "./scan-file.ts";
import { threadEntry } from "./thread-entry.ts";
import { startThreads } from "./threads.ts";
import type { Uploaded } from "./upload.ts";

const THREADS_MAX = 16;
/** Under way in one thread: while one waits for a disk, another is hashed. */
const CALLS_IN_THREAD = 2;
/** Less than this, and fewer files, is done before the threads have started. */
const BYTES_FOR_THREADS = 256 * 1024 * 1024;
const FILES_FOR_THREADS = 2_000;

type OnBytes = (bytes: number) => void;

export interface FileThreads {
  /** How many calls are worth making at a time. */
  readonly calls: number;
  /** @throws as `scanShard` */
  scan(path: string, onBytes?: OnBytes): Promise<ScannedShard>;
  /** @throws as `uploadShard` */
  upload(call: UploadCall, onBytes?: OnBytes): Promise<Uploaded>;
  close(): Promise<void>;
}

/** Null where threads are not worth their start. An abort ends all calls. */
export function startFileThreads(files: number, bytes: number, signal?: AbortSignal): FileThreads | null {
  const count = Math.min(files, availableParallelism(), THREADS_MAX);
  if (count < 2 || (bytes < BYTES_FOR_THREADS && files < FILES_FOR_THREADS)) return null;
  const entry = threadEntry("file-worker", import.meta.url);
  const threads = startThreads<FileCall, ScannedShard | Uploaded>(entry, "shardpact-files", count, signal);
  return {
    calls: count * CALLS_IN_THREAD,
    scan: (path, onBytes) => threads.call({ kind: "scan", path }, onBytes) as Promise<ScannedShard>,
    upload: (call, onBytes) => threads.call({ kind: "upload", ...call }, onBytes) as Promise<Uploaded>,
    close: () => threads.close(),
  };
}
