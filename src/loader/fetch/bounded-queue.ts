/**
 * Owns a bounded hand-over from one producer to one consumer, which ends or fails once.
 *
 * Whoever need not wait gets no promise. A producer that had to wait goes on when there is room for several items: what is
 * done many times at a stretch finds its code and data in the processor's caches, and waking up costs as much as an item.
 */
import type { Maybe } from "../../model/maybe.ts";

export interface BoundedQueue<T> {
  /** Hands an item over; true when there is room for another; false when the consumer has gone and the item was dropped. */
  push(item: T): Maybe<boolean>;
  /** The next item, or null at the end. @throws what `fail` was given, after the items before it */
  shift(): Maybe<T | null>;
  end(): void;
  fail(error: unknown): void;
  /** The consumer goes: items that wait, and items that still come, are handed to `drop`. */
  close(drop: (item: T) => void): void;
}

/** @param burst items that there is room for when a waiting producer goes on */
export function createBoundedQueue<T>(itemsMax: number, burst = 1): BoundedQueue<T> {
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
  const roomMade = async (): Promise<boolean> => {
    await new Promise<void>((done) => (wakeProducer = done));
    return state === "open";
  };
  const itemCame = async (): Promise<T | null> => {
    await new Promise<void>((done) => (wakeConsumer = done));
    return take();
  };
  const take = (): Maybe<T | null> => {
    const item = items.shift();
    if (item !== undefined) {
      if (items.length > itemsMax - burst) return item;
      wakeProducer?.();
      wakeProducer = null;
      return item;
    }
    if (state === "open") return itemCame();
    if (state === "failed") throw failure;
    return null;
  };
  return {
    push(item) {
      if (state !== "open") {
        dropItem(item);
        return false;
      }
      items.push(item);
      wakeConsumer?.();
      wakeConsumer = null;
      return items.length < itemsMax || roomMade();
    },
    shift: take,
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
