/**
 * Owns threads that files are worked on in: calls go to whichever has the fewest under way, answers come back by number.
 *
 *   startThreads ── {id, input} ──▶ serveCalls(handle)      in a thread
 *        ▲ ◀─ {id, bytes}… {id, result, bytes} or {id, failed} ─┘
 */
import { parentPort, Worker } from "node:worker_threads";
import { type ErrorCode, ShardpactError, invariant, toShardpactError } from "../model/errors.ts";

/** What a thread lets lie before it looks for garbage; V8 would take several times as much of each. */
const YOUNG_MB = 8;

interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
  readonly hint: string;
}
interface Call {
  readonly id: number;
  readonly input: unknown;
}
type Answer = { readonly id: number } & (
  | { readonly kind: "bytes"; readonly bytes: number }
  | { readonly kind: "result"; readonly result: unknown; readonly bytes: number }
  | { readonly kind: "failed"; readonly failure: Failure }
);

/** Told at a time, and what is left with the result: a message costs both threads some microseconds. */
const TOLD_BYTES = 8 * 1024 * 1024;

/** In a thread: answers each call with what `handle` makes of it, several at a time. */
export function serveCalls<I, O>(handle: (input: I, onBytes: (bytes: number) => void) => Promise<O>): void {
  invariant(parentPort, "calls are served in a thread");
  const port = parentPort;
  const answer = (message: Answer): void => port.postMessage(message);
  port.on("message", ({ id, input }: Call) => {
    let untold = 0;
    const tell = (bytes: number): void => {
      untold += bytes;
      if (untold < TOLD_BYTES) return;
      answer({ id, kind: "bytes", bytes: untold });
      untold = 0;
    };
    handle(input as I, tell).then(
      (result) => answer({ id, kind: "result", result, bytes: untold }),
      (error: unknown) => {
        const { code, message, details, hint } = toShardpactError(error);
        answer({ id, kind: "failed", failure: { code, message, details, hint } });
      },
    );
  });
}

export interface Threads<I, O> {
  /** @throws what the thread's handler throws, `aborted`, `internal` when the thread died */
  call(input: I, onBytes?: (bytes: number) => void): Promise<O>;
  close(): Promise<void>;
}

/** @param entry of a module that calls `serveCalls` with the same types */
export function startThreads<I, O>(entry: URL, name: string, count: number, signal?: AbortSignal): Threads<I, O> {
  const threads = Array.from({ length: count }, () => startThread(entry, name, signal));
  return {
    call: (input, onBytes) => {
      const idlest = threads.reduce((a, b) => (b.pending() < a.pending() ? b : a));
      return idlest.call(input, onBytes) as Promise<O>;
    },
    close: async () => void (await Promise.all(threads.map((thread) => thread.close()))),
  };
}

interface Pending {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: ShardpactError) => void;
  readonly onBytes: ((bytes: number) => void) | undefined;
}

function startThread(entry: URL, name: string, signal: AbortSignal | undefined) {
  const resourceLimits = { maxYoungGenerationSizeMb: YOUNG_MB };
  const worker = new Worker(entry, { execArgv: [], name, resourceLimits });
  const pending = new Map<number, Pending>();
  let ids = 0;
  let dead: ShardpactError | null = null;
  const fail = (error: ShardpactError): void => {
    dead ??= error;
    for (const { reject } of pending.values()) reject(error);
    pending.clear();
  };
  const abort = (): void => fail(new ShardpactError("aborted", `${name} was aborted`, { cause: signal?.reason }));
  worker.on("message", (answer: Answer) => {
    const call = pending.get(answer.id);
    if (answer.kind === "bytes") return call?.onBytes?.(answer.bytes);
    pending.delete(answer.id);
    if (answer.kind === "result") {
      if (answer.bytes > 0) call?.onBytes?.(answer.bytes);
      return call?.resolve(answer.result);
    }
    const { code, message, details, hint } = answer.failure;
    call?.reject(new ShardpactError(code, message, { details, hint }));
  });
  worker.on("error", (cause) => fail(new ShardpactError("internal", `a thread failed: ${cause.message}`, { cause })));
  worker.on("exit", () => fail(new ShardpactError("internal", "a thread ended by itself")));
  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted) abort();
  return {
    pending: () => pending.size,
    call(input: unknown, onBytes?: (bytes: number) => void): Promise<unknown> {
      if (dead) return Promise.reject(dead);
      return new Promise((resolve, reject) => {
        const id = ids++;
        pending.set(id, { resolve, reject, onBytes });
        worker.postMessage({ id, input } satisfies Call);
      });
    },
    async close(): Promise<void> {
      signal?.removeEventListener("abort", abort);
      worker.removeAllListeners();
      await worker.terminate();
    },
  };
}
