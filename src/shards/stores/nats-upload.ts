/**
 * Owns bringing one object into a NATS store: its pieces, then the entry that makes it be there.
 *
 * A line that is cut in the middle is waited for, and what was under way is sent again. The entry replaces only what was looked at
 * before: nobody else's whole copy. Ids of chunks begin with the digest and the upload, so what a broken upload leaves is found, and
 * goes with a later put of the same object.
 */
import { randomBytes } from "node:crypto";
import { type Digest, utf8 } from "../../model/bytes.ts";
import { checkPut, createObjectDigest } from "../object-digest.ts";
import type { PutOptions } from "../port.ts";
import { hexOf, throwIfAborted } from "./guard.ts";
import {
  type Ask,
  idsBelow,
  lastChunkMs,
  type NatsBucket,
  purgeChunks,
  purgeNatsObject,
  putNatsObject,
} from "./nats-object.ts";

const PIECE_BYTES = 1024 * 1024;
/** An upload that brought nothing for so long is taken for dead, as a file of another host is. */
const STALE_AFTER_MS = 24 * 3_600_000;
/** Puts of others that may come between looking at an entry and replacing it. */
const ENTRY_TRIES_MAX = 8;

/** What is stored under a digest's hex digits. */
export interface NatsEntry {
  readonly bytes: number;
  readonly pieceBytes: number;
  readonly upload: string;
}

export interface NatsUpload {
  readonly entries: NatsBucket;
  readonly pieces: NatsBucket;
  readonly storeUrl: string;
  readonly digest: Digest;
  readonly source: AsyncIterable<Uint8Array>;
  readonly options: PutOptions;
  /** Waits for a line that is down as long as a request may take. */
  readonly ask: Ask;
  /** Fails soon when it is down: for what may be left undone. */
  readonly askBriefly: Ask;
  isWholeThere(bytes: number): Promise<boolean>;
  entry(): Promise<NatsEntry | null>;
  /** Uploads that no entry names and that are kept all the same: bad copies which were set aside. */
  setAside(): Promise<ReadonlySet<string>>;
}

/** What one upload has brought, and ids of chunks that a cut line left incomplete. */
interface Brought {
  readonly upload: string;
  readonly spoiled: { readonly bucket: NatsBucket; readonly id: string }[];
  pieces: number;
  /** An entry may name it: whether it does was never answered, or it does. */
  mayBeNamed: boolean;
}

/** @throws `shard_corrupt` when the bytes are not those of the digest, and what the client throws */
export async function uploadToNats(at: NatsUpload): Promise<"stored" | "present"> {
  const { digest, storeUrl, source, options } = at;
  await removeDead(at).catch(() => undefined); // it takes room, no more
  const hash = createObjectDigest(options.context);
  const brought: Brought = { upload: randomBytes(8).toString("hex"), spoiled: [], pieces: 0, mayBeNamed: false };
  let bytes = 0;
  let lastMs = Date.now();
  try {
    for await (const piece of cutInPieces(source)) {
      throwIfAborted(options.signal);
      if (Date.now() - lastMs > STALE_AFTER_MS / 2) throw new Error("the source came to a stop for hours");
      hash.update(piece);
      await putCounted(at, brought, at.pieces, pieceName(digest, brought.upload, brought.pieces), piece);
      brought.pieces += 1;
      bytes += piece.byteLength;
      lastMs = Date.now();
      options.onBytes?.(piece.byteLength);
    }
    checkPut(storeUrl, digest, hash.digest(), bytes);
    return (await putEntry(at, brought, bytes)) ? "stored" : "present";
  } finally {
    await removeSpoiled(at, brought).catch(() => undefined); // the same
  }
}

