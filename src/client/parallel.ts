/**
 * Owns doing a list of things a few at a time.
 */

/** Runs `work` for each item, at most `inFlight` at once. The first failure ends it, once what runs has settled. */
export async function inParallel<T>(
  items: readonly T[],
  inFlight: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0;
  let failed = false;
  const worker = async () => {
    while (!failed && next < items.length) {
      const item = items[next++] as T;
      try {
        await work(item);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const results = await Promise.allSettled(Array.from({ length: Math.min(inFlight, items.length) }, worker));
  const first = results.find((result) => result.status === "rejected");
  if (first) throw first.reason;
}
