/**
 * Owns the type of what is mostly there at once, and is a promise only where it must be waited for. In a loop that runs for each
 * batch or row a promise that nobody needs is most of the cost; `value instanceof Promise ? await value : value` takes either.
 */
export type Maybe<T> = T | Promise<T>;
