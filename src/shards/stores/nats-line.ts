/**
 * Owns what a broken connection means for a NATS store: what was under way is asked again once the line is back. The client
 * itself waits for answers to requests that went down with the line. Reads are told soon that a line stays down, for another store may
 * serve; puts wait for it as long as a request may take.
 */
import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { ErrorCode, Events, NatsError, type NatsConnection } from "nats";
import { LIMITS } from "../../model/limits.ts";
import { abortError } from "../until-aborted.ts";
import { withDeadline } from "./deadline.ts";

/** How long reads wait for a line to come back. */
const DOWN_MS_MAX = 5_000;
/** A server that has just come back may have no leader of the stream yet; a put asks it again so soon. */
const NOBODY_WAIT_MS = 250;

export interface NatsLine {
  /** Resolves as `work` does, which may run more than once. @throws what it throws, or that no answer came */
  read<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T>;
  /** The same for a step of a put. One that was given up may still take effect. */
  put<T>(step: () => Promise<T>, signal?: AbortSignal): Promise<T>;
}

/** Follows the connection until it is closed. */
export function watchLine(nc: NatsConnection): NatsLine {
  let broken = awaitedByMany();
  let back = awaitedByMany();
  let downSinceMs: number | null = null;

  async function follow(): Promise<void> {
    for await (const { type } of nc.status()) {
      if (type === Events.Disconnect && downSinceMs === null) {
        downSinceMs = performance.now();
        back = awaitedByMany();
        broken.abort();
      } else if (type === Events.Reconnect) {
        downSinceMs = null;
        broken = awaitedByMany();
        back.abort();
      }
    }
  }

  async function untilWhole(ending: AbortSignal, downMsMax: number): Promise<void> {
    while (downSinceMs !== null) {
      if (ending.aborted) throw abortError(ending);
      const leftMs = downSinceMs + downMsMax - performance.now();
      if (leftMs <= 0) throw new Error("the connection is down");
      await sleep(leftMs, null, { signal: AbortSignal.any([ending, back.signal]) }).catch(() => undefined);
    }
  }

  const asking = <T>(work: () => Promise<T>, isPut: boolean, signal?: AbortSignal): Promise<T> =>
    withDeadline(signal, async (ending) => {
      for (;;) {
        await untilWhole(ending, isPut ? LIMITS.storeRequestTimeoutMs : DOWN_MS_MAX);
        const cut = broken.signal;
        try {
          return await unlessAborted([ending, cut], work());
        } catch (error) {
          const isNobodyThere = isPut && error instanceof NatsError && error.code === ErrorCode.NoResponders;
          if (ending.aborted || !(cut.aborted || isNobodyThere)) throw error;
          if (isNobodyThere) await sleep(NOBODY_WAIT_MS, null, { signal: ending });
        }
      }
    });

  void follow();
  return {
    read: (work, signal) => asking(work, false, signal),
    put: (step, signal) => asking(step, true, signal),
  };
}

/** For any number of listeners, each of which goes with its request: Node takes more than ten for a leak. */
function awaitedByMany(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}

/**
 * The promise, or `aborted` when one of the signals fires first. No listener stays behind: Node keeps a signal that was made of others, and has
 * one, until it fires, which for a deadline is a minute.
 */
async function unlessAborted<T>(signals: readonly AbortSignal[], promise: Promise<T>): Promise<T> {
  const listening: (() => void)[] = [];
  const abort = new Promise<never>((_, reject) => {
    for (const signal of signals) {
      const listener = (): void => reject(abortError(signal));
      if (signal.aborted) listener();
      signal.addEventListener("abort", listener);
      listening.push(() => signal.removeEventListener("abort", listener));
    }
  });
  promise.catch(() => undefined); // it may fail after nobody waits for it any more
  try {
    return await Promise.race([abort, promise]);
  } finally {
    for (const stop of listening) stop();
  }
}
