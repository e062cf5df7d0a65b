/**
 * Owns what a store adapter gives to its contract suites: ways to open it, and ways to hurt what lies under it.
 */
import type { Entry, EntryKind } from "../../src/consensus/engine.ts";
import type { LogWrite, ReplicaStores, StoreIdentity } from "../../src/storage/port.ts";

export const IDENTITY: StoreIdentity = { groupId: "g-1", replica: "r1", engine: "raft" };

export interface StoreHarness {
  /** A new process on the same database; not booted. */
  open(identity?: StoreIdentity): Promise<ReplicaStores>;
  /** Flips a bit of a stored log entry. */
  damage(index: number): Promise<void>;
  /** Removes a stored log entry behind the store's back. */
  drop(index: number): Promise<void>;
  /** Changes the payload of a ledger row behind the store's back. */
  damageLedger(index: number): Promise<void>;
  /** Removes a ledger row behind the store's back. */
  dropLedger(index: number): Promise<void>;
  /** Changes a byte of the bytes of every stored object. */
  damageObjects(): Promise<void>;
  /** Changes the term in the record of what was promised. */
  damagePromises(): Promise<void>;
  /** Removes that record. */
  dropPromises(): Promise<void>;
  /** Breaks the connections of all open stores, at once or in the middle of their next write. */
  breakConnections(): Promise<void>;
  close(): Promise<void>;
}

export function entry(index: number, epoch = 1, kind: EntryKind = "command", text = `entry ${index}`): Entry {
  return { index, epoch, kind, payload: kind === "noop" ? new Uint8Array(0) : new TextEncoder().encode(text) };
}

export function entries(from: number, to: number, epoch = 1): Entry[] {
  return Array.from({ length: to - from + 1 }, (_, i) => entry(from + i, epoch));
}

export function write(put: readonly Entry[], o: Partial<LogWrite> = {}): LogWrite {
  return { hardState: null, removeFrom: null, put, ...o };
}

/** Mulberry32: uniform in [0, 1), decided by its seed. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
