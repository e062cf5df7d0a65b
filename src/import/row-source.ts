/**
 * Owns reading one column of some rows, whatever holds them: an Arrow record batch here, a DuckDB chunk in `duckdb-rows.ts`.
 */
import {
  Binary,
  type Data,
  DataType,
  Dictionary,
  Field,
  FixedSizeList,
  Int32,
  List,
  Schema,
  Struct,
  Utf8,
} from "apache-arrow";
import { ShardpactError } from "../model/errors.ts";
import { bytesReader, isText, textReader } from "../shards/texts.ts";

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
    const values = data.dictionary?.data[0];
    const isValue = values && arrowRows(values).valid; // a row of a null value is null, too
    const text = textReader("", data);
    return { valid: (row) => valid(row) && isValue?.(Number(codes[row])) === true, text };
  }
  if (DataType.isStruct(type)) return { valid, children };
  if (DataType.isFixedSizeList(type)) {
    const size = type.listSize;
    return { valid, children, range: (row) => [row * size, row * size + size] };
  }
  if (DataType.isList(type) || DataType.isLargeList(type)) {
    const offsets = data.valueOffsets as ArrayLike<number | bigint>;
    return { valid, children, range: (row) => [Number(offsets[row]), Number(offsets[row + 1])] };
  }
  if (isText(type) || isBytes(type)) return { valid, bytes: bytesReader(data) };
  if (isFixedWidth(type)) return { valid, values: data.values as Values, stride: data.stride };
  throw unsupported(type);
}

function isBytes(type: DataType): boolean {
  return DataType.isBinary(type) || DataType.isLargeBinary(type) || DataType.isBinaryView(type);
}

/**
 * The schema in which rows are written anew: offsets of 32 bits, which are enough for a segment, and no views. Whatever wrote the
 * files, the same rows then have the same type.
 */
export function plainSchema({ fields, metadata }: Schema): Schema {
  return new Schema(fields.map(plainField), metadata);
}

function plainField({ name, type, nullable, metadata }: Field): Field {
  return new Field(name, plainType(type as DataType), nullable, metadata);
}

function plainType(type: DataType): DataType {
  if (isText(type)) return new Utf8();
  if (isBytes(type)) return new Binary();
  const [child] = type.children ?? [];
  if (DataType.isStruct(type)) return new Struct(type.children.map(plainField));
  if (DataType.isFixedSizeList(type) && child) return new FixedSizeList(type.listSize, plainField(child));
  if ((DataType.isList(type) || DataType.isLargeList(type)) && child) return new List(plainField(child));
  if (!DataType.isDictionary(type)) return type;
  const indices = type.indices.bitWidth <= 32 ? type.indices : new Int32();
  return new Dictionary(plainType(type.dictionary), indices, type.id, type.isOrdered);
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

export function unsupported(type: DataType, column?: string): ShardpactError {
  const what = column === undefined ? "rows of a column" : `'${column}'`;
  return new ShardpactError("type_unsupported", `${what} of type ${String(type)} cannot be written anew`, {
    details: { column: column ?? null, type: String(type) },
    hint: "Publish the files as they are (no --key, no --shuffle), or leave the column out.",
  });
}

export function hasBit(bits: Uint8Array, at: number): boolean {
  return ((bits[at >> 3] as number) & (1 << (at & 7))) !== 0;
}
