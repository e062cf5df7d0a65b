/**
 * Owns reading tiles: metadata of batches, verified once and remembered; then the leaves that the wanted bytes lie in;
 * then record batches of the wanted columns, decoded under the agreed schema.
 */
import { Schema, type RecordBatch } from "apache-arrow";
import { isShardpactError, ShardpactError } from "../../model/errors.ts";
import { decodeDictionaries, decodeSlice, layoutOf, type Dictionaries } from "../../shards/decode.ts";
import { missingOffsets, sliceRows } from "../../shards/offsets.ts";
import { headerOfSlice, packPieces } from "../../shards/pack.ts";
import type { ShardRef } from "../../shards/shard-ref.ts";
import type { Parcel } from "./arena.ts";
import { listBatches, type BatchSegment, type SegmentTiles, type ShardPlace, type Tile } from "./layout.ts";
import { wholePart, type Part, type ShardReads } from "./reads.ts";
import { createRecent } from "./recent.ts";
import { dictionaryBytes, openShardBytes, tableBytes } from "./shard-memory.ts";
import { HEADS_MAX, type SideMemory } from "./side-memory.ts";
import {
  metadataBytesMissing,
  partsOf,
  takeFromHead,
  tilesBySchema,
  tilesByTable,
  type LoadedTable,
  type TileRules,
} from "./tiles.ts";

/** Of what is kept of shards: for dictionaries, the others for metadata of batches. */
const DICTIONARIES_SHARE = 0.5;
/** Of a loader's memory, for what is known of one shard: its index, its record batches. */
const SHARD_SHARE_MAX = 0.5;

export interface TileReader {
  /** Reads the shard's index, so that its batches are known. */
  open(shard: ShardPlace): Promise<readonly BatchSegment[]>;
  /** The segment's tiles if they can be told without reading. */
  tilesOf(segment: BatchSegment): SegmentTiles | null;
  /** Reads metadata until they can. @throws `shard_corrupt`, `shard_malformed`, `store_failed`, … */
  loadTiles(segment: BatchSegment): Promise<SegmentTiles>;
  /** Looks at offsets until the tile's size is known. */
  size(tile: Tile): Promise<void>;
  /** The tile's wanted columns, verified; views into `buffer`, which holds `tile.bytes`. Errors as above. */
  read(tile: Tile, buffer: Uint8Array): Promise<RecordBatch>;
  /** Forgets what was read of shards; call between epochs. */
  forget(): Promise<void>;
}

export interface TileReaderOptions extends Omit<TileRules, "fields"> {
  readonly reads: ShardReads;
  readonly schema: Schema;
  /** Memory that `reads` can read into, for metadata, offsets and dictionaries. */
  readonly memory: SideMemory;
  /** What dictionaries and metadata may take that are kept for tiles to come. */
  readonly keptBytesMax: number;
  /** What a loader may take in all: a shard that is known by half of it is refused. Default: as much as there is. */
  readonly memoryMaxBytes?: number;
  /** Told of a batch that was cut: its shard takes more memory now. */
  readonly onCut?: (shard: ShardPlace, tiles: number) => void;
}

