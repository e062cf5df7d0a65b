/**
 * Owns taking all of an iteration into an array: for tests, whose iterations are short.
 */
export async function collect<T>(values: Iterable<T> | AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const value of values) all.push(value);
  return all;
}
