/**
 * Owns the shuffled sequence of blocks: slot ⌊u/n⌋ of the sequence holds block P(⌊u/n⌋) of the manifest.
 *
 * One block may be short. Positions `v` count real rows, positions `u` count slots of n rows each; they differ by the
 * rows that the short block lacks, from its slot on. No prefix sums and no tables (`docs/order.md` §3).
 */
import { createPermutation } from "../../merkle/permutation.ts";

export interface Blocks {
  readonly rows: number;
  /** Rows of a full block. */
  readonly n: number;
  /** Blocks, the short one included. */
  readonly count: number;
  /** Slot position of real position v. */
  slotPosition(v: number): number;
  /** Real rows before slot position u, for u on a slot boundary. */
  rowsBefore(u: number): number;
  /** First row of the block in `slot`. */
  firstRow(slot: number): number;
}

/** The block sequence of `rows` rows in blocks of `n`, under a 32-byte sub-key (use: blocks). */
export function createBlocks(rows: number, n: number, key: Uint8Array): Blocks {
  const count = Math.ceil(rows / n);
  const permutation = createPermutation(count, key);
  const shortSlot = permutation.inverse(count - 1);
  const shortRows = rows - (count - 1) * n;
  const shortEnd = shortSlot * n + shortRows;
  const gap = n - shortRows;
  return {
    rows,
    n,
    count,
    slotPosition: (v) => (v >= shortEnd ? v + gap : v),
    rowsBefore: (u) => Math.min(rows, u <= shortSlot * n ? u : u - gap),
    firstRow: (slot) => permutation.forward(slot) * n,
  };
}
