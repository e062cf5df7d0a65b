/**
 * Owns reading shards over HTTP(S): any web server over a store's folder (`b3/ab/<64 hex digits>`) will do.
 *
 * Read-only: `put`, `list` and `quarantine` fail. Ranged reads; a server that ignores ranges is refused rather than read
 * from the start again and again.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Digest } from "../../model/bytes.ts";
import { ShardpactError } from "../../model/errors.ts";
import { LIMITS } from "../../model/limits.ts";
import type { ObjectHandle, ObjectInfo, ShardStore } from "../port.ts";
import { fillFrom } from "./deadline.ts";
import { createGuard, keyOf } from "./guard.ts";

const TRIES_MAX = 3;
const RETRY_AFTER_MS = 100;

/** An answer that is not what was asked for. */
class HttpFailure extends Error {
  readonly status: number;
  constructor(status: number, said: string) {
    super(said);
    this.status = status;
  }
}

/** @param base `http://host/folder` or `https://…`; a query string (a token, say) is sent with every request */
export function openHttpStore(base: string): ShardStore {
  const root = new URL(base);
  const url = root.href;
  const guard = createGuard(url, {
    hint: "Check the address, and that the server answers ranged requests.",
    isMissing: (error) => error instanceof HttpFailure && (error.status === 404 || error.status === 410),
    codeOf: (error) => (error instanceof HttpFailure ? String(error.status) : ""),
  });
  const addressOf = (digest: Digest): URL => {
    const address = new URL(root);
    address.pathname = `${root.pathname.replace(/\/$/, "")}/${keyOf(digest)}`;
    return address;
  };
  const sizeOf = (digest: Digest, signal?: AbortSignal): Promise<number> =>
    retrying(async () => {
      const answer = await request(addressOf(digest), { method: "HEAD" }, signal);
      if (!answer.ok) throw new HttpFailure(answer.status, `HTTP ${answer.status}`);
      const length = Number(answer.headers.get("content-length") ?? Number.NaN);
      if (!Number.isSafeInteger(length)) throw new HttpFailure(answer.status, "the server does not tell the size");
      return length;
    });
  const readOnly = (what: string): Promise<never> =>
    guard.run(what, () => Promise.reject(new HttpFailure(405, "an HTTP store is read-only")));
  const close = (): Promise<void> => {
    guard.close();
    return Promise.resolve();
  };
  return {
    url,
    open: (digest, signal) =>
      guard.run(`opening ${digest}`, async () => {
        const bytes = await sizeOf(digest, signal);
        return handleOf(bytes, (target, position) =>
          guard.run(`reading ${digest}`, () => retrying(() => readRange(addressOf(digest), target, position, signal))),
        );
      }),
    stat: (digest) =>
      guard.run(`looking for ${digest}`, async (): Promise<ObjectInfo | null> => {
        try {
          return { digest, bytes: await sizeOf(digest) };
        } catch (error) {
          if (error instanceof HttpFailure && error.status === 404) return null;
          throw error;
        }
      }),
    put: (digest) => readOnly(`storing ${digest}`),
    async *list(): AsyncGenerator<ObjectInfo> {
      yield await readOnly("listing");
    },
    quarantine: (digest) => readOnly(`quarantining ${digest}`),
    close,
    [Symbol.asyncDispose]: close,
  };
}

function handleOf(bytes: number, read: (target: Uint8Array, position: number) => Promise<void>): ObjectHandle {
  let open = true;
  const close = (): Promise<void> => {
    open = false;
    return Promise.resolve();
  };
  return {
    bytes,
    async readInto(target, position) {
      if (!open) throw new ShardpactError("closed", "the object was closed");
      const length = Math.min(target.byteLength, bytes - position);
      if (length <= 0) return 0;
      await read(target.subarray(0, length), position);
      return length;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function readRange(address: URL, target: Uint8Array, from: number, signal?: AbortSignal): Promise<void> {
  const range = `bytes=${from}-${from + target.byteLength - 1}`;
  const answer = await request(address, { headers: { range } }, signal);
  if (answer.status !== 206 || answer.body === null) {
    await answer.body?.cancel();
    const said = answer.status === 200 ? "the server ignores ranges" : `HTTP ${answer.status}`;
    throw new HttpFailure(answer.status, said);
  }
  await fillFrom(answer.body as unknown as AsyncIterable<Uint8Array>, target);
}

/** With a deadline for the whole answer, its body included. */
function request(address: URL, init: RequestInit, signal: AbortSignal | undefined): Promise<Response> {
  const deadline = AbortSignal.timeout(LIMITS.storeRequestTimeoutMs);
  // No compression: ranges and sizes are those of the stored bytes.
  const headers = { "accept-encoding": "identity", ...(init.headers as Record<string, string> | undefined) };
  return fetch(address, { ...init, headers, signal: signal ? AbortSignal.any([signal, deadline]) : deadline });
}

/** Again after a server's or the network's fault, a few times; never after a plain no. */
async function retrying<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work();
    } catch (error) {
      const isPlainNo = error instanceof HttpFailure && error.status < 500 && error.status !== 429;
      const isOver = error instanceof Error && (error.name === "AbortError" || error.name === "TimeoutError");
      if (tries >= TRIES_MAX || isPlainNo || isOver) throw error;
      await sleep(RETRY_AFTER_MS * 2 ** (tries - 1));
    }
  }
}
