/**
 * Owns a bounded pool of read buffers: reading into reused memory is four times faster than into fresh memory.
 *
 * `bytesMax` bounds what the pool ever holds, in use and free together. Buffers start 64-byte aligned in their
 * ArrayBuffer, so Arrow bodies in them can be used in place. Waiters are served first come, first served.
 */
import { ShardpactError } from "../model/errors.ts";

export interface PooledBuffer extends Disposable {
  /** At least as long as asked for; valid until `release`. */
  readonly bytes: Uint8Array;
  /** Gives the memory back. Nothing may read or write it afterwards. Idempotent. */
  release(): void;
}

export interface BufferPool extends Disposable {
  readonly bytesMax: number;
  /** Bytes lent out now. */
  readonly bytesInUse: number;
  /** @throws `budget_too_small` when one buffer would not fit the pool, `aborted`, `closed` */
  acquire(bytes: number, signal?: AbortSignal): Promise<PooledBuffer>;
  close(): void;
}

interface Waiter {
  readonly bytes: number;
  grant(buffer: PooledBuffer): void;
  refuse(error: ShardpactError): void;
}

/** @param options `shared`: buffers lie in shared memory, so that another thread can read into them */
export function createBufferPool(bytesMax: number, options: { readonly shared?: boolean } = {}): BufferPool {
  const memory = createMemory(bytesMax, options.shared ?? false);
  const waiters: Waiter[] = [];
  let closed = false;

  function lend(bytes: number): PooledBuffer | null {
    const taken = memory.take(sizeClass(bytes));
    if (!taken) return null;
    let lent = true;
    const release = () => {
      if (!lent) return;
      lent = false;
      memory.giveBack(taken);
      if (!closed) serve();
    };
    return { bytes: new Uint8Array(taken), release, [Symbol.dispose]: release };
  }

  function serve(): void {
    for (let first = waiters[0]; first; first = waiters[0]) {
      const buffer = lend(first.bytes);
      if (!buffer) return;
      waiters.shift();
      first.grant(buffer);
    }
  }

  function close(): void {
    closed = true;
    memory.clear();
    for (const waiter of waiters.splice(0)) waiter.refuse(new ShardpactError("closed", "the buffer pool was closed"));
  }

  return {
    bytesMax,
    get bytesInUse() {
      return memory.inUse();
    },
    async acquire(bytes, signal) {
      if (closed) throw new ShardpactError("closed", "the buffer pool is closed");
      if (signal?.aborted) throw new ShardpactError("aborted", "a read was aborted", { cause: signal.reason });
      if (sizeClass(bytes) > bytesMax) {
        throw new ShardpactError("budget_too_small", `a buffer of ${bytes} bytes does not fit a pool of ${bytesMax}`, {
          details: { bytes, bytesMax },
          hint: "Allow more memory, or publish with smaller record batches.",
        });
      }
      const buffer = waiters.length === 0 ? lend(bytes) : null;
      return buffer ?? waitInLine(waiters, bytes, signal, serve);
    },
    close,
    [Symbol.dispose]: close,
  };
}

/** Queues a request; one that is aborted lets those behind it move up (`onLeave`). */
function waitInLine(
  waiters: Waiter[],
  bytes: number,
  signal: AbortSignal | undefined,
  onLeave: () => void,
): Promise<PooledBuffer> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      waiters.splice(waiters.indexOf(waiter), 1);
      reject(new ShardpactError("aborted", "waiting for a read buffer was aborted", { cause: signal?.reason }));
      onLeave();
    };
    const settled = <T>(settle: (value: T) => void) => {
      return (value: T) => {
        signal?.removeEventListener("abort", abort);
        settle(value);
      };
    };
    const waiter: Waiter = { bytes, grant: settled(resolve), refuse: settled(reject) };
    signal?.addEventListener("abort", abort, { once: true });
    waiters.push(waiter);
  });
}

/** Memory by size: what is free is taken again, or given up when another size needs the room. */
function createMemory(bytesMax: number, isShared: boolean) {
  // Typed as the plain kind: views of both are used alike.
  const allocate = (size: number): ArrayBuffer =>
    isShared ? (new SharedArrayBuffer(size) as unknown as ArrayBuffer) : new ArrayBuffer(size);
  const free = new Map<number, ArrayBuffer[]>();
  let inUse = 0;
  let held = 0;

  function evict(bytes: number): void {
    for (const [size, list] of free) {
      while (bytes > 0 && list.pop()) {
        held -= size;
        bytes -= size;
      }
    }
  }

  return {
    inUse: () => inUse,
    clear: () => evict(Infinity),
    take(size: number): ArrayBuffer | null {
      let memory = free.get(size)?.pop();
      if (!memory) {
        if (inUse + size > bytesMax) return null;
        if (held + size > bytesMax) evict(held + size - bytesMax);
        memory = allocate(size);
        held += size;
      }
      inUse += size;
      return memory;
    },
    giveBack(memory: ArrayBuffer): void {
      inUse -= memory.byteLength;
      const list = free.get(memory.byteLength);
      if (list) list.push(memory);
      else free.set(memory.byteLength, [memory]);
    },
  };
}

/** Rounds up in steps of an eighth of an octave, so that buffers are reused and little is wasted. */
function sizeClass(bytes: number): number {
  const step = Math.max(64, 2 ** Math.floor(Math.log2(Math.max(bytes, 1)) - 3));
  return Math.ceil(Math.max(bytes, 1) / step) * step;
}
