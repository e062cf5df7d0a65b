/**
 * Owns P: a keyed permutation of 0…m−1 that needs no table, only six 32-bit keys.
 *
 * An alternating Feistel network over ⌈log₂ m⌉ bits, cycle-walked back below m. Only 32-bit integer operations and exact
 * divisions by powers of two, so that other languages repeat it bit for bit (`docs/order.md` §2). Sources: Black and
 * Rogaway, "Ciphers with Arbitrary Finite Domains" (cycle walking); murmur3's fmix32 as the round function.
 */
import { invariant } from "../model/errors.ts";

/** Largest domain: positions stay exact in doubles. */
export const PERMUTATION_SIZE_MAX = 2 ** 52;

export interface Permutation {
  readonly size: number;
  /** Image of `x`, for integers 0 ≤ x < size. */
  forward(x: number): number;
  /** The `x` whose image is `y`. */
  inverse(y: number): number;
}

/** The eight little-endian u32 words of a 32-byte key. P uses the first six. */
export function keyWords(key: Uint8Array): Uint32Array {
  invariant(key.byteLength === 32, "a permutation key has 32 bytes");
  const view = new DataView(key.buffer, key.byteOffset, 32);
  const words = new Uint32Array(8);
  for (let i = 0; i < 8; i++) words[i] = view.getUint32(i * 4, true);
  return words;
}

/** P over 0…size−1 under `key` (32 bytes). */
export function createPermutation(size: number, key: Uint8Array): Permutation {
  invariant(Number.isInteger(size) && size >= 1 && size <= PERMUTATION_SIZE_MAX, "a permutation has 1…2^52 elements");
  const [k0, k1, k2, k3, k4, k5] = keyWords(key) as unknown as [number, number, number, number, number, number];
  const bits = Math.max(2, bitLength(size - 1));
  const rightBits = bits - Math.floor(bits / 2);
  const rightSize = 2 ** rightBits;
  const leftMask = 2 ** (bits - rightBits) - 1;
  const rightMask = rightSize - 1;

  const forward = (x: number): number => {
    let v = x;
    do {
      let l = Math.floor(v / rightSize);
      let r = v - l * rightSize;
      l = (l ^ mix(r ^ k0)) & leftMask;
      r = (r ^ mix(l ^ k1)) & rightMask;
      l = (l ^ mix(r ^ k2)) & leftMask;
      r = (r ^ mix(l ^ k3)) & rightMask;
      l = (l ^ mix(r ^ k4)) & leftMask;
      r = (r ^ mix(l ^ k5)) & rightMask;
      v = l * rightSize + r;
    } while (v >= size);
    return v;
  };
  const inverse = (y: number): number => {
    let v = y;
    do {
      let l = Math.floor(v / rightSize);
      let r = v - l * rightSize;
      r = (r ^ mix(l ^ k5)) & rightMask;
      l = (l ^ mix(r ^ k4)) & leftMask;
      r = (r ^ mix(l ^ k3)) & rightMask;
      l = (l ^ mix(r ^ k2)) & leftMask;
      r = (r ^ mix(l ^ k1)) & rightMask;
      l = (l ^ mix(r ^ k0)) & leftMask;
      v = l * rightSize + r;
    } while (v >= size);
    return v;
  };
  return { size, forward, inverse };
}

/** Bits needed to write `x`, without floating-point logarithms: bitLength(0) = 0, bitLength(8) = 4. */
function bitLength(x: number): number {
  const high = Math.floor(x / 2 ** 32);
  return high > 0 ? 64 - Math.clz32(high) : 32 - Math.clz32(x);
}

/** murmur3's 32-bit finalizer. */
function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}
