/**
 * Owns requests over publish and subscribe: one inbox per connection, one token per request.
 *
 * A request fails at once when the connection is lost: its answer would be lost with it, and the caller has better
 * uses for the time than waiting out the deadline.
 */
import { isShardpactError, ShardpactError } from "../model/errors.ts";
import type { RequestOptions } from "./port.ts";

export interface RequestsPort {
  /** Subject prefix that only this connection listens on; tokens are appended. */
  readonly prefix: string;
  connected(): boolean;
  publish(subject: string, data: Uint8Array, reply: string): void;
  /** Calls `fn` once after `ms`; returns a canceller. */
  after(ms: number, fn: () => void): () => void;
}

export interface Requests {
  request(subject: string, data: Uint8Array, options: RequestOptions): Promise<Uint8Array>;
  /** An answer arrived at `<prefix>.<token>`; null means that nobody listens on the request's subject. */
  answered(replySubject: string, data: Uint8Array | null): void;
  /** Fails everything that is open. `details.sent`: it had left, and may have been received. */
  failAll(code: "unavailable" | "closed"): void;
}

interface Pending {
  readonly subject: string;
  resolve(data: Uint8Array): void;
  reject(error: ShardpactError): void;
}

export function createRequests(port: RequestsPort): Requests {
  const pending = new Map<string, Pending>();
  let counter = 0;

  async function request(subject: string, data: Uint8Array, options: RequestOptions): Promise<Uint8Array> {
    if (options.signal?.aborted) throw abortedError(subject, options.signal);
    if (!port.connected()) throw new ShardpactError("unavailable", `no connection to send '${subject}' over`);
    counter += 1;
    const token = counter.toString(36);
    const reply = `${port.prefix}.${token}`;
    const { signal } = options;
    let cancel = (): void => undefined;
    let onAbort = (): void => undefined;
    try {
      return await new Promise<Uint8Array>((resolve, reject) => {
        pending.set(token, { subject, resolve, reject });
        cancel = port.after(options.timeoutMs, () =>
          reject(new ShardpactError("timeout", `no answer to '${subject}' within ${options.timeoutMs} ms`)),
        );
        if (signal) {
          onAbort = () => reject(abortedError(subject, signal));
          signal.addEventListener("abort", onAbort, { once: true });
        }
        port.publish(subject, data, reply);
      });
    } finally {
      pending.delete(token);
      cancel();
      signal?.removeEventListener("abort", onAbort);
    }
  }

  return {
    request,
    answered(replySubject, data) {
      const open = pending.get(replySubject.slice(port.prefix.length + 1));
      if (!open) return;
      if (data) open.resolve(data);
      else open.reject(new ShardpactError("unavailable", `nobody listens on '${open.subject}'`));
    },
    failAll(code) {
      const why = code === "closed" ? "the connection was closed" : "the connection was lost";
      for (const open of pending.values())
        open.reject(
          new ShardpactError(code, `${why} before '${open.subject}' was answered`, { details: { sent: true } }),
        );
    },
  };
}

/** A reason that is one of ours says why itself. */
function abortedError(subject: string, signal: AbortSignal): ShardpactError {
  if (isShardpactError(signal.reason, "aborted")) return signal.reason;
  return new ShardpactError("aborted", `the request to '${subject}' was aborted`, { cause: signal.reason });
}
