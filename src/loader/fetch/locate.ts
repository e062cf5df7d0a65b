/**
 * Owns finding rows: from row numbers of the selection to tiles and rows in them, as runs.
 *
 * Rows that follow each other in a tile become one run, so an unshuffled batch is a few copies.
 */
import { inParallel } from "../../shards/parallel.ts";
import { invariant } from "../../model/errors.ts";
import type { Runs } from "../columns/runs.ts";
import {
  PAGES_IN_FLIGHT,
  batchOf,
  shardIn,
  type BatchSegment,
  type PagePlace,
  type SegmentTiles,
  type SelectionLayout,
  type ShardPlace,
  type Tile,
} from "./layout.ts";
import type { TileReader } from "./tile-reader.ts";

/** The distinct tiles that rows lie in, and where each run is. `runs.source` counts in `tiles`. */
export interface Located {
  readonly tiles: readonly Tile[];
  readonly runs: Runs;
}

export interface Locator {
  /** Opens pages and shards, and looks at the metadata of batches, as needed. */
  locate(rows: Float64Array, signal: AbortSignal): Promise<Located>;
}

/** Reads what is missing of a shard, a segment or a tile. */
type Load = () => Promise<unknown>;

/** What must be read before rows can be found: all that can be told now, so that it is read side by side. */
interface Missing {
  /** With the rows that are wanted of each. */
  readonly pages: ReadonlyMap<PagePlace, readonly number[]>;
  readonly parts: ReadonlyMap<object, Load>;
}

/**
 * The wanted shards of pages that were not in memory, for one call: the pages that brought them may leave again at once, so
 * that rows on more pages than fit are found all the same.
 */
type Held = Map<PagePlace, readonly ShardPlace[]>;

export function createLocator(layout: SelectionLayout, reader: TileReader): Locator {
  let round = 0;
  return {
    async locate(rows, signal) {
      const held: Held = new Map();
      for (;;) {
        const found = findRuns(layout, held, reader, rows, ++round);
        if ("runs" in found) return found;
        await inParallel(found.pages, PAGES_IN_FLIGHT, async ([page, wanted]) => {
          const shards = await layout.loadPage(page, signal);
          held.set(page, [...new Set(wanted.map((row) => shardIn(page, shards, row)))].sort(byFirstRow));
        });
        await Promise.all([...found.parts.values()].map((load) => load()));
      }
    },
  };
}

const byFirstRow = (a: ShardPlace, b: ShardPlace): number => a.firstRow - b.firstRow;

/** All runs in one pass; what is missing is gathered on the way. */
function findRuns(
  layout: SelectionLayout,
  held: Held,
  reader: TileReader,
  rows: Float64Array,
  round: number,
): Located | Missing {
  const tiles: Tile[] = [];
  const source = new Uint32Array(rows.length);
  const first = new Uint32Array(rows.length);
  const length = new Uint32Array(rows.length);
  const pages = new Map<PagePlace, number[]>();
  const load = new Map<object, Load>();
  let count = 0;
  let shard: ShardPlace | null = null;
  let tile: Tile | null = null;
  let begin = 0; // rows of the file that the current tile holds
  let end = 0;
  let next = -1; // row of the file at which the current run would go on
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i] as number;
    if (!shard || row < shard.firstRow || row >= shard.firstRow + shard.rows) {
      tile = null;
      const page = layout.pageOf(row);
      const shards: readonly ShardPlace[] | null = held.get(page) ?? page.shards;
      if (shards === null) {
        shard = null;
        const wanted = pages.get(page);
        if (wanted) wanted.push(row);
        else pages.set(page, [row]);
        continue;
      }
      shard = shardIn(page, shards, row);
    }
    const inShard = row - shard.firstRow;
    const fileRow = shard.fileRow ? shard.fileRow(inShard) : inShard;
    if (!tile || fileRow < begin || fileRow >= end) {
      const found = findTile(shard, fileRow, layout, reader, load);
      if (!found) continue;
      tile = found;
      begin = tile.segment.firstRow + tile.firstRow;
      end = begin + tile.rows;
      if (tile.round !== round) {
        tile.round = round;
        tile.slot = tiles.length;
        tiles.push(tile);
      }
      next = -1;
    }
    if (fileRow === next) length[count - 1] = (length[count - 1] as number) + 1;
    else {
      source[count] = tile.slot;
      first[count] = fileRow - begin;
      length[count++] = 1;
    }
    next = fileRow + 1;
  }
  if (pages.size > 0 || load.size > 0) return { pages, parts: load };
  return { tiles, runs: { count, rows: rows.length, source, first, length } };
}

function tileAt({ rowsPerTile, shift, tiles }: SegmentTiles, row: number): number {
  return tiles.length === 1 ? 0 : Math.floor((row + shift) / rowsPerTile);
}

/**
 * The tile of a row of the file, or null with what must be read first added to `load`. It runs for nearly every row of a
 * shuffled batch, so it makes no closure itself: each call would have to allocate what a closure captures.
 */
function findTile(
  shard: ShardPlace,
  fileRow: number,
  layout: SelectionLayout,
  reader: TileReader,
  load: Map<object, Load>,
): Tile | null {
  const { batches } = shard;
  if (batches === null) {
    load.set(shard, opening(layout, reader, shard));
    return null;
  }
  const segment = batches[batchOf(shard, batches, fileRow)] as BatchSegment;
  const cut = reader.tilesOf(segment);
  if (cut === null) {
    load.set(segment, cutting(reader, segment));
    return null;
  }
  const tile = cut.tiles[tileAt(cut, fileRow - segment.firstRow)];
  invariant(tile, `row ${fileRow} lies in a tile`);
  if (tile.bytes >= 0) return tile;
  load.set(tile, sizing(reader, tile));
  return null;
}

const opening =
  (layout: SelectionLayout, reader: TileReader, shard: ShardPlace): Load =>
  async () => {
    await reader.open(shard);
    layout.opened(shard);
  };
const cutting =
  (reader: TileReader, segment: BatchSegment): Load =>
  () =>
    reader.loadTiles(segment);
const sizing =
  (reader: TileReader, tile: Tile): Load =>
  () =>
    reader.size(tile);
