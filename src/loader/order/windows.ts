/**
 * Owns the shuffle inside a lane window: Fisher–Yates from xoshiro128** (`docs/order.md` §5).
 *
 * A window is computed whole, about 4 ns a row, instead of one Feistel evaluation a row; resuming in the middle of an
 * epoch recomputes at most one window a lane. Source: Blackman and Vigna, "Scrambled Linear Pseudorandom Number Generators".
 */
import { keyWords } from "../../merkle/permutation.ts";

/** Row numbers; 32 bits suffice below 2³² rows. */
export type RowArray = Uint32Array | Float64Array;

/** Shuffles rows[0…length) in place under a 32-byte sub-key (use: window). `length` ≤ 2²⁰. */
export function shuffleWindow(rows: RowArray, length: number, key: Uint8Array): void {
  const words = keyWords(key);
  let s0 = words[0] as number;
  let s1 = words[1] as number;
  let s2 = words[2] as number;
  let s3 = (words[3] as number) | 1; // never the all-zero state
  for (let i = length - 1; i > 0; i--) {
    let x = Math.imul(s1, 5);
    x = Math.imul((x << 7) | (x >>> 25), 9) >>> 0;
    const t = s1 << 9;
    s2 ^= s0;
    s3 ^= s1;
    s1 ^= s2;
    s0 ^= s3;
    s2 ^= t;
    s3 = (s3 << 11) | (s3 >>> 21);
    const j = Math.floor((x * (i + 1)) / 2 ** 32);
    const held = rows[i] as number;
    rows[i] = rows[j] as number;
    rows[j] = held;
  }
}
