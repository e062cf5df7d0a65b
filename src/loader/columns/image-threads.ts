/**
 * Owns the loader's side of the decoding threads: starts them, hands each a few jobs, and says what became of jobs when one dies.
 *
 *   decode ──▶ in line ──▶ the thread with the fewest jobs ──▶ pixels, memory of the caller from then on
 *
 * The training thread pays for two messages a batch; pixels are not copied. They are written into memory that is shared and
 * used again and again, as long as batches give it back; otherwise into memory that is handed over.
 *
 * A thread is started when all others have work. It has a second job waiting, for a training step may keep its loader from
 * answering for a while. It keeps the process alive only while it has jobs. A call settles, also when it is aborted, when
 * no thread reads its bytes any more.
 */
import { availableParallelism } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { ShardpactError } from "../../model/errors.ts";
import { LIMITS } from "../../model/limits.ts";
import { threadEntry } from "../../shards/thread-entry.ts";
import { abortError } from "../../shards/until-aborted.ts";
import type { BatchMemory } from "../batch-memory.ts";
import type { ColumnPlan, ImagePlan } from "./column-plan.ts";
import { type EncodedImage, failureOf, imageJob, type ImageJob, type ImageOutcome, pixelBytesOf } from "./image-job.ts";
import type { DecoderSetup, FromDecoder, ToDecoder } from "./image-worker.ts";
import { decodeImages } from "./images.ts";

/** Starting a thread costs about as much as decoding this many bytes of images. */
const THREAD_BYTES_MIN = 1024 * 1024;
/** What the thread makes and drops lies here: pixels are beside the heap. */
const YOUNG_MEGABYTES = 6;
/** Running and waiting at one thread. */
const JOBS_PER_THREAD = 2;
/** How long `close` waits for images that are being decoded before it ends their thread anyway. */
const CLOSE_TIMEOUT_MS = 2_000;

export interface ImageDecoder {
  /**
   * Pixels of all images of one column of a batch: `plan.width` numbers each, 0 … 255 times the scale; null rows as the plan's
   * `nulls` says. In memory that threads share only if `mayShare`.
   * @throws ShardpactError `image_malformed`, `shape_differs`, `setup_failed` (sharp is not installed), `worker_failed`,
   * `limit_exceeded`, `aborted`, `closed`
   */
  decode(
    plan: ColumnPlan,
    image: ImagePlan,
    images: readonly (EncodedImage | null)[],
    signal: AbortSignal,
    mayShare: boolean,
  ): Promise<Float32Array>;
  /** Ends the threads; what they were decoding fails with `closed`. Idempotent. */
  close(): Promise<void>;
}

export interface ImageThreadsOptions {
  /** How many at most; 0: images are decoded in the caller's thread. */
  readonly threads: number;
  /** Where pixels are written. */
  readonly memory: BatchMemory;
  /** Told when there are no threads and images are decoded in the caller's. */
  readonly warn: (message: string) => void;
  /** Given each thread that is started: for tests that end one. */
  readonly onThread?: (worker: Worker) => void;
}

/** How many threads decode the images of a selection of so many bytes. `auto`: none for a few. */
export function imageThreadsFor(bytes: number, where: "auto" | "threads" | "inline"): number {
  if (where === "inline" || (where === "auto" && bytes < THREAD_BYTES_MIN)) return 0;
  return Math.min(availableParallelism(), LIMITS.imageThreadsMax);
}

type Memory = ArrayBuffer | SharedArrayBuffer;

/** What became of a job, and the memory that its pixels lie in. */
interface Ended {
  readonly outcome: ImageOutcome;
  readonly memory: Memory;
}

/** A worker refused to start: there is no thread to call. */
class NoWorker extends Error {}

interface Thread {
  readonly jobs: number;
  /** @throws NoWorker, ShardpactError */
  run(job: ImageJob, memory: Memory, signal: AbortSignal): Promise<Ended>;
  close(): Promise<void>;
}

