/**
 * Owns the random numbers that a `map` may draw: one generator a row, seeded by seed, epoch and row, so that augmentation
 * is the same for every world size and after every resume. xoshiro128**, as in the loader's windows.
 */
import { keyWords } from "./permutation.ts";

export interface Rng {
  /** Uniform in [0, 1), with 32 random bits. */
  uniform(): number;
  /** Uniform among 0…below−1, for below ≤ 2²⁰ (the bias is below 2⁻¹²). */
  integer(below: number): number;
}

/** @param key 32 bytes */
export function createRng(key: Uint8Array): Rng {
  const words = keyWords(key);
  let [s0, s1, s2, s3] = words as unknown as [number, number, number, number];
  s3 |= 1;
  const next = (): number => {
    let x = Math.imul(s1, 5);
    x = Math.imul((x << 7) | (x >>> 25), 9) >>> 0;
    const t = s1 << 9;
    s2 ^= s0;
    s3 ^= s1;
    s1 ^= s2;
    s0 ^= s3;
    s2 ^= t;
    s3 = (s3 << 11) | (s3 >>> 21);
    return x;
  };
  return {
    uniform: () => next() / 2 ** 32,
    integer: (below) => Math.floor((next() * below) / 2 ** 32),
  };
}
