/**
 * Owns cutting rows into segments: as many rows as fill 1 MiB where every row is as wide as the next, else up to the row that
 * reaches it. So equal rows make equal segments, whatever chunks they came in.
 */
import { DataType, makeData, RecordBatch, type Schema, Struct } from "apache-arrow";
import { type ColumnBuilder, createColumnBuilder } from "./column-builder.ts";
import type { RowSource } from "./row-source.ts";
import { isFixedWidth } from "./row-source.ts";

const SEGMENT_BYTES = 1024 * 1024;

export interface SegmentBuilder {
  /** Adds one row; a segment when it is full with it. */
  append(columns: readonly RowSource[], row: number): RecordBatch | null;
  /** The last, short segment. */
  finish(): RecordBatch | null;
}

/** @throws ShardpactError `type_unsupported` */
export function createSegmentBuilder(schema: Schema): SegmentBuilder {
  const widths = schema.fields.map((field) => widthOf(field.type));
  const rowBytes = widths.includes(null) ? null : widths.reduce<number>((sum, width) => sum + (width ?? 0), 0);
  const rowsMax = rowBytes === null ? null : Math.max(1, Math.floor(SEGMENT_BYTES / rowBytes));
  let builders: readonly ColumnBuilder[] = columnBuilders(schema);
  let rows = 0;

  function take(): RecordBatch {
    const children = builders.map((builder) => builder.finish());
    const batch = new RecordBatch(
      schema,
      makeData({ type: new Struct(schema.fields), length: rows, nullCount: 0, children }),
    );
    builders = columnBuilders(schema);
    rows = 0;
    return batch;
  }

  return {
    append(columns, row) {
      for (let i = 0; i < builders.length; i++) {
        const source = columns[i] as RowSource;
        const builder = builders[i] as ColumnBuilder;
        if (source.valid(row)) builder.append(source, row);
        else builder.appendNull();
      }
      rows += 1;
      const isFull =
        rowsMax === null
          ? builders.reduce((sum, builder) => sum + builder.bytes(), 0) >= SEGMENT_BYTES
          : rows >= rowsMax;
      return isFull ? take() : null;
    },
    finish: () => (rows > 0 ? take() : null),
  };
}

function columnBuilders(schema: Schema): ColumnBuilder[] {
  return schema.fields.map((field) => createColumnBuilder(field.type));
}

/** Bytes of a value; null where they differ from row to row. */
function widthOf(type: DataType): number | null {
  if (DataType.isBool(type)) return 1 / 8;
  if (DataType.isDictionary(type)) return widthOf(type.indices);
  if (DataType.isDecimal(type)) return type.bitWidth / 8;
  if (DataType.isFixedSizeBinary(type)) return type.byteWidth;
  if (DataType.isFixedSizeList(type)) {
    const item = widthOf(type.valueType);
    return item === null ? null : item * type.listSize;
  }
  if (DataType.isStruct(type)) {
    const widths = type.children.map((field) => widthOf(field.type as DataType));
    return widths.includes(null) ? null : widths.reduce<number>((sum, width) => sum + (width ?? 0), 0);
  }
  if (!isFixedWidth(type)) return null;
  return (type as unknown as { ArrayType: { BYTES_PER_ELEMENT: number } }).ArrayType.BYTES_PER_ELEMENT;
}
