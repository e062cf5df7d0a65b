/**
 * Owns texts and bytes of any width of offsets, as views, or behind a dictionary: a reader by row, made once a column.
 *
 * arrow-js would drop a byte order mark and turn bad bytes into U+FFFD: two texts that differ would become one. Here a text is
 * what its bytes say, and bytes that are no UTF-8 are refused.
 */
import { type Data, DataType } from "apache-arrow";
import { ShardpactError } from "../model/errors.ts";

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A column of texts, plain or behind a dictionary. */
export function isText(type: DataType): boolean {
  return DataType.isUtf8(type) || DataType.isLargeUtf8(type) || DataType.isUtf8View(type);
}

/** The text of a row; of a null row whatever lies there. @throws (the reader) `shard_malformed` */
export function textReader(column: string, data: Data): (row: number) => string {
  if (DataType.isDictionary(data.type)) {
    const values = data.dictionary?.data[0];
    if (!values) return () => "";
    const textOf = textReader(column, values);
    const indices = data.values as ArrayLike<number | bigint>;
    return (row) => textOf(Number(indices[row]));
  }
  const bytesOf = bytesReader(data);
  return (row) => {
    try {
      return decoder.decode(bytesOf(row));
    } catch (cause) {
      throw new ShardpactError("shard_malformed", `row ${row} of '${column}' holds a text that is no UTF-8`, {
        cause,
        details: { column, row },
        hint: "Publish the text as UTF-8, or its bytes as a binary column.",
      });
    }
  };
}

/** The bytes of a row, a view. */
export function bytesReader(data: Data): (row: number) => Uint8Array {
  if (DataType.isUtf8View(data.type) || DataType.isBinaryView(data.type)) {
    const views = data.values as unknown as Uint8Array;
    const words = new Int32Array(views.buffer, views.byteOffset, views.byteLength / 4);
    return (row) => {
      const length = words[row * 4] as number;
      if (length <= 12) return views.subarray(row * 16 + 4, row * 16 + 4 + length);
      const from = words[row * 4 + 3] as number;
      return data.variadicBuffers[words[row * 4 + 2] as number]?.subarray(from, from + length) ?? new Uint8Array(0);
    };
  }
  const bytes = data.values as Uint8Array;
  const offsets = data.valueOffsets as Int32Array | BigInt64Array;
  return (row) => bytes.subarray(Number(offsets[row]), Number(offsets[row + 1]));
}
