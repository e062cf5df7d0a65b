/**
 * Owns the loader's side of one reading worker: starts it, calls it, and says what became of calls when it dies.
 *
 *   none ── first call ──▶ starting ── ready ──▶ running ── exit ──▶ none: what was called fails with `worker_failed`
 *                             └── exit before ready: this host has no such worker (`NoWorker`)
 *
 * The thread keeps the process alive only while a call is running. Whatever it was reading into is not touched any more
 * once its calls have settled: they settle when it has exited, not when it begins to fail.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { MessageChannel, receiveMessageOnPort, Worker } from "node:worker_threads";
import { ShardpactError } from "../../model/errors.ts";
import { threadEntry } from "../../shards/thread-entry.ts";
import type { InlineReadsOptions } from "./inline-reads.ts";
import type { ShardMap } from "./reads.ts";
import { createStoreHost } from "./store-host.ts";
import type { FromWorker, ToWorker, WorkerCall, WorkerSetup } from "./worker-protocol.ts";

/** How long `close` waits for the worker to close its files before it is ended anyway. */
const CLOSE_TIMEOUT_MS = 2_000;
/** What the thread makes and drops lies here: it makes little, and the default of 48 would stay resident. */
const YOUNG_MEGABYTES = 6;

export interface ReadingThreadOptions extends InlineReadsOptions {
  readonly signal: AbortSignal;
  /** Given each thread that is started: for tests that end one. */
  readonly onThread?: (worker: Worker) => void;
}

/** The worker refused to start: there is no thread to call. */
export class NoWorker extends Error {}

export interface ReadingThread {
  /** Calls that have not settled. */
  readonly calls: number;
  /** @throws NoWorker, ShardpactError */
  call(call: WorkerCall): Promise<ShardMap | null>;
  /** Settles the calls whose answers have come. */
  takeAnswers(): void;
  close(): Promise<void>;
}

interface ThreadEvents {
  /** Bytes verified since it was told last. */
  onVerified(bytes: number): void;
  onExit(): void;
}

export function startReadingThread(
  { where, hashing, stores, indexBytesMax, signal, onThread, onPassedOver }: ReadingThreadOptions,
  events: ThreadEvents,
): ReadingThread {
  const calls = new Map<number, { resolve: (value: ShardMap | null) => void; reject: (error: Error) => void }>();
  const host = createStoreHost(stores, signal);
  const unsent: { readonly id: number; readonly call: WorkerCall }[] = [];
  let lastCall = 0;
  let verifiedBytes = 0; // told of
  let isReady = false;
  let isClosing = false;
  let failure: unknown = null;
  const { port1: port, port2 } = new MessageChannel();
  const setup: WorkerSetup = {
    port: port2,
    where,
    hashing,
    indexBytesMax,
    stores: stores.map(({ url, spec }) => ({ url, spec: spec ?? null })),
  };
  const worker = new Worker(threadEntry("read-worker", import.meta.url), {
    workerData: setup,
    transferList: [port2],
    execArgv: [],
    name: "shardpact-reads",
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MEGABYTES },
  });
  onThread?.(worker);
  worker.unref();
  const send = (message: ToWorker): void => port.postMessage(message);

  function settle(id: number) {
    const waiting = calls.get(id);
    calls.delete(id);
    if (calls.size === 0) worker.unref();
    return waiting;
  }

  function heard(message: FromWorker): void {
    if (message.kind === "ready") isReady = true;
    else if (message.kind === "passed_over")
      onPassedOver?.({ store: message.store, error: ShardpactError.fromJSON(message.error) });
    else if (message.kind === "ask") {
      void host.answer(message.call).then((outcome) => send({ kind: "answer", id: message.id, outcome }));
    } else {
      events.onVerified(message.verifiedBytes - verifiedBytes);
      verifiedBytes = message.verifiedBytes;
      const { outcome } = message;
      const waiting = settle(message.id);
      if (outcome.ok) waiting?.resolve(outcome.value);
      else waiting?.reject(ShardpactError.fromJSON(outcome.error));
    }
  }

  function takeAnswers(): void {
    for (;;) {
      const received = receiveMessageOnPort(port);
      if (!received) return;
      heard(received.message as FromWorker);
    }
  }

  port.on("message", heard);
  port.unref(); // the thread itself holds the process, while a call runs
  worker.on("error", (error) => (failure = error));
  worker.on("exit", (code) => {
    takeAnswers(); // its last words
    port.close();
    events.onExit();
    void host.close();
    const error = isReady || isClosing ? ended(isClosing, code, failure) : new NoWorker(textOf(failure, code));
    for (const { reject } of calls.values()) reject(error);
    calls.clear();
  });

  const sendAll = (): void => send({ kind: "calls", calls: unsent.splice(0) });
  const call = (what: WorkerCall): Promise<ShardMap | null> =>
    new Promise((resolve, reject) => {
      const id = ++lastCall;
      worker.ref();
      calls.set(id, { resolve, reject });
      if (unsent.push({ id, call: what }) === 1) queueMicrotask(sendAll);
    });
  return {
    get calls() {
      return calls.size;
    },
    call,
    takeAnswers,
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
