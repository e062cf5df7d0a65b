/**
 * Owns the memory that batches are gathered into. Whoever holds a copy of a batch gives its arrays back, and later batches
 * are gathered into them.
 *
 * V8 counts array buffers: each 64 MiB of new ones make it mark the whole heap, and in a training process that cost more
 * than reading, hashing and copying the batches did (docs/benchmarks.md).
 */
export interface BatchMemory {
  /** Memory of so many bytes, of any content. */
  take(bytes: number): ArrayBuffer;
  /**
   * Memory of so many bytes that another thread may write to as well, where it stays in its place; null when all of it is lent.
   * V8 does not count it, and gives it back late: so it is taken once, up to a bound, and what never comes back is not replaced.
   */
  takeShared(bytes: number): SharedArrayBuffer | null;
  /** Takes memory back that nobody looks at any more. What it did not lend it leaves alone. */
  give(memory: ArrayBufferLike): void;
}

/** @param bytesMax what is kept for later batches at most, and what is shared at most */
export function createBatchMemory(bytesMax: number): BatchMemory {
  const lent = new WeakSet<ArrayBufferLike>();
  const kept = new Map<number, ArrayBuffer[]>(); // by size
  let keptBytes = 0;
  const shared = new Map<number, SharedArrayBuffer[]>(); // by size, not lent
  let sharedBytes = 0; // lent or not
  return {
    take(bytes) {
      const known = kept.get(bytes)?.pop();
      if (known) keptBytes -= bytes;
      const memory = known ?? (Buffer.allocUnsafeSlow(bytes).buffer as ArrayBuffer); // not zeroed
      lent.add(memory);
      return memory;
    },
    takeShared(bytes) {
      const known = shared.get(bytes)?.pop();
      if (!known && sharedBytes + bytes > bytesMax) return null;
      if (!known) sharedBytes += bytes;
      const memory = known ?? new SharedArrayBuffer(bytes);
      lent.add(memory);
      return memory;
    },
    give(memory) {
      if (!lent.delete(memory)) return;
      if (memory instanceof SharedArrayBuffer) {
        shared.set(memory.byteLength, [...(shared.get(memory.byteLength) ?? []), memory]);
        return;
      }
      if (keptBytes + memory.byteLength > bytesMax) return;
      keptBytes += memory.byteLength;
      const same = kept.get(memory.byteLength);
      if (same) same.push(memory as ArrayBuffer);
      else kept.set(memory.byteLength, [memory as ArrayBuffer]);
    },
  };
}