export function createTileReader(options: TileReaderOptions): TileReader {
  const { reads, schema, memory, wanted, keptBytesMax, memoryMaxBytes = Infinity } = options;
  const { fields } = schema;
  const rules: TileRules = { ...options, fields };
  const projected = fields.filter((_, i) => wanted.has(i));
  const hasDictionaries = new Schema(projected).dictionaries.size > 0;
  const tableBytesMax = hasDictionaries ? keptBytesMax * (1 - DICTIONARIES_SHARE) : keptBytesMax;
  const dictionaries = createRecent<ShardPlace, Dictionaries>(keptBytesMax * DICTIONARIES_SHARE, dictionaryBytes);
  const tables = createRecent<BatchSegment, LoadedTable>(tableBytesMax, tableBytes);
  const heads: { readonly table: LoadedTable; readonly parcel: Parcel }[] = []; // the oldest first

  /** Reads parts of a segment into memory that is given back once `use` has returned. */
  async function readAside<T>(
    shard: ShardRef,
    segment: number,
    parts: readonly Part[],
    bytes: number,
    use: (read: Uint8Array) => T,
  ): Promise<T> {
    const parcel = memory.take(bytes);
    try {
      const read = parcel.bytes.subarray(0, bytes);
      await reads.read(shard, segment, parts, read);
      return use(read);
    } finally {
      memory.give(parcel);
    }
  }

  async function listOf(shard: ShardPlace): Promise<readonly BatchSegment[]> {
    const { segments } = await reads.map(shard.entry);
    const neededBytes = openShardBytes(segments.length, shard.entry.bytes) / SHARD_SHARE_MAX;
    if (neededBytes > memoryMaxBytes) throw tooManyBatches(shard, segments.length, neededBytes, memoryMaxBytes);
    return listBatches(shard, { segments });
  }

  async function readDictionaries({ entry }: ShardPlace): Promise<Dictionaries> {
    const map = await reads.map(entry);
    const segments: Uint8Array[] = [];
    for (const [i, { kind, bytes }] of map.segments.entries()) {
      if (kind !== "dictionary") continue;
      segments.push(await readAside(entry, i, wholePart(bytes), bytes, (read) => read.slice()));
    }
    return decodeDictionaries(schema, map, segments);
  }

  async function readTable(segment: BatchSegment): Promise<LoadedTable> {
    const { shard, segment: at } = segment;
    let bytes = metadataBytesMissing(segment, new Uint8Array(0));
    for (;;) {
      const parcel = memory.take(bytes);
      try {
        const read = parcel.bytes.subarray(0, bytes);
        await reads.read(shard.entry, at, wholePart(bytes), read);
        const more = metadataBytesMissing(segment, read);
        if (more === 0)
          return keepHead(
            named(segment, () => tableOf(schema, segment, read)),
            read,
            parcel,
          );
        bytes = more;
      } catch (error) {
        memory.give(parcel);
        throw error;
      }
      memory.give(parcel);
    }
  }

  /** Keeps what was read for the metadata, for as long as few others were read since. */
  function keepHead(table: LoadedTable, read: Uint8Array, parcel: Parcel): LoadedTable {
    table.head = read;
    heads.push({ table, parcel });
    dropHeads(HEADS_MAX);
    return table;
  }

  function dropHeads(keep: number): void {
    for (const { table, parcel } of heads.splice(0, Math.max(0, heads.length - keep))) {
      table.head = null;
      memory.give(parcel);
    }
  }

  const tableOfSegment = (segment: BatchSegment): Promise<LoadedTable> => tables.get(segment, () => readTable(segment));

  /** Looks at the offsets at both ends of the rows, level by level, and at rows that point anywhere. */
  async function lookAtOffsets(table: LoadedTable, { segment, firstRow, rows }: Tile): Promise<void> {
    for (;;) {
      const missing = named(segment, () => missingOffsets(rules, table, firstRow, rows));
      if (missing === null) return tables.resized(segment);
      await readAside(segment.shard.entry, segment.segment, missing.parts, missing.bytes, missing.keep);
    }
  }

  function keepTiles(segment: BatchSegment, found: SegmentTiles | null): SegmentTiles | null {
    segment.tiles = found;
    if (found && found.tiles.length > 1) options.onCut?.(segment.shard, found.tiles.length);
    return found;
  }

  async function loadTiles(segment: BatchSegment): Promise<SegmentTiles> {
    const table = await tableOfSegment(segment);
    return segment.tiles ?? (keepTiles(segment, tilesByTable(rules, segment, table)) as SegmentTiles);
  }

  async function readPacked(tile: Tile, known: Dictionaries, buffer: Uint8Array): Promise<RecordBatch> {
    const { segment, firstRow, rows } = tile;
    const table = await tableOfSegment(segment);
    await lookAtOffsets(table, tile);
    const slice = sliceRows(rules, table, firstRow, rows);
    const { places, bytes } = packPieces(slice.pieces);
    const body = buffer.subarray(0, bytes);
    const parts = takeFromHead(partsOf(slice, table.bodyAt), table.head, body);
    if (parts.length > 0) await reads.read(segment.shard.entry, segment.segment, parts, body);
    return named(segment, () => decodeSlice(projected, known, headerOfSlice(slice, places, body), body));
  }

  async function readWhole({ segment }: Tile, known: Dictionaries, buffer: Uint8Array): Promise<RecordBatch> {
    const bytes = buffer.subarray(0, segment.bytes);
    await reads.read(segment.shard.entry, segment.segment, wholePart(segment.bytes), bytes);
    return named(segment, () => {
      const table = tableOf(schema, segment, bytes);
      const slice = sliceRows(rules, table, 0, segment.rows);
      const body = bytes.subarray(table.bodyAt, table.bodyAt + table.header.bodyBytes);
      const places = slice.pieces.map(({ from }) => from);
      return decodeSlice(projected, known, headerOfSlice(slice, places, body), body);
    });
  }

  return {
    open: async (shard) => (shard.batches ??= await listOf(shard)),
    tilesOf: (segment) => segment.tiles ?? keepTiles(segment, tilesBySchema(rules, segment)),
    loadTiles,
    async size(tile) {
      const table = await tableOfSegment(tile.segment);
      await lookAtOffsets(table, tile);
      tile.bytes = packPieces(sliceRows(rules, table, tile.firstRow, tile.rows).pieces).bytes;
    },
    async read(tile, buffer) {
      const { shard } = tile.segment;
      const known = hasDictionaries ? await dictionaries.get(shard, () => readDictionaries(shard)) : new Map();
      return tile.isWhole ? readWhole(tile, known, buffer) : readPacked(tile, known, buffer);
    },
    async forget() {
      dictionaries.clear();
      tables.clear();
      dropHeads(0);
      await reads.forget();
    },
  };
}