export function createImageThreads(options: ImageThreadsOptions): ImageDecoder {
  const { memory } = options;
  const threads: Thread[] = [];
  const line: (() => void)[] = [];
  let inline = options.threads === 0;
  let closing: Promise<void> | null = null;

  /** The thread with the fewest jobs, or a new one when all have some; null while all have as many as they may. */
  function freeThread(): Thread | null {
    const first = threads.toSorted((a, b) => a.jobs - b.jobs)[0];
    if (first && (first.jobs === 0 || threads.length === options.threads))
      return first.jobs < JOBS_PER_THREAD ? first : null;
    const thread: Thread = startThread(options.onThread, () => threads.splice(threads.indexOf(thread), 1));
    threads.push(thread);
    return thread;
  }

  /** Resolves when there may be room at a thread, or the signal fired. */
  function waitInLine(signal: AbortSignal): Promise<void> {
    if (line.length >= LIMITS.imageJobsWaitingMax) {
      throw new ShardpactError("limit_exceeded", `${line.length} columns of batches wait for their images`);
    }
    return new Promise((resolve) => {
      const go = (): void => {
        signal.removeEventListener("abort", go);
        const at = line.indexOf(go);
        if (at !== -1) line.splice(at, 1);
        resolve();
      };
      line.push(go);
      signal.addEventListener("abort", go, { once: true });
    });
  }

  async function runInThread(job: ImageJob, signal: AbortSignal, mayShare: boolean): Promise<Ended> {
    const bytes = pixelBytesOf(job);
    let shared: SharedArrayBuffer | null = null;
    try {
      for (;;) {
        if (closing) throw closed();
        if (signal.aborted) throw abortError(signal);
        const thread = freeThread();
        if (thread) {
          shared = mayShare ? memory.takeShared(bytes) : null;
          return await thread.run(job, shared ?? memory.take(bytes), signal); // which counts it at once
        }
        await waitInLine(signal);
      }
    } catch (error) {
      if (shared) memory.give(shared);
      throw error;
    } finally {
      line[0]?.();
    }
  }

  async function run(job: ImageJob, signal: AbortSignal, mayShare: boolean): Promise<Ended> {
    if (inline) {
      const own = memory.take(pixelBytesOf(job));
      return { outcome: await decodeImages(job, own, () => signal.aborted || closing !== null), memory: own };
    }
    try {
      return await runInThread(job, signal, mayShare);
    } catch (error) {
      if (!(error instanceof NoWorker)) throw error;
      if (!inline) options.warn(`images are decoded in the main thread: ${error.message}`);
      inline = true;
      return run(job, signal, mayShare);
    }
  }

  async function close(): Promise<void> {
    for (const go of [...line]) go();
    await Promise.all(threads.map((thread) => thread.close()));
  }

  return {
    async decode(plan, image, images, signal, mayShare) {
      if (closing) throw closed();
      if (signal.aborted) throw abortError(signal);
      const ended = await run(imageJob(plan, image, images), signal, mayShare);
      const { outcome } = ended;
      if (outcome.kind === "pixels") return new Float32Array(ended.memory);
      memory.give(ended.memory);
      if (outcome.kind === "stopped") throw signal.aborted ? abortError(signal) : closed();
      throw failureOf(plan, images, outcome);
    },
    close: () => (closing ??= close()),
  };
}

interface Call {
  readonly memory: Memory;
  readonly resolve: (ended: Ended) => void;
  readonly reject: (error: Error) => void;
}

function startThread(onThread: ImageThreadsOptions["onThread"], onExit: () => void): Thread {
  const stopped = new Int32Array(new SharedArrayBuffer(JOBS_PER_THREAD * Int32Array.BYTES_PER_ELEMENT));
  const calls = new Map<number, Call>();
  let lastId = 0;
  let isReady = false;
  let isClosing = false;
  let failure: unknown = null;
  let onIdle = (): void => undefined;
  const setup: DecoderSetup = { stopped: stopped.buffer };
  const worker = new Worker(threadEntry("image-worker", import.meta.url), {
    workerData: setup,
    execArgv: [],
    name: "shardpact-images",
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MEGABYTES },
  });
  onThread?.(worker);
  worker.unref();

  worker.on("message", (message: FromDecoder) => {
    if (message.kind === "ready") {
      isReady = true;
      return;
    }
    const call = calls.get(message.id);
    calls.delete(message.id);
    if (calls.size === 0) {
      worker.unref();
      onIdle();
    }
    call?.resolve({ outcome: message.outcome, memory: message.memory ?? call.memory });
  });
  worker.on("error", (error) => (failure = error));
  worker.on("exit", (code) => {
    onExit();
    const said = failure instanceof Error ? failure.message : `it exited with code ${code}`;
    const error = isClosing ? closed() : isReady ? died(said, failure) : new NoWorker(said);
    for (const { reject } of calls.values()) reject(error);
    calls.clear();
  });

  const stop = (id: number): number => Atomics.store(stopped, id % stopped.length, id);
  return {
    get jobs() {
      return calls.size;
    },
    async run(job, memory, signal) {
      const id = ++lastId;
      const onAbort = (): number => stop(id);
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        return await new Promise<Ended>((resolve, reject) => {
          worker.ref();
          calls.set(id, { memory, resolve, reject });
          worker.postMessage({ id, job, memory } satisfies ToDecoder, memory instanceof ArrayBuffer ? [memory] : []);
        });
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    },
    async close() {
      isClosing = true;
      for (const id of calls.keys()) stop(id);
      if (calls.size > 0) {
        const idle = new Promise<void>((done) => (onIdle = done));
        await Promise.race([idle, sleep(CLOSE_TIMEOUT_MS, null, { ref: false })]);
      }
      await worker.terminate();
    },
  };
}

function closed(): ShardpactError {
  return new ShardpactError("closed", "the loader is closed");
}

function died(said: string, cause: unknown): ShardpactError {
  return new ShardpactError("worker_failed", `the thread that decodes images ended: ${said}`, {
    ...(cause === null ? {} : { cause }),
    hint: "Iterate again: the loader goes on at the acknowledged cursor, with a new thread.",
  });
}
