/**
 * Owns BLAKE3: plain digests of bytes, and domain-separated digests (`derive_key`) of our own structures.
 *
 * Plain BLAKE3 is used where people check with `b3sum` (whole files, leaves); everything that we define is hashed
 * under a context string, so that no structure can be mistaken for another. Source: BLAKE3 paper, §2.3 (modes).
 */
import { Blake3Hasher } from "@napi-rs/blake-hash";
import { concatBytes, fromHex } from "../model/bytes.ts";

export const DIGEST_BYTES = 32;

/** Plain BLAKE3 of the bytes: 32 bytes. */
export function hashBytes(bytes: Uint8Array): Uint8Array {
  const hex = plain.update(bytes).digest();
  plain.reset();
  return fromHex(hex);
}

/** `hashBytes` into `target`, from byte `at` on; returns `target`. */
export function hashBytesInto(bytes: Uint8Array, target: Buffer, at: number): Buffer {
  const hex = plain.update(bytes).digest();
  plain.reset();
  target.write(hex, at, "hex");
  return target;
}

/** Contexts of `derive_key`; a change of any is a new format. */
export const CONTEXTS = {
  chain: "shardpact chain/1",
  stateDigest: "shardpact state/1",
  commandBody: "shardpact command body/1",
  commandId: "shardpact command id/1",
  leaf: "shardpact manifest leaf/1",
  node: "shardpact manifest node/1",
  page: "shardpact page/1",
  root: "shardpact root/1",
  segmentIndex: "shardpact segment index/1",
  schema: "shardpact schema/1",
  classes: "shardpact classes/1",
  genesis: "shardpact genesis/1",
  selection: "shardpact selection/1",
  order: "shardpact sp-order/1",
  orderRound: "shardpact sp-order/1 round",
  orderDigest: "shardpact order digest/1",
  runOrderDigest: "shardpact run order digest/1",
  bytesDigest: "shardpact bytes digest/1",
  splitPosition: "shardpact positional split/1",
  splitKey: "shardpact split key/1",
  publishShuffle: "shardpact publish shuffle/1",
  answer: "shardpact answer/1",
  configuration: "shardpact configuration/1",
  configurationSignature: "shardpact configuration signature/1",
  adminRequest: "shardpact admin request/1",
  snapshot: "shardpact snapshot/1",
} as const;
export type Context = keyof typeof CONTEXTS;

/** BLAKE3 `derive_key(context, parts joined)`: 32 bytes. */
export function hashAs(context: Context, ...parts: readonly Uint8Array[]): Uint8Array {
  return fromHex(hashHexAs(context, ...parts));
}

/** `hashAs` as 64 hex digits. Text crosses from native code at a third of a buffer's cost. */
export function hashHexAs(context: Context, ...parts: readonly Uint8Array[]): string {
  let hasher = hashers.get(context);
  if (!hasher) hashers.set(context, (hasher = Blake3Hasher.newDeriveKey(CONTEXTS[context])));
  // One call for many small parts: each call into native code costs more than copying them.
  const hex = hasher.update(parts.length === 1 && parts[0] ? parts[0] : concatBytes(parts)).digest();
  hasher.reset();
  return hex;
}

const plain = new Blake3Hasher();
/** Deriving a context's key costs a hash of its own, so each context keeps its hasher. */
const hashers = new Map<Context, Blake3Hasher>();

/** Incremental plain BLAKE3. */
export class Hasher {
  readonly #inner = new Blake3Hasher();
  update(bytes: Uint8Array): this {
    this.#inner.update(bytes);
    return this;
  }
  digest(): Uint8Array {
    return new Uint8Array(this.#inner.digestBuffer());
  }
}
