/**
 * Owns the ports of the loader that no public option reaches: benchmarks and tests pass them, users cannot.
 *
 * Not exported by `index.ts`: in particular there is no public way to read without verifying.
 */
import type { LeafHasher } from "../shards/reader.ts";

export interface LoaderPorts {
  /** Digest of a leaf; null takes it unseen. */
  readonly hasher?: LeafHasher;
  readonly nowMs: () => number;
  /** How long a confirmation is worth without another, and how long `next()` then waits for one. */
  readonly leaseMs: number;
  readonly pauseMsMax: number;
  readonly retryMs: number;
  readonly warn: (message: string) => void;
}

export const DEFAULT_PORTS: LoaderPorts = {
  nowMs: () => performance.now(),
  leaseMs: 600_000,
  pauseMsMax: 600_000,
  retryMs: 2_000,
  warn: (message) => process.emitWarning(message, { type: "ShardpactWarning" }),
};
