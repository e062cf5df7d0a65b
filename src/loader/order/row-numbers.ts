/**
 * Owns the arrays for the row numbers of steps: cut out of larger ones, since memory of its own for each of them costs more than
 * the numbers (a tenth of what a small contiguous batch takes of the training thread).
 */
const SLAB_ROWS = 8192;

/** Each call gives an array that nothing else has, zeros. Whoever keeps it keeps up to 64 KiB. */
export function createRowNumbers(): (length: number) => Float64Array {
  let slab = new Float64Array(0);
  let used = 0;
  return (length) => {
    if (length > SLAB_ROWS / 8) return new Float64Array(length);
    if (used + length > slab.length) {
      slab = new Float64Array(SLAB_ROWS);
      used = 0;
    }
    const rows = new Float64Array(slab.buffer, used * Float64Array.BYTES_PER_ELEMENT, length);
    used += length;
    return rows;
  };
}
