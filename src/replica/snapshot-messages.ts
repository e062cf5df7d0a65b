/**
 * Owns the messages that bring a snapshot from one replica to another.
 *
 *   sender ──offer {index, digest, bytes}, again every second──► receiver      snapshot.<to>.<from>
 *   sender ◄──state: receiving | installing | installed | failed── receiver    snapshot.<to>.<from>
 *   sender ◄──want {digest, offset}, a few at a time── receiver                bulk.<to>.<from>
 *   sender ──chunk {digest, offset, check, bytes}──► receiver                  bulk.<to>.<from>
 *
 * The receiver leads: it asks for what it lacks, so a lost message, a lost connection or a sender that was started again
 * costs a repeated `want`. Chunks are named by the snapshot's digest: whoever holds the same snapshot may serve them.
 *
 * Bulk bytes: u8 version = 1 · u8 kind · 32 B snapshot digest · f64 offset, little-endian · (chunk) 32 B BLAKE3 of the rest · rest
 */
import { z } from "zod";
import { hashBytes } from "../merkle/hash.ts";
import { decodeApi } from "../model/api.ts";
import { bytesEqual, type Digest, formatDigest, parseDigest } from "../model/bytes.ts";
import { LIMITS } from "../model/limits.ts";

const count = z.number().int().nonnegative();
const digest = z.custom<Digest>((value) => typeof value === "string" && /^b3:[0-9a-f]{64}$/.test(value));

const snapshotOffer = z.strictObject({
  kind: z.literal("offer"),
  groupId: z.string(),
  index: count.positive(),
  digest,
  bytes: count.positive(),
});
export type SnapshotOffer = z.infer<typeof snapshotOffer>;

const snapshotAnswer = z.strictObject({
  kind: z.literal("answer"),
  groupId: z.string(),
  digest,
  state: z.enum(["receiving", "installing", "installed", "failed"]),
  /** Bytes that are there. */
  offset: count,
  /** Why it failed: an error's code and message. */
  code: z.string().nullable(),
  reason: z.string().nullable(),
});
export type SnapshotAnswer = z.infer<typeof snapshotAnswer>;

const snapshotMessage = z.discriminatedUnion("kind", [snapshotOffer, snapshotAnswer]);

/** Null: malformed, or of another build; lost, as on any bad link. */
export function decodeSnapshotMessage(data: Uint8Array): SnapshotOffer | SnapshotAnswer | null {
  try {
    return decodeApi(snapshotMessage, data);
  } catch {
    return null;
  }
}

export interface Want {
  readonly kind: "want";
  readonly digest: Digest;
  readonly offset: number;
}

export interface Chunk {
  readonly kind: "chunk";
  readonly digest: Digest;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

const VERSION = 1;
const WANT = 1;
const CHUNK = 2;
const DIGEST_AT = 2;
const OFFSET_AT = DIGEST_AT + 32;
const CHECK_AT = OFFSET_AT + 8;
const BYTES_AT = CHECK_AT + 32;

export function encodeWant({ digest: named, offset }: Omit<Want, "kind">): Uint8Array {
  return frame(WANT, named, offset, CHECK_AT);
}

export function encodeChunk({ digest: named, offset, bytes }: Omit<Chunk, "kind">): Uint8Array {
  const out = frame(CHUNK, named, offset, BYTES_AT + bytes.byteLength);
  out.set(hashBytes(bytes), CHECK_AT);
  out.set(bytes, BYTES_AT);
  return out;
}

function frame(kind: number, named: Digest, offset: number, length: number): Buffer {
  const out = Buffer.alloc(length);
  out[0] = VERSION;
  out[1] = kind;
  out.set(parseDigest(named), DIGEST_AT);
  out.writeDoubleLE(offset, OFFSET_AT);
  return out;
}

/** Null: malformed, of another version, or not what was sent: lost, as on any bad link. A chunk's bytes are a view. */
export function decodeBulk(data: Uint8Array): Want | Chunk | null {
  const view = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (view.length < CHECK_AT || view[0] !== VERSION) return null;
  const named = formatDigest(data.subarray(DIGEST_AT, OFFSET_AT));
  const offset = view.readDoubleLE(OFFSET_AT);
  if (!Number.isSafeInteger(offset) || offset < 0) return null;
  if (view[1] === WANT && view.length === CHECK_AT) return { kind: "want", digest: named, offset };
  const bytes = data.subarray(BYTES_AT);
  if (view[1] !== CHUNK || view.length <= BYTES_AT || bytes.byteLength > LIMITS.snapshotChunkBytesMax) return null;
  if (!bytesEqual(hashBytes(bytes), data.subarray(CHECK_AT, BYTES_AT))) return null;
  return { kind: "chunk", digest: named, offset, bytes };
}
