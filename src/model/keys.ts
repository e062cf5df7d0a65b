/**
 * Owns the keys of replicas and clients: one Ed25519 key, written as a NATS NKey seed (`SU…`).
 *
 * The same key authenticates at the NATS server and signs a replica's answers. NKeys wrap the raw 32 bytes in base32
 * with a two-byte type prefix and a CRC-16; signing and checking are node:crypto's.
 * Source: nats.docs "NKeys"; RFC 8032 (Ed25519), RFC 8410 (the DER prefixes).
 */
import {
  createPrivateKey,
  createPublicKey,
  sign as cryptoSign,
  verify as cryptoVerify,
  type KeyObject,
} from "node:crypto";
import { nkeys } from "nats";
import { fromHex, toHex } from "./bytes.ts";
import { ShardpactError } from "./errors.ts";

const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");
const SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");
const RAW_BYTES = 32;

/** A private key that is ready to sign, with its public half in hex. Parse a seed once, sign often. */
export interface SigningKey {
  readonly publicKeyHex: string;
  readonly privateKey: KeyObject;
}

/** A new user NKey seed: 58 characters from `SU`. Keep it secret. */
export function createSeed(): string {
  return new TextDecoder().decode(nkeys.createUser().getSeed());
}

/** The public NKey (`U…`) of a seed: what nats.conf lists. @throws ShardpactError `config_invalid` */
export function nkeyOf(seed: string): string {
  return keyPair(seed).getPublicKey();
}

/** The raw Ed25519 public key of a seed, 64 hex digits: what the genesis lists. @throws ShardpactError `config_invalid` */
export function publicKeyHex(seed: string): string {
  return signingKey(seed).publicKeyHex;
}

/** @throws ShardpactError `config_invalid` when the text is not a user NKey seed. */
export function signingKey(seed: string): SigningKey {
  keyPair(seed);
  const raw = base32Decode(seed).subarray(2, 2 + RAW_BYTES);
  const privateKey = createPrivateKey({ key: Buffer.concat([PKCS8_PREFIX, raw]), format: "der", type: "pkcs8" });
  const spki = createPublicKey(privateKey).export({ format: "der", type: "spki" });
  return { privateKey, publicKeyHex: toHex(spki.subarray(SPKI_PREFIX.byteLength)) };
}

/** Ed25519 signature of the bytes, 64 bytes. */
export function sign(key: string | SigningKey, bytes: Uint8Array): Uint8Array {
  const { privateKey } = typeof key === "string" ? signingKey(key) : key;
  return new Uint8Array(cryptoSign(null, bytes, privateKey));
}

const publicKeys = new Map<string, KeyObject>();
const PUBLIC_KEYS_MAX = 256;

/** True when `signature` is the key's over `bytes`; false for anything malformed. */
export function verify(publicKey: string, bytes: Uint8Array, signature: Uint8Array): boolean {
  const key = publicKeyObject(publicKey);
  return key !== null && signature.byteLength === 64 && cryptoVerify(null, bytes, key, signature);
}

/** Parsing a key costs more than checking a signature, so parsed ones are kept. */
function publicKeyObject(hex: string): KeyObject | null {
  const known = publicKeys.get(hex);
  if (known) return known;
  if (!/^[0-9a-f]{64}$/.test(hex)) return null;
  const key = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, fromHex(hex)]), format: "der", type: "spki" });
  if (publicKeys.size >= PUBLIC_KEYS_MAX) publicKeys.clear();
  publicKeys.set(hex, key);
  return key;
}

function keyPair(seed: string) {
  try {
    if (!seed.startsWith("SU")) throw new Error("it does not start with SU");
    return nkeys.fromSeed(new TextEncoder().encode(seed));
  } catch (cause) {
    throw new ShardpactError("config_invalid", "the seed is not a user NKey seed", {
      cause,
      hint: "A seed is 58 characters and starts with SU; `shardpact init` makes one.",
    });
  }
}

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** RFC 4648 base32 without padding. */
function base32Decode(text: string): Uint8Array {
  const out = new Uint8Array(Math.floor((text.length * 5) / 8));
  let bits = 0;
  let value = 0;
  let at = 0;
  for (const char of text) {
    value = ((value << 5) | ALPHABET.indexOf(char)) & 0xfff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      out[at++] = (value >>> bits) & 0xff;
    }
  }
  return out;
}
