/**
 * Waiting for something to become true, with a deadline that names what did not happen.
 */
import { setTimeout as sleep } from "node:timers/promises";

export interface WaitForOptions {
  readonly timeoutMs: number;
  /** Completes "timed out waiting for …". */
  readonly what: string;
  readonly everyMs?: number;
}

/** Resolves with the first value of `probe` that is neither null nor undefined. A probe that throws counts as not yet. */
export async function waitFor<T>(
  probe: () => Promise<T | null | undefined> | T | null | undefined,
  { timeoutMs, what, everyMs = 20 }: WaitForOptions,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== null && value !== undefined) return value;
    } catch (error) {
      last = error;
    }
    if (performance.now() >= deadline)
      throw new Error(`timed out after ${timeoutMs} ms waiting for ${what}`, { cause: last });
    await sleep(everyMs);
  }
}
