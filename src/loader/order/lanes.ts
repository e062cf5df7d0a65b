/**
 * Owns the dealing of positions over K lanes: position p goes to lane bitrev(p mod K), at index ⌊p/K⌋.
 *
 * Bit reversal spreads a partial round over the whole dataset, which keeps odd world sizes from reading everything
 * (`docs/order.md` §4). Each lane owns a contiguous range of the block sequence.
 */
export interface Lanes {
  readonly count: number;
  /** First real position of each lane; one more entry than lanes, the last being the number of rows. */
  readonly starts: Float64Array;
  /** p mod K of the positions that fall into each lane. */
  readonly residues: Uint32Array;
}

/** K lanes over `rows` rows; K is a power of two. */
export function createLanes(rows: number, count: number): Lanes {
  const residues = new Uint32Array(count);
  const starts = new Float64Array(count + 1);
  const bits = Math.log2(count);
  const base = Math.floor(rows / count);
  const extra = rows % count;
  for (let lane = 0; lane < count; lane++) {
    const residue = reverseBits(lane, bits);
    residues[lane] = residue;
    starts[lane + 1] = (starts[lane] ?? 0) + base + (residue < extra ? 1 : 0);
  }
  return { count, starts, residues };
}

/** The lowest `bits` bits of x in reverse; its own inverse. */
export function reverseBits(x: number, bits: number): number {
  let out = 0;
  for (let i = 0; i < bits; i++) out = (out << 1) | ((x >>> i) & 1);
  return out;
}
