/**
 * Owns a shard store in NATS object stores: `nats://host:4222/bucket?replicas=3` (a server with JetStream).
 *
 *   <bucket>          one small object a shard, named by its hex digits: {bytes, pieceBytes, upload}
 *   <bucket>-pieces   its bytes, cut in pieces: `<hex>/<upload>/<n>`; a range is read without what is around it
 *   <bucket>-quarantine   entries of copies that were bad, with the reason; their pieces stay
 *
 * An object appears with its entry, which is put last, after the bytes were hashed. JetStream acknowledges before it syncs
 * by default: a store is never believed, and what a power loss takes is put again by the next publish.
 */
import { randomBytes } from "node:crypto";
import { type NatsConnection, NatsError, type ObjectStore, connect, nkeyAuthenticator } from "nats";
import { z } from "zod";
import { type Digest, utf8 } from "../../model/bytes.ts";
import { ShardpactError } from "../../model/errors.ts";
import { LIMITS } from "../../model/limits.ts";
import { checkPut, createObjectDigest } from "../object-digest.ts";
import type { ObjectHandle, ObjectInfo, PutOptions, ShardStore } from "../port.ts";
import { createGuard, digestOf, type Guard, hexOf, throwIfAborted } from "./guard.ts";
import { type NatsLine, watchLine } from "./nats-line.ts";
import { isWholeCopy } from "./whole-copy.ts";

const PIECE_BYTES = 1024 * 1024;
/** Pieces of one open object that are kept: reads of neighbouring leaves fall into the same one. */
const PIECES_KEPT = 4;
const CONNECT_TIMEOUT_MS = 5_000;
const RECONNECT_WAIT_MS = 100;
/** A server that is silent for three of these is taken for gone. The client's default is two minutes. */
const PING_INTERVAL_MS = 10_000;

const entrySchema = z.object({
  bytes: z.number().int().nonnegative(),
  pieceBytes: z.number().int().positive(),
  upload: z.string(),
});
type Entry = z.infer<typeof entrySchema>;

interface Buckets {
  readonly line: NatsLine;
  readonly entries: ObjectStore;
  readonly pieces: ObjectStore;
  readonly quarantine: ObjectStore;
}

export interface NatsStoreOptions {
  /** NKey seed to authenticate with. */
  readonly seed?: string;
}

/** Connects with the first request, and makes the buckets if need be. @throws ShardpactError `config_invalid` */
export function openNatsStore(address: string, options: NatsStoreOptions = {}): ShardStore {
  const bucket = new URL(address).pathname.slice(1);
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(bucket)) {
    throw new ShardpactError("config_invalid", `'${address}' names no bucket`, {
      hint: "Write nats://host:4222/bucket; letters, digits, - and _.",
    });
  }
  let connected: Promise<Connected> | null = null;
  return natsStore(address, {
    connect() {
      connected ??= connectTo(address, bucket, options);
      connected.catch(() => (connected = null)); // the next request tries again
      return connected;
    },
    async close() {
      const nc = await connected?.then(
        (c) => c.nc,
        () => null,
      );
      await nc?.close();
    },
  });
}

interface Connected extends Buckets {
  readonly nc: NatsConnection;
}

interface Connection {
  connect(): Promise<Connected>;
  close(): Promise<void>;
}

