/**
 * Owns finding rows: from row numbers of the selection to tiles and rows in them, as runs.
 *
 * Rows that follow each other in a tile become one run, so an unshuffled batch is a few copies.
 */
import { inParallel } from "../../shards/parallel.ts";
import { invariant } from "../../model/errors.ts";
import { LIMITS } from "../../model/limits.ts";
import type { Maybe } from "../../model/maybe.ts";
import type { Runs } from "../columns/runs.ts";
import {
  batchOf,
  shardIn,
  type BatchSegment,
  type PagePlace,
  type SegmentTiles,
  type SelectionLayout,
  type ShardPlace,
  type Tile,
} from "./layout.ts";
import { LOADS_MAX } from "./side-memory.ts";
import type { TileReader } from "./tile-reader.ts";

/** The distinct tiles that rows lie in, and where each run is. `runs.source` counts in `tiles`. */
export interface Located {
  readonly tiles: readonly Tile[];
  readonly runs: Runs;
}

export interface Locator {
  /** Opens pages and shards, and looks at the metadata of batches, as needed: a promise only then. */
  locate(rows: Float64Array, signal: AbortSignal): Maybe<Located>;
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
const NONE_HELD: Held = new Map();

/** Where selection rows [begin, end) lie: row `begin` is row `first` of the tile. */
interface Place {
  readonly tile: Tile;
  readonly begin: number;
  readonly end: number;
  readonly first: number;
}

/**
 * Places by their rows, for rows to come: most rows of a shuffled batch lie in tiles of the batches before it. A place may
 * push another out; where neighbours do so again and again, tiles have fewer rows than a place is thought to. All are forgotten
 * when anything was loaded, since pages may have left for it.
 */
interface Places {
  readonly known: (Place | null)[];
  /** Rows that share one of them: a power of two, and its inverse, which is faster to multiply by. */
  rows: number;
  perRow: number;
  /** Rows that were looked for, and neighbours that pushed each other out meanwhile. */
  asked: number;
  pushed: number;
}
const PLACES = 4096;
const PLACE_ROWS_MAX = 1024;
const PLACE_ROWS_MIN = 32;
/** Of rows that were looked for: fewer rows to a place would have others push each other out, farther away. */
const PUSHED_SHARE_MAX = 1 / 8;
const slotOf = ({ perRow }: Places, row: number): number => (row * perRow) & (PLACES - 1);

function keep(places: Places, row: number, place: Place): void {
  const slot = slotOf(places, row);
  const before = places.known[slot];
  places.known[slot] = place;
  if (!before || Math.abs(before.begin - place.begin) >= places.rows || ++places.pushed < PLACES) return;
  const isOften = places.pushed > places.asked * PUSHED_SHARE_MAX;
  places.pushed = places.asked = 0;
  if (!isOften || places.rows === PLACE_ROWS_MIN) return;
  places.rows /= 2;
  places.perRow *= 2;
  places.known.fill(null);
}

/** What rows are looked for in. */
interface Search {
  readonly layout: SelectionLayout;
  readonly reader: TileReader;
  readonly places: Places;
  readonly held: Held;
  /** For the runs of one batch, until they are counted. */
  readonly scratch: Scratch;
}

/** Arrays for as many runs as a batch has rows. */
type Scratch = Pick<Runs, "source" | "first" | "length">;

const scratchOf = (rows: number): Scratch => ({
  source: new Uint32Array(rows),
  first: new Uint32Array(rows),
  length: new Uint32Array(rows),
});

export function createLocator(layout: SelectionLayout, reader: TileReader): Locator {
  const known = new Array<Place | null>(PLACES).fill(null);
  const places: Places = { known, rows: PLACE_ROWS_MAX, perRow: 1 / PLACE_ROWS_MAX, asked: 0, pushed: 0 };
  let scratch = scratchOf(0);
  let round = 0;
  const find = (rows: Float64Array, held: Held): Located | Missing => {
    if (scratch.source.length < rows.length) scratch = scratchOf(rows.length);
    return findRuns({ layout, reader, places, held, scratch }, rows, ++round);
  };

  async function load(rows: Float64Array, missing: Missing, signal: AbortSignal): Promise<Located> {
    const held: Held = new Map();
    for (let { pages, parts } = missing; ;) {
      await inParallel(pages, LIMITS.pagesInFlightMax, async ([page, wanted]) => {
        const shards = await layout.loadPage(page, signal);
        held.set(page, [...new Set(wanted.map((row) => shardIn(page, shards, row)))].sort(byFirstRow));
      });
      await inParallel(parts.values(), LOADS_MAX, async (read) => void (await read()));
      known.fill(null);
      const found = find(rows, held);
      if ("runs" in found) return found;
      ({ pages, parts } = found);
    }
  }

  return {
    locate(rows, signal) {
      const found = find(rows, NONE_HELD);
      return "runs" in found ? found : load(rows, found, signal);
    },
  };
}

const byFirstRow = (a: ShardPlace, b: ShardPlace): number => a.firstRow - b.firstRow;

/** All runs in one pass; what is missing is gathered on the way. */
function findRuns(search: Search, rows: Float64Array, round: number): Located | Missing {
  const { layout, places } = search;
  const { source, first, length } = search.scratch;
  const tiles: Tile[] = [];
  places.asked += rows.length;
  const missing = { pages: new Map<PagePlace, number[]>(), parts: new Map<object, Load>() };
  let count = 0;
  let place: Place | null = null;
  let last: Tile | null = null; // of the current run
  let next = -1; // row of the tile at which the run would go on
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i] as number;
    if (!place || row < place.begin || row >= place.end) {
      const known = places.known[slotOf(places, row)] as Place | null;
      const isKnown = known !== null && row >= known.begin && row < known.end;
      place = isKnown ? known : findPlace(search, row, missing);
      if (!place) continue;
      const { tile } = place;
      if (tile.round !== round) {
        if (isKnown) layout.pageOf(row); // which is used
        tile.round = round;
        tile.slot = tiles.length;
        tiles.push(tile);
      }
    }
    const inTile = row - place.begin + place.first;
    const end = Math.min(rows.length, i + place.end - row);
    const from = i;
    while (i + 1 < end && rows[i + 1] === row + i + 1 - from) i++;
    const found = i + 1 - from;
    if (place.tile === last && inTile === next) length[count - 1] = (length[count - 1] as number) + found;
    else {
      last = place.tile;
      source[count] = last.slot;
      first[count] = inTile;
      length[count++] = found;
    }
    next = inTile + found;
  }
  if (missing.pages.size > 0 || missing.parts.size > 0) return missing;
  const of = (all: Uint32Array): Uint32Array => all.slice(0, count);
  return { tiles, runs: { count, rows: rows.length, source: of(source), first: of(first), length: of(length) } };
}

