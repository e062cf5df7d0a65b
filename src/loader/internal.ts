/**
 * Owns the ports of the loader that no public option reaches: benchmarks and tests pass them, users cannot.
 *
 * Not exported by `index.ts`: in particular there is no public way to read without verifying.
 */
import type { Hashing } from "./fetch/reads.ts";

export interface LoaderPorts {
  readonly hashing: Hashing;
  /** Where shards are read and hashed. `auto`: in a thread of its own, unless the selection is small. */
  readonly reads: "auto" | "worker" | "inline";
  /** Where images are decoded. `auto`: in threads of their own, unless the selection is small. */
  readonly images: "auto" | "threads" | "inline";
  readonly nowMs: () => number;
  /** How long a confirmation is worth without another, and how long `next()` then waits for one. */
  readonly leaseMs: number;
  readonly pauseMsMax: number;
  readonly retryMs: number;
  readonly warn: (message: string) => void;
}

export const DEFAULT_PORTS: LoaderPorts = {
  hashing: "blake3",
  reads: "auto",
  images: "auto",
  nowMs: () => performance.now(),
  leaseMs: 600_000,
  pauseMsMax: 600_000,
  retryMs: 2_000,
  warn: (message) => process.emitWarning(message, { type: "ShardpactWarning" }),
};
