/**
 * Owns rows, bytes and shards per split: summed from entries to pages to versions, covered by leaves and by the root.
 *
 * A list of totals is sorted by split ordinal and names only splits that have at least one shard.
 */
import { createByteWriter } from "../model/byte-writer.ts";
import { invariant, ShardpactError } from "../model/errors.ts";

const writer = createByteWriter();

/** Rows, bytes and shards of one split, named by its ordinal in the version's `splits`. */
export interface SplitTotals {
  readonly split: number;
  readonly rows: number;
  readonly bytes: number;
  readonly shards: number;
}

/** The sum of several lists. @throws ShardpactError `limit_exceeded` when a sum is no safe integer. */
export function sumTotals(lists: Iterable<readonly SplitTotals[]>): SplitTotals[] {
  return accumulate(new Map(), lists, 1);
}

/** `all` without `part`. @throws ShardpactError `internal` when `part` is not part of `all`. */
export function subtractTotals(all: readonly SplitTotals[], part: Iterable<readonly SplitTotals[]>): SplitTotals[] {
  const sums = new Map(all.map((totals) => [totals.split, totals]));
  return accumulate(sums, part, -1);
}

/** For each row: u32le split ‖ u64le rows ‖ u64le bytes ‖ u32le shards (24 bytes). */
export function encodeTotals(totals: readonly SplitTotals[]): Uint8Array {
  writer.start();
  for (const { split, rows, bytes, shards } of totals) writer.u32(split).u64(rows).u64(bytes).u32(shards);
  return new Uint8Array(writer.view());
}

function accumulate(
  sums: Map<number, SplitTotals>,
  lists: Iterable<readonly SplitTotals[]>,
  sign: 1 | -1,
): SplitTotals[] {
  for (const list of lists) {
    for (const { split, rows, bytes, shards } of list) {
      const old = sums.get(split) ?? { rows: 0, bytes: 0, shards: 0 };
      const sum = {
        split,
        rows: old.rows + sign * rows,
        bytes: old.bytes + sign * bytes,
        shards: old.shards + sign * shards,
      };
      invariant(sum.rows >= 0 && sum.bytes >= 0 && sum.shards >= 0, `totals of split ${split} fall below zero`);
      if (!Number.isSafeInteger(sum.rows) || !Number.isSafeInteger(sum.bytes)) {
        throw new ShardpactError("limit_exceeded", `rows or bytes of split ${split} exceed 2^53 − 1`);
      }
      sums.set(split, sum);
    }
  }
  return [...sums.values()].filter((totals) => totals.shards > 0).sort((a, b) => a.split - b.split);
}
