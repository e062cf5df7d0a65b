/**
 * Owns finding rows: from row numbers of the selection to segments and rows in them, as runs.
 *
 * Rows that follow each other in a segment become one run, so an unshuffled batch is a few copies.
 */
import type { Runs } from "../columns/gather.ts";
import { batchOf, type BatchSegment, type SelectionLayout, type ShardPlace } from "./layout.ts";

/** The distinct segments that rows lie in, and where each run is. `runs.source` counts in `segments`. */
export interface Located {
  readonly segments: readonly BatchSegment[];
  readonly runs: Runs;
}

export interface Locator {
  /** Opens pages and shards as needed; `open` reads a shard's index. */
  locate(rows: Float64Array, signal: AbortSignal): Promise<Located>;
}

export function createLocator(
  layout: SelectionLayout,
  open: (shard: ShardPlace) => Promise<readonly BatchSegment[]>,
): Locator {
  return {
    async locate(rows, signal) {
      for (;;) {
        const missing = findMissing(layout, rows);
        if (missing === null) return findRuns(layout, rows);
        if (typeof missing === "number") await layout.loadPageOf(missing, signal);
        else await Promise.all(missing.map(open));
      }
    },
  };
}

/** A row whose page is not loaded, or shards whose index is not; null when all is known. */
function findMissing(layout: SelectionLayout, rows: Float64Array): number | ShardPlace[] | null {
  let last: ShardPlace | null = null;
  let missing: Set<ShardPlace> | null = null;
  for (const row of rows) {
    if (last && row >= last.firstRow && row < last.firstRow + last.rows) continue;
    last = layout.shardOf(row);
    if (last === null) return row;
    if (last.batches === null) (missing ??= new Set()).add(last);
  }
  return missing && [...missing];
}

function findRuns(layout: SelectionLayout, rows: Float64Array): Located {
  const segments: BatchSegment[] = [];
  const slots = new Map<BatchSegment, number>();
  const source = new Uint32Array(rows.length);
  const first = new Uint32Array(rows.length);
  const length = new Uint32Array(rows.length);
  let count = 0;
  let shard: ShardPlace | null = null;
  let batch: BatchSegment | null = null;
  let slot = 0;
  let next = -1; // row of the current segment at which the current run would go on
  for (const row of rows) {
    if (!shard || row < shard.firstRow || row >= shard.firstRow + shard.rows) shard = layout.shardOf(row) as ShardPlace;
    const inShard = row - shard.firstRow;
    const fileRow = shard.fileRow ? shard.fileRow(inShard) : inShard;
    if (!batch || batch.shard !== shard || fileRow < batch.firstRow || fileRow >= batch.firstRow + batch.rows) {
      const batches = shard.batches as readonly BatchSegment[];
      batch = batches[batchOf(shard, batches, fileRow)] as BatchSegment;
      slot = slots.get(batch) ?? segments.length;
      if (slot === segments.length) {
        segments.push(batch);
        slots.set(batch, slot);
      }
      next = -1;
    }
    const inBatch = fileRow - batch.firstRow;
    if (inBatch === next) {
      length[count - 1] = (length[count - 1] as number) + 1;
    } else {
      source[count] = slot;
      first[count] = inBatch;
      length[count] = 1;
      count++;
    }
    next = inBatch + 1;
  }
  return { segments, runs: { count, rows: rows.length, source, first, length } };
}
