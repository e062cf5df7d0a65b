/**
 * Owns reading one column of some rows, whatever holds them: an Arrow record batch here, a DuckDB chunk in `duckdb-rows.ts`.
 */
import { type Data, DataType, type Schema } from "apache-arrow";
import { ShardpactError } from "../model/errors.ts";

export type Values =
  | Int8Array
  | Int16Array
  | Int32Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | Float32Array
  | Float64Array
  | BigInt64Array
  | BigUint64Array;

/** Only what its type needs is there. */
export interface RowSource {
  valid(row: number): boolean;
  /** Fixed-width values: `stride` elements a row. */
  readonly values?: Values;
  readonly stride?: number;
  /** Booleans. */
  bit?(row: number): boolean;
  /** Texts and bytes. */
  bytes?(row: number): Uint8Array;
  /** Text of a dictionary column. */
  text?(row: number): string;
  /** Rows [from, to) of the first child belong to this row. */
  range?(row: number): readonly [number, number];
  readonly children?: readonly RowSource[];
}

export interface RowChunk {
  readonly rows: number;
  /** One a field of the schema. */
  readonly columns: readonly RowSource[];
}

/** Rows of a source, in its order. */
export interface RowReader {
  readonly schema: Schema;
  /** Null when it isn't known without reading everything. */
  readonly rowsTotal: number | null;
  chunks(): AsyncIterable<RowChunk>;
  close(): void;
}

/** Takes one row; a promise when the next one must wait for it. */
export type RowSink = (columns: readonly RowSource[], row: number) => Promise<void> | null;

export async function forEachRow(chunks: AsyncIterable<RowChunk>, sink: RowSink): Promise<void> {
  for await (const { rows, columns } of chunks) {
    for (let row = 0; row < rows; row++) {
      const written = sink(columns, row);
      if (written) await written;
    }
  }
}

/** A column of a record batch. @throws ShardpactError `type_unsupported` */
export function arrowRows(data: Data): RowSource {
  const { type } = data;
  const bitmap = data.nullCount > 0 ? data.nullBitmap : null;
  const valid = (row: number): boolean => bitmap === null || hasBit(bitmap, data.offset + row);
  const children = data.children.map((child) => arrowRows(child));
  if (DataType.isBool(type)) return { valid, bit: (row) => hasBit(data.values as Uint8Array, data.offset + row) };
  if (DataType.isDictionary(type)) {
    const codes = data.values as ArrayLike<number | bigint>;
    return { valid, text: (row) => String(data.dictionary?.get(Number(codes[row]))) };
  }
  if (DataType.isStruct(type)) return { valid, children };
  if (DataType.isFixedSizeList(type)) {
    const size = type.listSize;
    return { valid, children, range: (row) => [row * size, row * size + size] };
  }
  if (DataType.isList(type)) {
    const offsets = data.valueOffsets;
    return { valid, children, range: (row) => [offsets[row] as number, offsets[row + 1] as number] };
  }
  if (DataType.isUtf8(type) || DataType.isBinary(type)) {
    const offsets = data.valueOffsets;
    return { valid, bytes: (row) => (data.values as Uint8Array).subarray(offsets[row], offsets[row + 1]) };
  }
  if (isFixedWidth(type)) return { valid, values: data.values as Values, stride: data.stride };
  throw unsupported(type);
}

export function isFixedWidth(type: DataType): boolean {
  return (
    DataType.isInt(type) ||
    DataType.isFloat(type) ||
    DataType.isDate(type) ||
    DataType.isTime(type) ||
    DataType.isTimestamp(type) ||
    DataType.isDuration(type) ||
    DataType.isDecimal(type) ||
    DataType.isFixedSizeBinary(type)
  );
}

export function unsupported(type: DataType): ShardpactError {
  return new ShardpactError("type_unsupported", `rows of a column of type ${String(type)} cannot be written anew`, {
    hint: "Publish the files as they are (no --key, no --shuffle), or leave the column out.",
  });
}

export function hasBit(bits: Uint8Array, at: number): boolean {
  return ((bits[at >> 3] as number) & (1 << (at & 7))) !== 0;
}
