/**
 * Owns a bounded hand-over from one producer to one consumer, which ends or fails once.
 */
export interface BoundedQueue<T> {
  /** Hands an item over and resolves when there is room for another; false when the consumer has gone and the item was dropped. */
  push(item: T): Promise<boolean>;
  /** The next item, or null at the end. @throws what `fail` was given, after the items before it */
  shift(): Promise<T | null>;
  end(): void;
  fail(error: unknown): void;
  /** The consumer goes: items that wait, and items that still come, are handed to `drop`. */
  close(drop: (item: T) => void): void;
}

export function createBoundedQueue<T>(itemsMax: number): BoundedQueue<T> {
  const items: T[] = [];
  let state: "open" | "ended" | "failed" | "closed" = "open";
  let failure: unknown;
  let dropItem: (item: T) => void = () => undefined;
  let wakeProducer: (() => void) | null = null;
  let wakeConsumer: (() => void) | null = null;

  const wake = (): void => {
    wakeProducer?.();
    wakeConsumer?.();
    wakeProducer = wakeConsumer = null;
  };
  const finish = (next: "ended" | "failed", error?: unknown): void => {
    if (state !== "open") return;
    state = next;
    failure = error;
    wake();
  };
  return {
    async push(item) {
      if (state !== "open") {
        dropItem(item);
        return false;
      }
      items.push(item);
      wakeConsumer?.();
      wakeConsumer = null;
      while (items.length >= itemsMax && state === "open") await new Promise<void>((done) => (wakeProducer = done));
      return state === "open";
    },
    async shift() {
      while (items.length === 0 && state === "open") await new Promise<void>((done) => (wakeConsumer = done));
      if (items.length > 0) {
        wakeProducer?.();
        wakeProducer = null;
        return items.shift() as T;
      }
      if (state === "failed") throw failure;
      return null;
    },
    end: () => finish("ended"),
    fail: (error) => finish("failed", error),
    close(drop) {
      state = "closed";
      dropItem = drop;
      for (const item of items.splice(0)) drop(item);
      wake();
    },
  };
}
