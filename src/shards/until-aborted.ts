/**
 * Owns waiting for a store no longer than the caller wants to: stores may hang, and some hear no signal.
 *
 * What was abandoned may still write to the memory that it was given: whoever aborts must not use that memory again. A loader
 * that was aborted reads nothing more, and its memory goes with it.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { ShardpactError } from "../model/errors.ts";

/**
 * The promise, or `aborted` as soon as the signal fires.
 * @param late gets the result if it comes afterwards all the same
 * @throws ShardpactError `aborted`, and what the promise throws
 */
export async function untilAborted<T>(
  signal: AbortSignal | undefined,
  promise: Promise<T>,
  late?: (result: T) => unknown,
): Promise<T> {
  if (!signal) return promise;
  const waiting = waitingOn(signal);
  let giveUp: () => void = () => undefined;
  const abort = new Promise<never>((_, reject) => {
    giveUp = () => reject(abortError(signal));
    if (signal.aborted) giveUp();
    else waiting.add(giveUp);
  });
  try {
    return await Promise.race([abort, promise]);
  } catch (error) {
    if (!signal.aborted) throw error;
    if (late) remember(promise.then(late));
    else promise.catch(() => undefined);
    throw abortError(signal); // whatever the store made of the signal
  } finally {
    waiting.delete(giveUp);
  }
}

/** Whoever waits on a signal: one listener for all of them, and nothing that outlives a wait. */
const waitingBySignal = new WeakMap<AbortSignal, Set<() => void>>();

function waitingOn(signal: AbortSignal): Set<() => void> {
  const known = waitingBySignal.get(signal);
  if (known) return known;
  const waiting = new Set<() => void>();
  waitingBySignal.set(signal, waiting);
  signal.addEventListener("abort", () => waiting.forEach((giveUp) => giveUp()), { once: true });
  return waiting;
}

/** What has yet to be closed when it comes. */
const lateOnes = new Set<Promise<unknown>>();

function remember(late: Promise<unknown>): void {
  const settled = late.catch(() => undefined).finally(() => lateOnes.delete(settled));
  lateOnes.add(settled);
}

/** Waits for what was abandoned and came late to be closed, as long as that takes a moment: before a thread ends. */
export async function lateOnesClosed(timeoutMs: number): Promise<void> {
  await Promise.race([Promise.all(lateOnes), sleep(timeoutMs, null, { ref: false })]);
}

export function abortError(signal: AbortSignal): ShardpactError {
  return new ShardpactError("aborted", "reading was aborted", { cause: signal.reason });
}
