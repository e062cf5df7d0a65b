/**
 * Owns the rows of a batch as runs: what columns are gathered by.
 */
/** Runs of rows, in the order of the batch. */
export interface Runs {
  readonly count: number;
  readonly rows: number;
  /** Per run: which source, its first row there, how many rows. */
  readonly source: Uint32Array;
  readonly first: Uint32Array;
  readonly length: Uint32Array;
}