async function connectTo(address: string, bucket: string, { seed }: NatsStoreOptions): Promise<Connected> {
  const at = new URL(address);
  const nc = await connect({
    servers: at.host,
    name: `shardpact store ${bucket}`,
    timeout: CONNECT_TIMEOUT_MS,
    maxReconnectAttempts: -1,
    reconnectTimeWait: RECONNECT_WAIT_MS,
    pingInterval: PING_INTERVAL_MS,
    ...(seed === undefined ? {} : { authenticator: nkeyAuthenticator(utf8(seed)) }),
  });
  try {
    const { views } = nc.jetstream({ timeout: LIMITS.storeRequestTimeoutMs });
    // The client copies its own options into the stream's, and servers since 2.14 refuse a field that they don't know: this
    // one is read by the client and not copied.
    const options = Object.create({ replicas: Number(at.searchParams.get("replicas") ?? 1) }) as { replicas: number };
    const [entries, pieces, quarantine] = await Promise.all(
      ["", "-pieces", "-quarantine"].map((suffix) => views.os(`${bucket}${suffix}`, options)),
    );
    return { nc, line: watchLine(nc), entries, pieces, quarantine } as Connected;
  } catch (error) {
    await nc.close();
    throw error;
  }
}

class Missing extends Error {}

function natsStore(url: string, connection: Connection): ShardStore {
  const guard = createGuard(url, {
    hint: "Check the address, and that this NATS server runs JetStream.",
    isMissing: (error) => error instanceof Missing,
    codeOf: (error) => (error instanceof NatsError ? error.code : ""),
  });
  const run = <T>(what: string, work: (buckets: Buckets) => Promise<T>): Promise<T> =>
    guard.run(what, async () => work(await connection.connect()));
  const close = (): Promise<void> => {
    guard.close();
    return connection.close();
  };
  const store: ShardStore = {
    url,
    open: (digest, signal) =>
      run(`opening ${digest}`, async (buckets) => {
        throwIfAborted(signal);
        const entry = await entryOf(buckets, digest, signal);
        if (!entry) throw new Missing("not there");
        return openedObject(buckets, guard, digest, entry, signal);
      }),
    stat: (digest) =>
      run(`looking for ${digest}`, async (buckets) => {
        const entry = await entryOf(buckets, digest);
        return entry && { digest, bytes: entry.bytes };
      }),
    put: (digest, source, options = {}) =>
      run(`storing ${digest}`, (buckets) => putObject(buckets, store, digest, source, options)),
    async *list() {
      yield* await run("listing", (buckets) => Promise.resolve(listObjects(buckets, guard)));
    },
    quarantine: (digest, reason) =>
      run(`quarantining ${digest}`, async ({ line, entries, quarantine }) => {
        const bytes = await line.read(() => entries.getBlob(hexOf(digest)));
        if (bytes === null) return; // somebody else was first
        const name = `${hexOf(digest)}.${randomBytes(4).toString("hex")}`;
        await quarantine.putBlob({ name, description: `${new Date().toISOString()} ${reason}` }, bytes);
        await entries.delete(hexOf(digest));
      }),
    close,
    [Symbol.asyncDispose]: close,
  };
  return store;
}

async function entryOf({ line, entries }: Buckets, digest: Digest, signal?: AbortSignal): Promise<Entry | null> {
  const bytes = await line.read(() => entries.getBlob(hexOf(digest)), signal);
  return bytes && entrySchema.parse(JSON.parse(new TextDecoder().decode(bytes)));
}

