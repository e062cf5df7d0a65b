/**
 * Owns the port to time and chance: the only way in which a replica learns what o'clock it is, waits, or rolls dice.
 *
 * A simulator passes another one and drives whole replicas from one seed.
 */
import { randomBytes } from "node:crypto";

export interface Runtime {
  /** Wall clock in ms; may jump. */
  nowMs(): number;
  /** Never goes backwards; for durations and deadlines. */
  monotonicMs(): number;
  /** Uniform in [0, 2³²). */
  randomU32(): number;
  /** Calls `fn` every `ms`; returns a canceller. Missed calls are not made up for. */
  every(ms: number, fn: () => void): () => void;
  /** Calls `fn` once after `ms`; returns a canceller. */
  after(ms: number, fn: () => void): () => void;
}

export function realRuntime(): Runtime {
  return {
    nowMs: () => Date.now(),
    monotonicMs: () => performance.now(),
    randomU32: () => randomBytes(4).readUInt32LE(0),
    every(ms, fn) {
      const timer = setInterval(fn, ms);
      return () => clearInterval(timer);
    },
    after(ms, fn) {
      const timer = setTimeout(fn, ms);
      return () => clearTimeout(timer);
    },
  };
}
