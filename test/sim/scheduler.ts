/**
 * Owns virtual time: one queue of events, one order, one seed.
 *
 * The one thing to know: after every event a real turn of the event loop passes, so that all promises that the event
 * has settled have run before the next event. Nothing simulated waits for anything real, so a seed is a run.
 */

/** Uniform in [0, 1). */
export type Random = () => number;

export interface Scheduler {
  /** Virtual ms since the start. */
  nowMs(): number;
  /** Events run so far. */
  steps(): number;
  /** Calls `fn` once after `ms`, equal times in the order of the calls; returns a canceller. */
  after(ms: number, fn: () => void): () => void;
  /** Runs events until `done` answers true, nothing is left, or `endMs` is reached. Rejects with what was thrown. */
  run(endMs: number, done?: () => boolean): Promise<void>;
  /** Stops the run: an event's callback found a violation. Only the first counts. */
  fail(error: Error): void;
  /** Mixes what happens into the trace hash. */
  note(text: string): void;
  /** Equal for equal runs. */
  traceHash(): number;
}

interface Event {
  readonly atMs: number;
  readonly number: number;
  fn: (() => void) | null;
}

/** Small, fast and good enough (sfc32); the same stream on every machine. */
export function createRandom(seed: number): Random {
  let a = 0x9e3779b9 ^ seed;
  let b = 0x243f6a88;
  let c = 0xb7e15162;
  let d = 1;
  const next = (): number => {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return (t >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 16; i++) next();
  return next;
}

export const chance = (random: Random, p: number): boolean => random() < p;
export const between = (random: Random, min: number, max: number): number => min + random() * (max - min);
export const below = (random: Random, n: number): number => Math.floor(random() * n);

export function pick<T>(random: Random, from: readonly T[]): T {
  return from[below(random, from.length)] as T;
}

export function createScheduler(): Scheduler {
  const heap: Event[] = [];
  let nowMs = 0;
  let count = 0;
  let steps = 0;
  let failure: Error | null = null;
  let hash = 0x811c9dc5;

  const mix = (word: number): void => {
    hash = Math.imul(hash ^ word, 0x01000193) >>> 0;
  };

  async function run(endMs: number, done: () => boolean = () => false): Promise<void> {
    while (failure === null && !done()) {
      const event = heap[0];
      if (event === undefined || event.atMs > endMs) break;
      popEvent(heap);
      if (event.fn === null) continue;
      nowMs = event.atMs;
      steps += 1;
      mix(Math.round(nowMs * 1024) | 0);
      event.fn();
      await new Promise<void>((resolve) => void setImmediate(resolve));
    }
    if (failure !== null) throw failure as Error;
    if (!done()) nowMs = Math.max(nowMs, endMs);
  }

  return {
    nowMs: () => nowMs,
    steps: () => steps,
    after(ms, fn) {
      count += 1;
      const event: Event = { atMs: nowMs + Math.max(0, ms), number: count, fn };
      pushEvent(heap, event);
      return () => {
        event.fn = null;
      };
    },
    run,
    fail(error) {
      failure ??= error;
    },
    note(text) {
      for (let i = 0; i < text.length; i++) mix(text.charCodeAt(i));
    },
    traceHash: () => hash,
  };
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.number < b.number);
}

function pushEvent(heap: Event[], event: Event): void {
  let at = heap.length;
  heap.push(event);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!isBefore(event, heap[parent] as Event)) break;
    heap[at] = heap[parent] as Event;
    at = parent;
  }
  heap[at] = event;
}

function popEvent(heap: Event[]): void {
  const last = heap.pop() as Event;
  if (heap.length === 0) return;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && isBefore(heap[child + 1] as Event, heap[child] as Event)) child += 1;
    if (!isBefore(heap[child] as Event, last)) break;
    heap[at] = heap[child] as Event;
    at = child;
  }
  heap[at] = last;
}
