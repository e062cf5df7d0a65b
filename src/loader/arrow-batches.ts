/**
 * Owns streaming a version as Arrow record batches: verified, in file order, one batch of the file at a time, and a giant one in parts:
 * memory does not grow with what somebody wrote as one batch, and no array can hold more than 4 GiB of it (Node 20).
 *
 * Each batch lies in memory of its own, so the reader may keep it; nothing is reused under it.
 */
import { constants } from "node:buffer";
import type { RecordBatch, Schema } from "apache-arrow";
import type { ConfirmedVersion } from "../client/types.ts";
import { ShardpactError } from "../model/errors.ts";
import { nearestNames } from "../model/nearest.ts";
import { schemaFromCanonical } from "../shards/schema.ts";
import { PAGE_BYTES_MIN } from "./fetch/budget.ts";
import { createInlineReads } from "./fetch/inline-reads.ts";
import { loadLayout, type Tile } from "./fetch/layout.ts";
import { privateSideMemory } from "./fetch/side-memory.ts";
import { createTileReader } from "./fetch/tile-reader.ts";
import { takeRows } from "./take-rows.ts";

/** Batches of up to twice this come as they are; larger ones in parts of about this. */
const PART_BYTES = 32 * 1024 * 1024;

/** For dictionaries and metadata that are kept: batches come one after the other. */
const KEPT_BYTES_MAX = 8 * 1024 * 1024;

export interface ArrowBatchesOptions {
  /** Top-level columns, in this order; default all. */
  readonly columns?: readonly string[];
  /** Default: all splits, one after the other. */
  readonly split?: string;
  readonly signal?: AbortSignal;
}

/**
 * @throws ShardpactError (while iterating) `column_unknown`, `not_found` (split), `shard_corrupt`, `shard_malformed`,
 * `store_failed`, `limit_exceeded`, `aborted`
 */
export async function* arrowBatches(
  version: ConfirmedVersion,
  o: ArrowBatchesOptions = {},
): AsyncGenerator<RecordBatch> {
  const schema = schemaFromCanonical(version.schema);
  const columns = o.columns?.map((name) => name.normalize("NFC")) ?? schema.fields.map((f) => f.name);
  requireColumns(schema, columns);
  const places = columns.map((name) => schema.fields.findIndex((f) => f.name === name));
  const splits = version.splits.map((s) => s.name);
  if (o.split !== undefined && !splits.includes(o.split)) {
    throw new ShardpactError("not_found", `${version.dataset}@v${version.version} has no split '${o.split}'`, {
      details: { split: o.split, splits },
      hint: `It has ${splits.join(", ")}.`,
    });
  }
  const present = [...new Set(places)].sort((a, b) => a - b);
  const order = places.map((place) => present.indexOf(place)); // batches come with their columns in the schema's order
  const controller = new AbortController();
  const signal = o.signal ? AbortSignal.any([o.signal, controller.signal]) : controller.signal;
  const where = { dataset: version.dataset, version: version.version };
  const reads = createInlineReads({
    ...{ where, stores: version.stores, hashing: "blake3", signal },
    onPassedOver: version.onPassedOver,
  });
  const wanted = new Set(places);
  const memory = privateSideMemory;
  const keptBytesMax = KEPT_BYTES_MAX;
  const reader = createTileReader({ reads, schema, wanted, tileBytes: PART_BYTES, blockRows: 0, memory, keptBytesMax });
  try {
    for (const split of o.split === undefined ? splits : [o.split]) {
      const layout = await loadLayout(version, split, PAGE_BYTES_MIN, signal);
      for await (const shard of layout.shards(signal)) {
        let from = 0; // selected rows of the shard that were passed
        const batches = await reader.open(shard);
        layout.opened(shard);
        for (const segment of batches) {
          const { tiles } = reader.tilesOf(segment) ?? (await reader.loadTiles(segment));
          for (const tile of tiles) {
            const rows = selectedRows(tile, from);
            from += rows?.length ?? tile.rows;
            if (rows?.length === 0) continue;
            if (tile.bytes < 0) await reader.size(tile);
            const batch = await reader.read(tile, memoryFor(tile));
            const chosen = o.columns ? batch.selectAt(order) : batch;
            yield rows ? takeRows(chosen, rows) : chosen;
          }
        }
      }
    }
  } finally {
    controller.abort();
    await reads.close();
  }
}

function requireColumns(schema: Schema, columns: readonly string[]): void {
  const names = schema.fields.map((f) => f.name);
  for (const name of columns) {
    if (names.includes(name)) continue;
    const nearest = nearestNames(name, names);
    throw new ShardpactError("column_unknown", `there is no column '${name}'`, {
      details: { column: name, nearest },
      hint: `There are ${(nearest.length > 0 ? nearest : names).slice(0, 20).join(", ")}.`,
    });
  }
}

/** @throws `limit_exceeded` for more than one array can hold: a single row, or what unions point at in no order */
function memoryFor({ bytes, segment }: Tile): Uint8Array {
  if (bytes <= constants.MAX_LENGTH) return new Uint8Array(bytes);
  const { shard, segment: at } = segment;
  throw new ShardpactError("limit_exceeded", `shard ${shard.entry.name} segment ${at}: ${bytes} bytes in one piece`, {
    details: { shard: shard.entry.name, segment: at, bytes, bytesMax: constants.MAX_LENGTH },
    hint: "Choose other columns, or publish smaller values.",
  });
}

/** Rows of the tile that are selected, from the shard's `from`-th selected row on; null when all are. */
function selectedRows({ segment, firstRow, rows }: Tile, from: number): readonly number[] | null {
  const { shard } = segment;
  if (!shard.fileRow) return null;
  const first = segment.firstRow + firstRow;
  const selected: number[] = [];
  for (let k = from; k < shard.rows; k++) {
    const row = shard.fileRow(k);
    if (row >= first + rows) break;
    selected.push(row - first);
  }
  return selected;
}
