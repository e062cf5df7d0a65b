/**
 * Owns writing an object of a NATS object store (the servers' ADR-20) in steps that may be repeated over a cut line.
 *
 *   $O.<bucket>.C.<id>     its bytes, in messages of a chunk each
 *   $O.<bucket>.M.<name>   what it is: id, size, SHA-256. From this message on the object is there
 *
 * The client's own put is one step: repeated, it leaves the chunks of the first time under an id that nobody knows any more. Here
 * each try has an id that is known, and the one message that names an id is made after all chunks are there: sent twice, it
 * says the same.
 */
import { createHash } from "node:crypto";
import {
  consumerOpts,
  type JetStreamClient,
  type JetStreamManager,
  NatsError,
  type ObjectInfo,
  type ObjectStore,
  headers,
} from "nats";
import { utf8 } from "../../model/bytes.ts";

/** What the client takes as well; a server may allow less. */
const CHUNK_BYTES_MAX = 128 * 1024;
/** Numbers of the server for a message whose subject has another last one than it expects. */
const WRONG_LAST = new Set([10071, 10164]);

export interface NatsBucket {
  readonly name: string;
  readonly objects: ObjectStore;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  /** The longest message that the server takes. */
  readonly payloadBytesMax: number;
}

/** Runs a step until the line lets it through, so perhaps more than once. */
export type Ask = <T>(step: () => Promise<T>) => Promise<T>;

export interface NewObject {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Another id with each call, of tokens with dots between them. */
  readonly nextId: () => string;
  readonly description?: string;
  /** Sequence of the message that now says what the object is; 0 for none. Only that one is replaced. */
  readonly replaces?: number;
}

/** @returns whether the object is there; false only when `replaces` was not what is there. @throws what the client throws */
export async function putNatsObject(bucket: NatsBucket, ask: Ask, object: NewObject): Promise<boolean> {
  const { name, bytes, nextId, description = "", replaces } = object;
  const chunkBytes = Math.min(CHUNK_BYTES_MAX, bucket.payloadBytesMax);
  const id = await ask(async () => {
    const tried = nextId();
    await sendChunks(bucket, tried, bytes, chunkBytes);
    return tried;
  });
  const meta = {
    ...{ name, description, bucket: bucket.name, nuid: id, size: bytes.byteLength },
    chunks: Math.ceil(bytes.byteLength / chunkBytes),
    options: { max_chunk_size: chunkBytes },
    mtime: new Date().toISOString(),
    // Base64 as the servers' clients write it: for URLs, and padded.
    digest: `SHA-256=${padded(createHash("sha256").update(bytes).digest("base64url"))}`,
    deleted: false,
  };
  return ask(() => sendMeta(bucket, name, meta, replaces));
}

/**
 * The bytes of an object, as they are there: whoever reads them hashes them. The client's own reading does so as well, in JavaScript, which
 * takes more than all else.
 * @throws when it is not there, has not that many bytes, and what the client throws
 */
export async function readNatsObject(bucket: NatsBucket, name: string, expectedBytes: number): Promise<Uint8Array> {
  const found = await bucket.objects.info(name);
  const bytes = found && !found.deleted ? found.size : 0;
  if (!found || bytes !== expectedBytes) throw new Error(`${name} has ${bytes} bytes and not ${expectedBytes}`);
  const target = new Uint8Array(bytes);
  if (bytes === 0) return target;
  const inOrder = consumerOpts();
  inOrder.orderedConsumer();
  const chunks = await bucket.js.subscribe(`$O.${bucket.name}.C.${found.nuid}`, inOrder);
  let at = 0;
  for await (const { data, info } of chunks) {
    if (at + data.byteLength > bytes) break;
    target.set(data, at);
    at += data.byteLength;
    if (info.pending === 0) break; // which ends the subscription
  }
  if (at < bytes) throw new Error(`${at} of ${bytes} bytes of ${name} came`);
  return target;
}

/** Takes an object away, unless another one was put in its place. */
export async function deleteNatsObject(bucket: NatsBucket, ask: Ask, found: ObjectInfo): Promise<void> {
  const { name, description, nuid, mtime, options, revision } = found;
  const meta = { name, description, bucket: bucket.name, nuid, size: 0, chunks: 0, options, mtime, digest: "" };
  if (await ask(() => sendMeta(bucket, name, { ...meta, deleted: true }, revision)))
    await purgeChunks(bucket, ask, nuid);
}

/** Takes an object away without a trace, for one that nobody asks for any more. */
export async function purgeNatsObject(bucket: NatsBucket, ask: Ask, name: string): Promise<void> {
  const found = await ask(() => bucket.objects.info(name));
  if (!found) return;
  await purgeChunks(bucket, ask, found.nuid);
  await ask(() => bucket.jsm.streams.purge(streamOf(bucket), { filter: metaSubject(bucket, name) }));
}

/** @param id of one object, or a prefix of ids that ends with `.>` */
export async function purgeChunks(bucket: NatsBucket, ask: Ask, id: string): Promise<void> {
  await ask(() => bucket.jsm.streams.purge(streamOf(bucket), { filter: `$O.${bucket.name}.C.${id}` }));
}

/** Ids of chunks that begin with these tokens. */
export async function idsBelow(bucket: NatsBucket, ask: Ask, prefix: string): Promise<string[]> {
  const above = `$O.${bucket.name}.C.`;
  const found = await ask(() => bucket.jsm.streams.info(streamOf(bucket), { subjects_filter: `${above}${prefix}.>` }));
  return Object.keys(found.state.subjects ?? {}).map((subject) => subject.slice(above.length));
}

/** When the last chunk of that id came, by the server's clock; null when there is none any more. */
export async function lastChunkMs(bucket: NatsBucket, ask: Ask, id: string): Promise<number | null> {
  const last_by_subj = `$O.${bucket.name}.C.${id}`;
  try {
    return (await ask(() => bucket.jsm.streams.getMessage(streamOf(bucket), { last_by_subj }))).time.getTime();
  } catch (error) {
    if (error instanceof NatsError && error.code === "404") return null;
    throw error;
  }
}

/** All at once: one connection keeps their order. */
async function sendChunks({ name, js }: NatsBucket, id: string, bytes: Uint8Array, chunkBytes: number): Promise<void> {
  const sent: Promise<unknown>[] = [];
  for (let at = 0; at < bytes.byteLength; at += chunkBytes)
    sent.push(js.publish(`$O.${name}.C.${id}`, bytes.subarray(at, at + chunkBytes)));
  await Promise.all(sent);
}

async function sendMeta(
  bucket: NatsBucket,
  name: string,
  meta: object,
  replaces: number | undefined,
): Promise<boolean> {
  const onlyLast = headers();
  onlyLast.set("Nats-Rollup", "sub");
  try {
    await bucket.js.publish(metaSubject(bucket, name), utf8(JSON.stringify(meta)), {
      headers: onlyLast,
      ...(replaces === undefined ? {} : { expect: { lastSubjectSequence: replaces } }),
    });
    return true;
  } catch (error) {
    if (error instanceof NatsError && WRONG_LAST.has(error.api_error?.err_code ?? 0)) return false;
    throw error;
  }
}

function metaSubject(bucket: NatsBucket, name: string): string {
  return `$O.${bucket.name}.M.${padded(Buffer.from(name).toString("base64url"))}`;
}

function streamOf(bucket: NatsBucket): string {
  return `OBJ_${bucket.name}`;
}

function padded(base64: string): string {
  return base64.padEnd(Math.ceil(base64.length / 4) * 4, "=");
}
