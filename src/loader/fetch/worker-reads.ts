/**
 * Owns the loader's side of the reading worker: starts it, calls it, and says what became of calls when it dies.
 *
 *   none ── first call ──▶ starting ── ready ──▶ running ── exit ──▶ none: what was called fails with `worker_failed`
 *                             └── exit before ready: this host has no such worker, and reads go on inline
 *
 * The thread keeps the process alive only while a call is running. Whatever it was reading into is not touched any more
 * once its calls have settled: they settle when it has exited, not when it begins to fail.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { ShardpactError } from "../../model/errors.ts";
import { createInlineReads, type InlineReadsOptions } from "./inline-reads.ts";
import type { ShardMap, ShardReads } from "./reads.ts";
import { createStoreHost } from "./store-host.ts";
import { shareBytes, type FromWorker, type ToWorker, type WorkerCall, type WorkerSetup } from "./worker-protocol.ts";
import { threadEntry } from "../../shards/thread-entry.ts";

/** How long `close` waits for the worker to close its files before it is ended anyway. */
const CLOSE_TIMEOUT_MS = 2_000;
/** What the thread makes and drops lies here: it makes little, and the default of 48 would stay resident. */
const YOUNG_MEGABYTES = 6;

export interface WorkerReadsOptions extends InlineReadsOptions {
  readonly signal: AbortSignal;
  /** Told when there is no worker and reads go on inline. */
  readonly warn: (message: string) => void;
  /** Given each thread that is started: for tests that end one. */
  readonly onThread?: (worker: Worker) => void;
}

/** The worker refused to start: there is no thread to call. */
class NoWorker extends Error {}

interface Thread {
  /** @throws NoWorker, ShardpactError */
  call(call: WorkerCall): Promise<ShardMap | null>;
  close(): Promise<void>;
}

/** Targets of `read` must be views of shared memory. */
export function createWorkerReads(options: WorkerReadsOptions): ShardReads {
  let thread: Thread | null = null;
  let inline: ShardReads | null = null;
  let verifiedBytes = 0;
  let closed = false;

  function threadOf(): Thread {
    thread ??= startThread(options, {
      onVerified: (bytes) => (verifiedBytes = Math.max(verifiedBytes, bytes)),
      onExit: () => (thread = null),
    });
    return thread;
  }

  async function via(call: WorkerCall, otherwise: (reads: ShardReads) => Promise<ShardMap | void>) {
    if (closed) throw new ShardpactError("closed", "the loader is closed");
    if (inline) return otherwise(inline);
    try {
      return await threadOf().call(call);
    } catch (error) {
      if (!(error instanceof NoWorker)) throw error;
      if (!inline) options.warn(`shards are read and hashed in the main thread: ${error.message}`);
      inline ??= createInlineReads(options);
      return otherwise(inline);
    }
  }

  return {
    map: async (shard) => (await via({ kind: "map", shard }, (reads) => reads.map(shard))) as ShardMap,
    async read(shard, segment, parts, target) {
      const call = { kind: "read", shard, segment, parts, target: shareBytes(target) } as const;
      await via(call, (reads) => reads.read(shard, segment, parts, target));
    },
    get verifiedBytes() {
      return inline ? inline.verifiedBytes : verifiedBytes;
    },
    async forget() {
      if (thread || inline) await via({ kind: "forget" }, (reads) => reads.forget());
    },
    async close() {
      closed = true;
      await thread?.close();
      await inline?.close();
    },
  };
}

interface ThreadEvents {
  onVerified(bytes: number): void;
  onExit(): void;
}

function startThread({ where, hashing, stores, signal, onThread }: WorkerReadsOptions, events: ThreadEvents): Thread {
  const calls = new Map<number, { resolve: (value: ShardMap | null) => void; reject: (error: Error) => void }>();
  const host = createStoreHost(stores, signal);
  let lastCall = 0;
  let isReady = false;
  let isClosing = false;
  let failure: unknown = null;
  const setup: WorkerSetup = {
    where,
    hashing,
    stores: stores.map(({ url, spec }) => ({ url, spec: spec ?? null })),
  };
  const worker = new Worker(threadEntry("read-worker", import.meta.url), {
    workerData: setup,
    execArgv: [],
    name: "shardpact-reads",
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MEGABYTES },
  });
  onThread?.(worker);
  worker.unref();
  const send = (message: ToWorker): void => worker.postMessage(message);

  function settle(id: number) {
    const waiting = calls.get(id);
    calls.delete(id);
    if (calls.size === 0) worker.unref();
    return waiting;
  }

  worker.on("message", (message: FromWorker) => {
    if (message.kind === "ready") isReady = true;
    else if (message.kind === "ask") {
      void host.answer(message.call).then((outcome) => send({ kind: "answer", id: message.id, outcome }));
    } else {
      events.onVerified(message.verifiedBytes);
      const { outcome } = message;
      const waiting = settle(message.id);
      if (outcome.ok) waiting?.resolve(outcome.value);
      else waiting?.reject(ShardpactError.fromJSON(outcome.error));
    }
  });
  worker.on("error", (error) => (failure = error));
  worker.on("exit", (code) => {
    events.onExit();
    void host.close();
    const error = isReady || isClosing ? ended(isClosing, code, failure) : new NoWorker(textOf(failure, code));
    for (const { reject } of calls.values()) reject(error);
    calls.clear();
  });

  const call = (what: WorkerCall): Promise<ShardMap | null> =>
    new Promise((resolve, reject) => {
      const id = ++lastCall;
      worker.ref();
      calls.set(id, { resolve, reject });
      send({ kind: "call", id, call: what });
    });
  return {
    call,
    async close() {
      isClosing = true;
      await Promise.race([
        call({ kind: "close" }).catch(() => undefined),
        sleep(CLOSE_TIMEOUT_MS, null, { ref: false }),
      ]);
      await worker.terminate();
    },
  };
}

function ended(isClosing: boolean, code: number, failure: unknown): ShardpactError {
  if (isClosing) return new ShardpactError("closed", "the loader was closed");
  return new ShardpactError("worker_failed", `the thread that reads shards ended: ${textOf(failure, code)}`, {
    ...(failure === null ? {} : { cause: failure }),
    details: { exitCode: code },
    hint: "Iterate again: the loader goes on at the acknowledged cursor, with a new thread.",
  });
}

function textOf(failure: unknown, code: number): string {
  return failure instanceof Error ? failure.message : `it exited with code ${code}`;
}
