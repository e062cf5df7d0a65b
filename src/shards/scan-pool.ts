/**
 * Owns scanning many files on all cores: threads that each scan one file at a time, results in the order of the files.
 *
 * Few bytes are scanned here: a thread takes longer to start than they take to hash.
 */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { type ErrorCode, ShardpactError } from "../model/errors.ts";
import { scanShard, type ScannedShard, type ScanOptions } from "./scan.ts";
import { threadEntry } from "./thread-entry.ts";

const THREADS_MAX = 16;
const BYTES_FOR_THREADS = 64 * 1024 * 1024;

export interface ScanCall {
  readonly path: string;
}

export type ScanAnswer =
  | { readonly kind: "bytes"; readonly bytes: number }
  | { readonly kind: "scanned"; readonly scanned: ScannedShard }
  | {
      readonly kind: "failed";
      readonly code: ErrorCode;
      readonly message: string;
      readonly details: Readonly<Record<string, unknown>>;
      readonly hint: string;
    };

/** Scans each file; yields in order, at most so many ahead as there are threads. Errors as `scanShard`; the first ends all. */
export async function* scanAll(
  files: readonly { readonly path: string; readonly bytes: number }[],
  options: ScanOptions,
): AsyncGenerator<ScannedShard> {
  const threads = Math.min(files.length, availableParallelism(), THREADS_MAX);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  if (threads < 2 || bytes < BYTES_FOR_THREADS) {
    for (const { path } of files) yield await scanShard(path, options);
    return;
  }
  const pool = Array.from({ length: threads }, () => startThread(options));
  try {
    const under: Promise<ScannedShard>[] = [];
    let next = 0;
    const begin = (thread: ScanThread): void => {
      const file = files[next++];
      if (!file) return;
      const scan = thread.scan(file.path);
      scan.catch(() => undefined); // told when its turn comes
      under.push(scan);
    };
    pool.forEach(begin);
    // The k-th file is scanned by thread k mod threads: a thread is free when its last result was taken.
    for (let at = 0; at < files.length; at++) {
      const scanned = await (under[at] as Promise<ScannedShard>);
      begin(pool[at % threads] as ScanThread);
      yield scanned;
    }
  } finally {
    await Promise.all(pool.map((thread) => thread.close()));
  }
}

interface ScanThread {
  scan(path: string): Promise<ScannedShard>;
  close(): Promise<void>;
}

function startThread({ signal, onBytes }: ScanOptions): ScanThread {
  const worker = new Worker(threadEntry("scan-worker", import.meta.url), { execArgv: [], name: "shardpact-scan" });
  let settle: { resolve(scanned: ScannedShard): void; reject(error: Error): void } | null = null;
  let dead: ShardpactError | null = null;
  const fail = (error: ShardpactError): void => {
    dead ??= error;
    settle?.reject(error);
  };
  const abort = (): void =>
    fail(new ShardpactError("aborted", "scanning was aborted", { cause: signal?.reason as unknown }));
  worker.on("message", (answer: ScanAnswer) => {
    if (answer.kind === "bytes") return onBytes?.(answer.bytes);
    if (answer.kind === "scanned") return settle?.resolve(answer.scanned);
    const { code, message, details, hint } = answer;
    settle?.reject(new ShardpactError(code, message, { details, hint }));
  });
  worker.on("error", (cause) =>
    fail(new ShardpactError("internal", `a scanning thread failed: ${cause.message}`, { cause })),
  );
  worker.on("exit", () => fail(new ShardpactError("internal", "a scanning thread ended by itself")));
  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted) abort();
  return {
    scan(path) {
      if (dead) return Promise.reject(dead);
      return new Promise((resolve, reject) => {
        settle = { resolve, reject };
        worker.postMessage({ path } satisfies ScanCall);
      });
    },
    async close() {
      signal?.removeEventListener("abort", abort);
      worker.removeAllListeners();
      await worker.terminate();
    },
  };
}