/** @throws `shard_malformed` when the metadata contradicts the schema, the index or the segment's size */
function tableOf(schema: Schema, segment: BatchSegment, bytes: Uint8Array): LoadedTable {
  const { header, layout, bodyAt } = layoutOf(schema, bytes);
  const what =
    header.rows !== segment.rows
      ? `${header.rows} rows where ${segment.rows} were agreed`
      : bodyAt + header.bodyBytes > segment.bytes
        ? `a body of ${header.bodyBytes} bytes does not fit the segment`
        : null;
  if (what === null) return { header, layout, bodyAt, offsets: new Map(), scans: new Map(), head: null };
  throw new ShardpactError("shard_malformed", `an Arrow message that was agreed on does not hold together: ${what}`, {
    details: { reason: what },
    hint: "Publish the shard again with shardpact, which refuses such files.",
  });
}

function tooManyBatches(
  { entry: { name } }: ShardPlace,
  segments: number,
  memoryNeededBytes: number,
  memoryMaxBytes: number,
): ShardpactError {
  return new ShardpactError(
    "budget_too_small",
    `shard ${name} has ${segments} segments: to know where they lie takes ${memoryNeededBytes * SHARD_SHARE_MAX} bytes; memory allows ${memoryMaxBytes}, half of it for that`,
    {
      details: { shard: name, segments, memoryNeededBytes, memoryMaxBytes },
      hint: `Allow memory: ${memoryNeededBytes}, or publish with larger record batches.`,
    },
  );
}

/** Adds shard and segment to what decoding says. */
function named<T>(batch: BatchSegment, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (!isShardpactError(error)) throw error;
    const place = { shard: batch.shard.entry.name, segment: batch.segment };
    throw new ShardpactError(error.code, `shard ${place.shard} segment ${place.segment}: ${error.message}`, {
      cause: error,
      hint: error.hint,
      details: { ...error.details, ...place },
    });
  }
}