/** The place of a row, kept for rows to come where it can be; null with what must be read first added to `missing`. */
function findPlace(
  { layout, reader, places, held }: Search,
  row: number,
  missing: { readonly pages: Map<PagePlace, number[]>; readonly parts: Map<object, Load> },
): Place | null {
  const page = layout.pageOf(row);
  const shards: readonly ShardPlace[] | null = held.get(page) ?? page.shards;
  if (shards === null) {
    const wanted = missing.pages.get(page);
    if (wanted) wanted.push(row);
    else missing.pages.set(page, [row]);
    return null;
  }
  const shard = shardIn(page, shards, row);
  const inShard = row - shard.firstRow;
  const fileRow = shard.fileRow ? shard.fileRow(inShard) : inShard;
  const tile = findTile(shard, fileRow, layout, reader, missing.parts);
  if (!tile) return null;
  const inTile = fileRow - tile.segment.firstRow - tile.firstRow;
  if (shard.fileRow) return { tile, begin: row, end: row + 1, first: inTile };
  const place = { tile, begin: row - inTile, end: row - inTile + tile.rows, first: 0 };
  if (shards === page.shards) keep(places, row, place);
  return place;
}

function tileAt({ rowsPerTile, shift, tiles }: SegmentTiles, row: number): number {
  return tiles.length === 1 ? 0 : Math.floor((row + shift) / rowsPerTile);
}

/**
 * The tile of a row of the file, or null with what must be read first added to `load`. It makes no closure itself: each call
 * would have to allocate what a closure captures.
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
