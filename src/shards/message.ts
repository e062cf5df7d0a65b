/**
 * Owns the head of an encapsulated Arrow message (record batch or dictionary batch): its counts, nodes and buffer places.
 *
 * Layout: i32 −1 · i32 metadata bytes · FlatBuffer `Message` · padding to 8 · body. Nothing is believed: what is
 * returned lies inside the metadata, and `layout.ts` holds it against the schema and the body.
 * Source: Arrow columnar format, "Encapsulated message format"; format/Message.fbs.
 */
import { countAt, FlatBuffer, FlatError, type FlatTable } from "./flat.ts";

export interface FieldNode {
  readonly length: number;
  readonly nullCount: number;
}

/** Bytes of a buffer, counted from the start of the body. */
export interface BufferRegion {
  readonly offset: number;
  readonly length: number;
}

export interface BatchHeader {
  readonly kind: "batch" | "dictionary";
  readonly rows: number;
  readonly nodes: readonly FieldNode[];
  readonly buffers: readonly BufferRegion[];
  /** Extra data buffers per view column. */
  readonly variadicCounts: readonly number[];
  readonly bodyBytes: number;
  /** Of a dictionary batch; −1 otherwise. */
  readonly dictionaryId: number;
}

/** Bytes before the FlatBuffer: continuation mark and length. */
export const MESSAGE_PREFIX_BYTES = 8;

const HEADER_SCHEMA = 1;
const HEADER_DICTIONARY = 2;
const HEADER_BATCH = 3;
const VERSION_V4 = 3;
const VERSION_V5 = 4;

/** Bytes of prefix and metadata as the prefix says, or null when it is no message prefix. */
export function metadataLength(bytes: Uint8Array): number | null {
  if (bytes.byteLength < MESSAGE_PREFIX_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, MESSAGE_PREFIX_BYTES);
  if (view.getInt32(0, true) !== -1) return null;
  const length = view.getInt32(4, true);
  return length > 0 && length % 8 === 0 ? MESSAGE_PREFIX_BYTES + length : null;
}

/** True when the bytes (prefix and metadata) are a schema message. @throws FlatError */
export function isSchemaMessage(bytes: Uint8Array): boolean {
  return messageTable(bytes).u8(1, 0) === HEADER_SCHEMA;
}

/**
 * Parses prefix and metadata of a batch or dictionary message.
 * @throws FlatError on anything else, on compressed bodies, delta dictionaries and versions before V4
 */
export function parseBatchHeader(bytes: Uint8Array): BatchHeader {
  const message = messageTable(bytes);
  const headerType = message.u8(1, 0);
  const header = message.table(2);
  const bodyBytes = message.count(3);
  if (!header || (headerType !== HEADER_BATCH && headerType !== HEADER_DICTIONARY)) {
    throw new FlatError("the message is neither a record batch nor a dictionary");
  }
  if (headerType === HEADER_BATCH) return batchOf(header, "batch", bodyBytes, -1, bytes);
  if (header.bool(2)) throw new FlatError("delta dictionaries are not supported; write each dictionary whole");
  const data = header.table(1);
  if (!data) throw new FlatError("a dictionary without data");
  return batchOf(data, "dictionary", bodyBytes, header.count(0), bytes);
}

function messageTable(bytes: Uint8Array): FlatTable {
  const message = new FlatBuffer(bytes.subarray(MESSAGE_PREFIX_BYTES)).root();
  const version = message.i16(0, 0);
  if (version !== VERSION_V4 && version !== VERSION_V5) {
    throw new FlatError(`metadata version V${version + 1} is not supported (V4 and V5 are)`);
  }
  return message;
}

function batchOf(
  table: FlatTable,
  kind: BatchHeader["kind"],
  bodyBytes: number,
  dictionaryId: number,
  bytes: Uint8Array,
): BatchHeader {
  const compression = table.table(3);
  if (compression) {
    const codec = compression.u8(0, 0) === 1 ? "ZSTD" : "LZ4";
    throw new FlatError(`its body is compressed (${codec}); write it uncompressed`);
  }
  const at = MESSAGE_PREFIX_BYTES; // vectors count from the FlatBuffer's first byte
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, bytes.byteLength - at);
  const pairs = (slot: number) => {
    const vector = table.vector(slot, 16);
    return Array.from({ length: vector.count }, (_, i): [number, number] => {
      return [countAt(view, vector.at + 16 * i), countAt(view, vector.at + 16 * i + 8)];
    });
  };
  const variadic = table.vector(4, 8);
  return {
    kind,
    rows: table.count(0),
    nodes: pairs(1).map(([length, nullCount]) => ({ length, nullCount })),
    buffers: pairs(2).map(([offset, length]) => ({ offset, length })),
    variadicCounts: Array.from({ length: variadic.count }, (_, i) => countAt(view, variadic.at + 8 * i)),
    bodyBytes,
    dictionaryId,
  };
}