function openedObject(
  { line, pieces }: Buckets,
  guard: Guard,
  digest: Digest,
  { bytes, pieceBytes, upload }: Entry,
  signal: AbortSignal | undefined,
): ObjectHandle {
  const kept = new Map<number, Promise<Uint8Array>>();
  const close = (): Promise<void> => {
    kept.clear();
    return Promise.resolve();
  };

  function piece(n: number): Promise<Uint8Array> {
    const known = kept.get(n);
    kept.delete(n);
    const next = known ?? fetchPiece(n);
    kept.set(n, next); // most recently used last
    next.catch(() => kept.delete(n));
    for (const oldest of kept.keys()) if (kept.size > PIECES_KEPT) kept.delete(oldest);
    return next;
  }

  async function fetchPiece(n: number): Promise<Uint8Array> {
    const found = await line.read(() => pieces.getBlob(pieceName(digest, upload, n)), signal);
    const expected = Math.min(pieceBytes, bytes - n * pieceBytes);
    if (found?.byteLength !== expected) {
      throw new Error(`piece ${n} has ${found?.byteLength ?? "no"} bytes and not ${expected}`);
    }
    return found;
  }

  return {
    bytes,
    readInto: (target, position) =>
      guard.run(`reading ${digest}`, async () => {
        const length = Math.min(target.byteLength, bytes - position);
        for (let at = 0; at < length;) {
          throwIfAborted(signal);
          const n = Math.floor((position + at) / pieceBytes);
          const from = position + at - n * pieceBytes;
          const part = (await piece(n)).subarray(from, from + length - at);
          target.set(part, at);
          at += part.byteLength;
        }
        return Math.max(0, length);
      }),
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function putObject(
  buckets: Buckets,
  store: ShardStore,
  digest: Digest,
  source: AsyncIterable<Uint8Array>,
  options: PutOptions,
): Promise<"stored" | "present"> {
  const { entries, pieces } = buckets;
  const { bytes, signal, onBytes, ...rest } = options;
  throwIfAborted(signal);
  if (bytes !== undefined && (await isWholeCopy(store, digest, bytes, options))) return "present";
  const hash = createObjectDigest(options.context);
  const upload = randomBytes(8).toString("hex");
  let written = 0;
  let count = 0;
  try {
    for await (const piece of cutInPieces(source)) {
      throwIfAborted(signal);
      hash.update(piece);
      await pieces.putBlob({ name: pieceName(digest, upload, count) }, piece);
      count += 1;
      written += piece.byteLength;
      onBytes?.(piece.byteLength);
    }
    checkPut(store.url, digest, hash.digest(), written);
    const isThere = await isWholeCopy(store, digest, written, { ...rest, ...(signal ? { signal } : {}) });
    if (!isThere) {
      const before = await entryOf(buckets, digest).catch(() => null);
      const entry: Entry = { bytes: written, pieceBytes: PIECE_BYTES, upload };
      await entries.putBlob({ name: hexOf(digest) }, utf8(JSON.stringify(entry)));
      count = 0;
      if (before) await removePieces(pieces, digest, before.upload, Math.ceil(before.bytes / before.pieceBytes));
    }
    return isThere ? "present" : "stored";
  } finally {
    await removePieces(pieces, digest, upload, count);
  }
}

/** Of an upload that came to nothing, or that another one replaced. What can't be removed now takes room, no more. */
async function removePieces(pieces: ObjectStore, digest: Digest, upload: string, count: number): Promise<void> {
  for (let n = 0; n < count; n++) await pieces.delete(pieceName(digest, upload, n)).catch(() => undefined);
}

/** Pieces of exactly `PIECE_BYTES`, the last one short; none of nothing. */
async function* cutInPieces(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let piece = new Uint8Array(PIECE_BYTES);
  let filled = 0;
  for await (const chunk of source) {
    for (let at = 0; at < chunk.byteLength;) {
      const part = chunk.subarray(at, at + PIECE_BYTES - filled);
      piece.set(part, filled);
      filled += part.byteLength;
      at += part.byteLength;
      if (filled < PIECE_BYTES) continue;
      yield piece;
      piece = new Uint8Array(PIECE_BYTES);
      filled = 0;
    }
  }
  if (filled > 0) yield piece.subarray(0, filled);
}

async function* listObjects(buckets: Buckets, guard: Guard): AsyncGenerator<ObjectInfo> {
  const { line, entries } = buckets;
  for (const { name, deleted } of await guard.run("listing", () => line.read(() => entries.list()))) {
    const digest = digestOf(name);
    const entry = digest && !deleted ? await guard.run("listing", () => entryOf(buckets, digest)) : null;
    if (digest && entry) yield { digest, bytes: entry.bytes };
  }
}

function pieceName(digest: Digest, upload: string, n: number): string {
  return `${hexOf(digest)}/${upload}/${n}`;
}
