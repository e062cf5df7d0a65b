/**
 * Owns what every remote store does around a request: refused once it is closed, and failures told in our words.
 */
import type { Digest } from "../../model/bytes.ts";
import { ShardpactError, isShardpactError } from "../../model/errors.ts";

export interface Guard {
  /** Runs `work`; what it throws becomes `not_found`, `aborted` or `store_failed`, naming `what` and the store. */
  run<T>(what: string, work: () => Promise<T>): Promise<T>;
  close(): void;
}

/** How an adapter's library says that an object is not there, and what to do about all else. */
export interface FailureWords {
  readonly hint: string;
  isMissing(error: unknown): boolean;
  /** A short code for `details`, such as an HTTP status. */
  codeOf(error: unknown): string;
}

export function createGuard(url: string, words: FailureWords): Guard {
  let closed = false;
  return {
    async run(what, work) {
      if (closed) throw new ShardpactError("closed", `the store ${url} is closed`);
      try {
        return await work();
      } catch (error) {
        if (isShardpactError(error)) throw error;
        if (isAbort(error)) throw new ShardpactError("aborted", `${what} in ${url} was aborted`, { cause: error });
        if (words.isMissing(error))
          throw new ShardpactError("not_found", `${what} in ${url}: not there`, { cause: error });
        const said = error instanceof Error ? error.message : String(error);
        throw new ShardpactError("store_failed", `${what} in ${url}: ${said}`, {
          details: { code: words.codeOf(error) },
          cause: error,
          hint: words.hint,
        });
      }
    },
    close() {
      closed = true;
    },
  };
}

/** Hex digits of a digest, as they stand in names. */
export function hexOf(digest: Digest): string {
  return digest.slice(3);
}

/** Where an object of a store stands below its root, in every adapter: a folder can be served or copied as it is. */
export function keyOf(digest: Digest): string {
  const hex = hexOf(digest);
  return `b3/${hex.slice(0, 2)}/${hex}`;
}

/** The digest in a name that ends with 64 hex digits, else null. */
export function digestOf(name: string): Digest | null {
  const hex = /(?:^|\/)([0-9a-f]{64})$/.exec(name)?.[1];
  return hex === undefined ? null : `b3:${hex}`;
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new ShardpactError("aborted", "a store request was aborted", { cause: signal.reason });
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}
