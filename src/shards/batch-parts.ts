/**
 * Owns reading a giant record batch of a local file in parts of rows, of some columns only: memory does not grow with what
 * somebody wrote as one batch. The file was scanned, and is checked again as each part is decoded.
 */
import type { RecordBatch, Schema } from "apache-arrow";
import { invariant } from "../model/errors.ts";
import type { Segment } from "../merkle/segment-index.ts";
import { decodeSlice, layoutOf, type Dictionaries } from "./decode.ts";
import type { ReadAt } from "./frame.ts";
import { MESSAGE_PREFIX_BYTES, metadataLength } from "./message.ts";
import { missingOffsets, sliceRows, type OffsetTable } from "./offsets.ts";
import { headerOfSlice, packPieces } from "./pack.ts";

export interface BatchPartsInput {
  readonly schema: Schema;
  readonly dictionaries: Dictionaries;
  /** Of a record batch. */
  readonly segment: Segment;
  /** Ordinals of the columns. */
  readonly wanted: ReadonlySet<number>;
  /** Bytes of a part, about: rows are cut evenly. */
  readonly partBytes: number;
  /** Reads of the file. */
  readonly readAt: ReadAt;
}

/** The batch's rows in order; each part has the wanted columns in the schema's order. @throws `shard_malformed` */
export async function* batchParts(input: BatchPartsInput): AsyncGenerator<RecordBatch> {
  const { schema, dictionaries, segment, wanted, partBytes, readAt } = input;
  const { fields } = schema;
  const columns = { fields, wanted };
  const projected = fields.filter((_, i) => wanted.has(i));
  const table = await readTable(schema, segment, readAt);
  const { bytes } = packPieces(sliceRows(columns, table, 0, segment.rows).pieces);
  const rowsPerPart = Math.max(1, Math.floor((partBytes * segment.rows) / Math.max(1, bytes)));

  for (let firstRow = 0; firstRow < segment.rows; firstRow += rowsPerPart) {
    const rows = Math.min(rowsPerPart, segment.rows - firstRow);
    for (;;) {
      const missing = missingOffsets(columns, table, firstRow, rows);
      if (missing === null) break;
      const read = new Uint8Array(missing.bytes);
      for (const { from, to, at } of missing.parts) read.set(await readAt(segment.offset + from, to - from), at);
      missing.keep(read);
    }
    const slice = sliceRows(columns, table, firstRow, rows);
    const packed = packPieces(slice.pieces);
    const body = new Uint8Array(packed.bytes);
    for (const [i, { from, to }] of slice.pieces.entries()) {
      if (from < to) body.set(await readAt(segment.offset + table.bodyAt + from, to - from), packed.places[i]);
    }
    yield decodeSlice(projected, dictionaries, headerOfSlice(slice, packed.places, body), body);
    table.offsets.clear();
    table.scans.clear();
  }
}

async function readTable(schema: Schema, { offset, rows }: Segment, readAt: ReadAt): Promise<OffsetTable> {
  const length = metadataLength(await readAt(offset, MESSAGE_PREFIX_BYTES));
  invariant(length !== null, "a scanned batch begins with its metadata");
  const { header, layout, bodyAt } = layoutOf(schema, await readAt(offset, length));
  invariant(header.rows === rows, "a scanned batch has the rows of its index");
  return { header, layout, bodyAt, offsets: new Map(), scans: new Map() };
}
