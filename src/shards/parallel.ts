/**
 * Owns doing a list of things a few at a time.
 */

/**
 * Runs `work` for each item, at most `inFlight` at once; items that come asynchronously are asked for one at a time. The first
 * failure ends it, once what runs has settled.
 */
export async function inParallel<T>(
  items: Iterable<T> | AsyncIterable<T>,
  inFlight: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const iterator = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
  let failed = false;
  const worker = async () => {
    while (!failed) {
      try {
        const next = await iterator.next();
        if (next.done || failed) return;
        await work(next.value);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const results = await Promise.allSettled(Array.from({ length: inFlight }, worker));
  if (failed) await iterator.return?.();
  const first = results.find((result) => result.status === "rejected");
  if (first) throw first.reason;
}
