/**
 * Owns what an operating system is to a simulated process: timers, clocks, being paused, being killed.
 *
 * Everything that reaches the code of a process goes through `deliver`: a dead process hears nothing any more, which is
 * what a crash is; a paused one hears everything when it goes on, in order.
 */
import type { Timing } from "../../src/client/timing.ts";
import type { Runtime } from "../../src/replica/index.ts";
import type { Random, Scheduler } from "./scheduler.ts";

/** Wall clock at virtual time 0. */
const WALL_START_MS = 1_700_000_000_000;

export interface SimClock {
  /** Wall clock minus true time. */
  offsetMs: number;
  /** Local ms per true ms. */
  rate: number;
}

export interface SimProcess {
  readonly name: string;
  readonly runtime: Runtime;
  readonly timing: Timing;
  alive(): boolean;
  /** Runs `fn` now, when the pause ends, or never. */
  deliver(fn: () => void): void;
  /** The same for what a promise comes to. */
  gate<T>(promise: Promise<T>): Promise<T>;
  pause(ms: number): void;
  resume(): void;
  kill(): void;
}

export function createProcess(name: string, scheduler: Scheduler, random: Random, clock: SimClock): SimProcess {
  let alive = true;
  let pauses = 0;
  let paused = false;
  let backlog: (() => void)[] = [];
  let localNowMs = 0;
  let lastLookMs = scheduler.nowMs();

  function deliver(fn: () => void): void {
    if (!alive) return;
    if (paused) backlog.push(fn);
    else fn();
  }

  /** Resumed work is spread over events of its own: one at a time, as an event loop takes it. */
  function resume(): void {
    paused = false;
    const waiting = backlog;
    backlog = [];
    for (const fn of waiting) scheduler.after(0, () => deliver(fn));
  }

  /** Goes faster or slower as its rate changes, and never back. */
  function localMs(): number {
    localNowMs += (scheduler.nowMs() - lastLookMs) * clock.rate;
    lastLookMs = scheduler.nowMs();
    return localNowMs;
  }

  const wallMs = (): number => WALL_START_MS + Math.floor(scheduler.nowMs() * clock.rate + clock.offsetMs);

  function after(ms: number, fn: () => void): () => void {
    let on = true;
    const cancel = scheduler.after(ms / clock.rate, () => deliver(() => on && fn()));
    return () => {
      on = false;
      cancel();
    };
  }

  function every(ms: number, fn: () => void): () => void {
    let cancel = (): void => undefined;
    const arm = (): void => {
      cancel = after(ms, () => {
        arm();
        fn();
      });
    };
    arm();
    return () => cancel();
  }

  const randomU32 = (): number => Math.floor(random() * 2 ** 32);
  return {
    name,
    runtime: { nowMs: wallMs, monotonicMs: localMs, randomU32, every, after },
    timing: {
      nowMs: localMs,
      wallMs,
      random,
      uniqueHex: () => Array.from({ length: 4 }, () => randomU32().toString(16).padStart(8, "0")).join(""),
      later: (ms, fn) => void after(ms, fn),
      sleep: (ms, signal) =>
        new Promise((resolve) => {
          if (signal?.aborted) return resolve();
          const cancel = after(ms, resolve);
          const abort = (): void => {
            cancel();
            resolve();
          };
          signal?.addEventListener("abort", abort, { once: true });
        }),
    },
    alive: () => alive,
    deliver,
    gate: (promise) =>
      new Promise((resolve, reject) => {
        promise.then(
          (value) => deliver(() => resolve(value)),
          (error: unknown) => deliver(() => reject(error as Error)),
        );
      }),
    pause(ms) {
      pauses += 1;
      const mine = pauses;
      paused = true;
      scheduler.after(ms, () => {
        if (mine === pauses && paused) resume();
      });
    },
    resume() {
      if (paused) resume();
    },
    kill() {
      alive = false;
      backlog = [];
    },
  };
}