/** False when a whole copy is there, of somebody else. */
async function putEntry(at: NatsUpload, brought: Brought, bytes: number): Promise<boolean> {
  const { entries, digest, ask } = at;
  const entry: NatsEntry = { bytes, pieceBytes: PIECE_BYTES, upload: brought.upload };
  for (let tries = 1; tries <= ENTRY_TRIES_MAX; tries++) {
    const last = await ask(() => entries.objects.info(hexOf(digest)));
    if (await at.isWholeThere(bytes)) return false;
    const before = await at.entry().catch(() => null);
    const replaces = last?.revision ?? 0;
    brought.mayBeNamed = true;
    const put = await putCounted(at, brought, entries, hexOf(digest), utf8(JSON.stringify(entry)), replaces);
    // What stands there instead may be this one, whose answer went down with the line.
    if (!put.isPut && (await at.entry())?.upload !== brought.upload) {
      brought.mayBeNamed = false;
      brought.spoiled.push({ bucket: entries, id: put.id });
      continue;
    }
    if (before && before.upload !== brought.upload) await removePieces(at, before).catch(() => undefined);
    if (last) await purgeChunks(entries, at.askBriefly, last.nuid).catch(() => undefined);
    return true;
  }
  throw new Error("the entry was replaced by others again and again");
}

/** @returns whether it was put, and the id that names its chunks; those of tries before are spoiled */
async function putCounted(
  { digest, ask }: NatsUpload,
  { upload, spoiled, pieces }: Brought,
  bucket: NatsBucket,
  name: string,
  bytes: Uint8Array,
  replaces?: number,
): Promise<{ readonly isPut: boolean; readonly id: string }> {
  let id = "";
  const nextId = (): string => {
    if (id !== "") spoiled.push({ bucket, id });
    id = `${hexOf(digest)}.${upload}.${pieces}.${randomBytes(4).toString("hex")}`;
    return id;
  };
  const object = { name, bytes, nextId, ...(replaces === undefined ? {} : { replaces }) };
  const isPut = await putNatsObject(bucket, ask, object);
  return { isPut, id };
}

/** Chunks of tries that came to nothing; and of an upload that did, everything. */
async function removeSpoiled(at: NatsUpload, { upload, spoiled, pieces, mayBeNamed }: Brought): Promise<void> {
  for (const { bucket, id } of spoiled) await purgeChunks(bucket, at.askBriefly, id);
  if (mayBeNamed) return;
  await purgeChunks(at.pieces, at.askBriefly, `${hexOf(at.digest)}.${upload}.>`);
  // The one more was under way.
  await removePieces(at, { upload, bytes: (pieces + 1) * PIECE_BYTES, pieceBytes: PIECE_BYTES });
}

async function removePieces(at: NatsUpload, { upload, bytes, pieceBytes }: NatsEntry): Promise<void> {
  for (let n = 0; n < Math.ceil(bytes / pieceBytes); n++)
    await purgeNatsObject(at.pieces, at.askBriefly, pieceName(at.digest, upload, n));
}

/** What uploads of this object left whose writers died, or lost the line for good. */
async function removeDead(at: NatsUpload): Promise<void> {
  const { pieces, digest, askBriefly } = at;
  const newest = new Map<string, { id: string; pieces: number }>();
  for (const id of await idsBelow(pieces, askBriefly, hexOf(digest))) {
    const [, upload = "", n] = id.split(".");
    const known = newest.get(upload);
    if (!known || Number(n) >= known.pieces) newest.set(upload, { id, pieces: Number(n) + 1 });
  }
  if (newest.size === 0) return;
  const named = (await at.entry())?.upload;
  if (named !== undefined) newest.delete(named);
  const kept = await at.setAside();
  for (const [upload, { id, pieces: count }] of newest) {
    const lastMs = kept.has(upload) ? null : await lastChunkMs(pieces, askBriefly, id);
    if (lastMs === null || Date.now() - lastMs < STALE_AFTER_MS) continue;
    await removePieces(at, { upload, bytes: count * PIECE_BYTES, pieceBytes: PIECE_BYTES });
    await purgeChunks(pieces, askBriefly, `${hexOf(digest)}.${upload}.>`);
  }
}

export function pieceName(digest: Digest, upload: string, n: number): string {
  return `${hexOf(digest)}/${upload}/${n}`;
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
