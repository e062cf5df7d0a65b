/**
 * Owns rows, bytes and shards per split: summed from entries to pages to versions, covered by leaves and by the root.
 *
 * A list of totals is sorted by split ordinal and names only splits that have at least one shard.
 */
import { createByteWriter } from "../model/byte-writer.ts";
import { invariant, ShardpactError } from "../model/errors.ts";

const writer = createByteWriter();
/** What the totals of one split take. */
export const TOTALS_BYTES = 24;
const U32 = 2 ** 32;

/** Rows, bytes and shards of one split, named by its ordinal in the version's `splits`. */
export interface SplitTotals {
  readonly split: number;
  readonly rows: number;
  readonly bytes: number;
  readonly shards: number;
}

/** The sum of several lists. @throws ShardpactError `limit_exceeded` when a sum is no safe integer. */
export function sumTotals(lists: Iterable<readonly SplitTotals[]>): SplitTotals[] {
  return accumulate([], lists, 1);
}

/** `all` without `part`. @throws ShardpactError `internal` when `part` is not part of `all`. */
export function subtractTotals(all: readonly SplitTotals[], part: Iterable<readonly SplitTotals[]>): SplitTotals[] {
  return accumulate(all, part, -1);
}

/** For each row: u32le split ‖ u64le rows ‖ u64le bytes ‖ u32le shards (`TOTALS_BYTES`). */
export function encodeTotals(totals: readonly SplitTotals[]): Uint8Array {
  writer.start();
  for (const { split, rows, bytes, shards } of totals) writer.u32(split).u64(rows).u64(bytes).u32(shards);
  return new Uint8Array(writer.view());
}

/** Inverse of `encodeTotals`; null for bytes that it would not write. */
export function decodeTotals(bytes: Uint8Array): SplitTotals[] | null {
  if (bytes.byteLength % TOTALS_BYTES !== 0) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const u64 = (at: number): number => view.getUint32(at, true) + view.getUint32(at + 4, true) * U32;
  const totals: SplitTotals[] = [];
  let last = -1;
  for (let at = 0; at < bytes.byteLength; at += TOTALS_BYTES) {
    const split = view.getUint32(at, true);
    const rows = u64(at + 4);
    const size = u64(at + 12);
    const shards = view.getUint32(at + 20, true);
    if (split <= last || shards === 0 || !Number.isSafeInteger(rows) || !Number.isSafeInteger(size)) return null;
    totals.push({ split, rows, bytes: size, shards });
    last = split;
  }
  return totals;
}

interface Sum {
  rows: number;
  bytes: number;
  shards: number;
}

/** All parts have one sign, so a sum that left its range on the way is outside it at the end. */
function accumulate(
  from: readonly SplitTotals[],
  lists: Iterable<readonly SplitTotals[]>,
  sign: 1 | -1,
): SplitTotals[] {
  const sums = new Map<number, Sum>(from.map(({ split, ...sum }) => [split, sum]));
  for (const list of lists) {
    for (const { split, rows, bytes, shards } of list) {
      let sum = sums.get(split);
      if (!sum) sums.set(split, (sum = { rows: 0, bytes: 0, shards: 0 }));
      sum.rows += sign * rows;
      sum.bytes += sign * bytes;
      sum.shards += sign * shards;
    }
  }
  const totals: SplitTotals[] = [];
  for (const [split, sum] of sums) {
    invariant(sum.rows >= 0 && sum.bytes >= 0 && sum.shards >= 0, `totals of split ${split} fall below zero`);
    if (!Number.isSafeInteger(sum.rows) || !Number.isSafeInteger(sum.bytes)) {
      throw new ShardpactError("limit_exceeded", `rows or bytes of split ${split} exceed 2^53 − 1`);
    }
    if (sum.shards > 0) totals.push({ split, ...sum });
  }
  return totals.sort((a, b) => a.split - b.split);
}
