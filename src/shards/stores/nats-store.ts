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
import { type NatsConnection, NatsError, connect, nkeyAuthenticator } from "nats";
import { z } from "zod";
import { type Digest, utf8 } from "../../model/bytes.ts";
import { ShardpactError } from "../../model/errors.ts";
import { LIMITS } from "../../model/limits.ts";
import type { ObjectHandle, ObjectInfo, PutOptions, ShardStore } from "../port.ts";
import { createGuard, digestOf, type Guard, hexOf, throwIfAborted } from "./guard.ts";
import { type NatsLine, watchLine } from "./nats-line.ts";
import { deleteNatsObject, type NatsBucket, putNatsObject, readNatsObject } from "./nats-object.ts";
import { type NatsEntry, pieceName, uploadToNats } from "./nats-upload.ts";
import { isWholeCopy } from "./whole-copy.ts";

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

interface Buckets {
  readonly line: NatsLine;
  readonly entries: NatsBucket;
  readonly pieces: NatsBucket;
  readonly quarantine: NatsBucket;
}

/** How long a read waits for its line: as `line.read` does, or as `line.put`. */
type Asking = NatsLine["read"];

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
    const js = nc.jetstream({ timeout: LIMITS.storeRequestTimeoutMs });
    const jsm = await nc.jetstreamManager({ timeout: LIMITS.storeRequestTimeoutMs });
    const payloadBytesMax = nc.info?.max_payload ?? LIMITS.natsMaxPayloadBytesMin;
    // The client copies its own options into the stream's, and servers since 2.14 refuse a field that they don't know: this
    // one is read by the client and not copied.
    const options = Object.create({ replicas: Number(at.searchParams.get("replicas") ?? 1) }) as { replicas: number };
    const [entries, pieces, quarantine] = await Promise.all(
      ["", "-pieces", "-quarantine"].map(async (suffix): Promise<NatsBucket> => {
        const name = `${bucket}${suffix}`;
        return { name, objects: await js.views.os(name, options), js, jsm, payloadBytesMax };
      }),
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
  const stat = async ({ entries }: Buckets, asking: Asking, digest: Digest): Promise<ObjectInfo | null> => {
    const entry = await asking(() => entryOf(entries, hexOf(digest)));
    return entry && { digest, bytes: entry.bytes };
  };
  const open = async (
    buckets: Buckets,
    asking: Asking,
    digest: Digest,
    signal?: AbortSignal,
  ): Promise<ObjectHandle> => {
    throwIfAborted(signal);
    const entry = await asking(() => entryOf(buckets.entries, hexOf(digest)), signal);
    if (!entry) throw new Missing("not there");
    return openedObject(buckets.pieces, asking, guard, digest, entry, signal);
  };
  return {
    url,
    open: (digest, signal) => run(`opening ${digest}`, (buckets) => open(buckets, buckets.line.read, digest, signal)),
    stat: (digest) => run(`looking for ${digest}`, (buckets) => stat(buckets, buckets.line.read, digest)),
    put: (digest, source, options = {}) =>
      run(`storing ${digest}`, (buckets) => {
        // A put waits for its line, and so does what it reads. The guard has the last word on what is thrown.
        const there: Pick<ShardStore, "stat" | "open"> = {
          stat: (it) => guard.run(`looking for ${it}`, () => stat(buckets, buckets.line.put, it)),
          open: (it, signal) => guard.run(`opening ${it}`, () => open(buckets, buckets.line.put, it, signal)),
        };
        return putObject(buckets, there, { storeUrl: url, digest, source, options });
      }),
    async *list() {
      yield* await run("listing", (buckets) => Promise.resolve(listObjects(buckets, guard)));
    },
    quarantine: (digest, reason) => run(`quarantining ${digest}`, (buckets) => setAside(buckets, digest, reason)),
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function entryOf({ objects }: NatsBucket, name: string): Promise<NatsEntry | null> {
  const bytes = await objects.getBlob(name);
  return bytes && entrySchema.parse(JSON.parse(new TextDecoder().decode(bytes)));
}

function openedObject(
  pieces: NatsBucket,
  asking: Asking,
  guard: Guard,
  digest: Digest,
  { bytes, pieceBytes, upload }: NatsEntry,
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

  const fetchPiece = (n: number): Promise<Uint8Array> => {
    const expectedBytes = Math.min(pieceBytes, bytes - n * pieceBytes);
    return asking(() => readNatsObject(pieces, pieceName(digest, upload, n), expectedBytes), signal);
  };

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

interface Put {
  readonly storeUrl: string;
  readonly digest: Digest;
  readonly source: AsyncIterable<Uint8Array>;
  readonly options: PutOptions;
}

async function putObject(
  buckets: Buckets,
  there: Pick<ShardStore, "stat" | "open">,
  put: Put,
): Promise<"stored" | "present"> {
  const { line, entries, pieces } = buckets;
  const { digest, options } = put;
  const { bytes, signal, onBytes: _, ...rest } = options;
  throwIfAborted(signal);
  if (bytes !== undefined && (await isWholeCopy(there, digest, bytes, options))) return "present";
  return uploadToNats({
    ...{ ...put, entries, pieces },
    ask: (step) => line.put(step, signal),
    askBriefly: (step) => line.read(step),
    isWholeThere: (size) => isWholeCopy(there, digest, size, { ...rest, ...(signal ? { signal } : {}) }),
    entry: () => line.put(() => entryOf(entries, hexOf(digest)), signal),
    setAside: () => line.read(() => uploadsAside(buckets, digest)),
  });
}

/** The entry moves to the quarantine, its pieces stay. A copy that is put in its place meanwhile stays as well. */
async function setAside({ line, entries, quarantine }: Buckets, digest: Digest, reason: string): Promise<void> {
  const found = await line.read(() => entries.objects.info(hexOf(digest)));
  const bytes = found && !found.deleted ? await line.read(() => entries.objects.getBlob(hexOf(digest))) : null;
  if (!found || bytes === null) return; // somebody else was first
  const name = `${hexOf(digest)}.${randomBytes(4).toString("hex")}`;
  const description = `${new Date().toISOString()} ${reason}`;
  const nextId = (): string => `${name}.${randomBytes(4).toString("hex")}`;
  await putNatsObject(quarantine, line.read, { name, bytes, nextId, description });
  await deleteNatsObject(entries, line.read, found);
}

/** Uploads of copies in quarantine. */
async function uploadsAside({ quarantine }: Buckets, digest: Digest): Promise<ReadonlySet<string>> {
  const uploads = new Set<string>();
  for (const { name } of await quarantine.objects.list()) {
    const entry = name.startsWith(hexOf(digest)) ? await entryOf(quarantine, name) : null;
    if (entry) uploads.add(entry.upload);
  }
  return uploads;
}

async function* listObjects(buckets: Buckets, guard: Guard): AsyncGenerator<ObjectInfo> {
  const { line, entries } = buckets;
  for (const { name, deleted } of await guard.run("listing", () => line.read(() => entries.objects.list()))) {
    const digest = digestOf(name);
    const entry = digest && !deleted ? await guard.run("listing", () => line.read(() => entryOf(entries, name))) : null;
    if (digest && entry) yield { digest, bytes: entry.bytes };
  }
}
