/**
 * Owns packing the pieces of a slice: the memory that they take, and the header of the batch that they are then.
 */
import { DataType, type Field } from "apache-arrow";
import type { BatchHeader, BufferRegion } from "./message.ts";
import { type BatchSlice, type Piece, rowBytesOf } from "./slice.ts";
import { moveUnionRows, moveViews } from "./spans.ts";

const PIECE_ALIGN = 64;
const padded = (bytes: number): number => Math.ceil(bytes / PIECE_ALIGN) * PIECE_ALIGN;

/** Memory that `rows` rows of a column take at most when they are packed; null where rows vary. */
export function sliceBytesMax(type: DataType, rows: number): number | null {
  const bits = padded(Math.ceil(rows / 8) + 1);
  if (DataType.isNull(type)) return 0;
  if (DataType.isBool(type)) return 2 * bits;
  if (DataType.isFixedSizeList(type) || DataType.isStruct(type)) {
    const length = DataType.isStruct(type) ? rows : rows * type.listSize;
    const parts = (type.children as Field[]).map((child) => sliceBytesMax(child.type as DataType, length));
    return parts.reduce<number | null>((sum, part) => (sum === null || part === null ? null : sum + part), bits);
  }
  const width = rowBytesOf(type);
  return width === null ? null : bits + padded(rows * width);
}

/** Where the pieces go when they are packed: `places[i]` for piece i, and the bytes of all. */
export function packPieces(pieces: readonly Piece[]): { readonly places: readonly number[]; readonly bytes: number } {
  let bytes = 0;
  const places = pieces.map(({ from, to }) => {
    const at = bytes;
    bytes += padded(to - from);
    return at;
  });
  return { places, bytes };
}

/**
 * The header of the slice once its pieces lie at `places` in `body`. Bits are moved to the front of their bytes, offsets are
 * made to count from the first, views to point into what is there, and nulls are counted, in place.
 */
export function headerOfSlice(slice: BatchSlice, places: readonly number[], body: Uint8Array): BatchHeader {
  const bytesOf = (i: number): Uint8Array => {
    const { from, to } = slice.pieces[i] as Piece;
    return body.subarray(places[i] as number, (places[i] as number) + to - from);
  };
  const buffers = slice.pieces.map(({ shift, offsetWidth, moved }, i) => {
    const bytes = bytesOf(i);
    if (shift > 0) moveBits(bytes, shift);
    if (offsetWidth > 0) rebaseOffsets(bytes, offsetWidth as 4 | 8);
    if (moved?.kind === "views") moveViews(bytes, moved.spans);
    if (moved?.kind === "union") moveUnionRows(bytes, bytesOf(moved.ids), moved.spans, moved.typeIds);
    return { offset: places[i] as number, length: bytes.byteLength };
  });
  const nodes = slice.nodes.map(({ length, nullCount, validity }) => {
    if (nullCount !== null) return { length, nullCount };
    const { offset, length: bytes } = buffers[validity] as BufferRegion;
    return { length, nullCount: length - countOnes(body.subarray(offset, offset + bytes), length) };
  });
  return {
    kind: "batch",
    rows: slice.rows,
    nodes,
    buffers,
    variadicCounts: slice.variadicCounts,
    bodyBytes: body.byteLength,
    dictionaryId: -1,
  };
}

function moveBits(bytes: Uint8Array, shift: number): void {
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = ((bytes[i] as number) >>> shift) | ((bytes[i + 1] ?? 0) << (8 - shift));
  }
}

function rebaseOffsets(bytes: Uint8Array, width: 4 | 8): void {
  if (width === 4) {
    const offsets = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    const first = offsets[0] ?? 0;
    for (let i = 0; i < offsets.length; i++) offsets[i] = (offsets[i] as number) - first;
  } else {
    const offsets = new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8);
    const first = offsets[0] ?? 0n;
    for (let i = 0; i < offsets.length; i++) offsets[i] = (offsets[i] as bigint) - first;
  }
}

function countOnes(bits: Uint8Array, length: number): number {
  let ones = 0;
  for (let i = 0; i < length; i++) ones += ((bits[i >>> 3] ?? 0) >>> (i & 7)) & 1;
  return ones;
}
