/**
 * Owns time and chance as the client sees them: clocks, sleeping, backoff, deadlines, and what must not repeat. Injected,
 * so that tests decide them, and a simulation's seed.
 */
import { randomBytes } from "node:crypto";
import { toHex } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";

export interface Timing {
  nowMs(): number;
  /** What other machines call the time. */
  wallMs(): number;
  /** Resolves after `ms`, or at once when the signal fires (callers look at their deadline and signal afterwards). */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls `fn` once after `ms`; a process need not stay alive for it. */
  later(ms: number, fn: () => void): void;
  /** Uniform in [0, 1): jitter of retries, choice of a replica. */
  random(): number;
  /** Hex of 16 bytes that nobody can guess and nobody draws again: command ids, nonces. */
  uniqueHex(): string;
}

export const REAL_TIMING: Timing = {
  nowMs: () => Date.now(),
  wallMs: () => Date.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      const done = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal?.addEventListener("abort", done, { once: true });
    }),
  later: (ms, fn) => void setTimeout(fn, ms).unref(),
  random: () => Math.random(),
  uniqueHex: () => toHex(randomBytes(16)),
};

const BACKOFF_MS_MIN = 20;
const BACKOFF_MS_MAX = 250;

/** Exponential backoff with full jitter: uniform in (0, min(max, 20·2ⁿ)], so that clients don't return in step. */
export function backoffMs(attempt: number, random: () => number): number {
  const ceiling = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(attempt, 10));
  return Math.ceil(ceiling * (1 - random()));
}

export interface Deadline {
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  remainingMs(): number;
  /** @throws ShardpactError `aborted` when the caller's signal fired. */
  throwIfAborted(): void;
}

export function startDeadline(timing: Timing, timeoutMs: number, signal?: AbortSignal): Deadline {
  const endMs = timing.nowMs() + timeoutMs;
  return {
    timeoutMs,
    signal,
    remainingMs: () => Math.max(0, endMs - timing.nowMs()),
    throwIfAborted: () => {
      if (signal?.aborted) {
        throw new ShardpactError("aborted", "the caller aborted the call", { cause: signal.reason });
      }
    },
  };
}

/** The transport's options for one request that may take `timeoutMs` of what the deadline leaves. */
export function requestOptions(deadline: Deadline, timeoutMs: number): { timeoutMs: number; signal?: AbortSignal } {
  const capped = Math.max(1, Math.min(timeoutMs, deadline.remainingMs()));
  return deadline.signal === undefined ? { timeoutMs: capped } : { timeoutMs: capped, signal: deadline.signal };
}
