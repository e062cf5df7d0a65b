/**
 * Owns small helpers over bytes: hex, little-endian integers, comparison, digests as text.
 */
import { ShardpactError } from "./errors.ts";

const encoder = new TextEncoder();

/** A BLAKE3 digest as people see it: `b3:` and 64 lower-case hex digits. */
export type Digest = `b3:${string}`;

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}

/** @throws ShardpactError `invalid_argument` when the text is not whole hex bytes. */
export function fromHex(hex: string): Uint8Array {
  if (hex.length % 2 !== 0 || !/^[0-9a-f]*$/.test(hex)) {
    throw new ShardpactError("invalid_argument", `'${hex.slice(0, 80)}' is not lower-case hex`);
  }
  return decodeHex(hex);
}

/** Of digits that were checked. */
function decodeHex(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, "hex"));
}

export function formatDigest(bytes: Uint8Array): Digest {
  return `b3:${toHex(bytes)}`;
}

/** @throws ShardpactError `invalid_argument` when the text is not `b3:` and 64 hex digits. */
export function parseDigest(text: string): Uint8Array {
  if (!/^b3:[0-9a-f]{64}$/.test(text)) {
    throw new ShardpactError("invalid_argument", `'${text.slice(0, 80)}' is not a digest (b3: and 64 hex digits)`);
  }
  return decodeHex(text.slice(3));
}

export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.byteLength === b.byteLength && Buffer.compare(a, b) === 0;
}

export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.byteLength;
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.byteLength;
  }
  return out;
}

export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}

export function u32le(value: number): Uint8Array {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, value, true);
  return out;
}

export function u64le(value: number | bigint): Uint8Array {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(value), true);
  return out;
}
