/**
 * Owns Arrow IPC stream of one snapshot table → rows, a batch at a time.
 *
 * Keys must rise from row to row and the schema must be the table's: what no store would have written is `damaged`.
 */
import { DataType, type Data, RecordBatchReader, type Schema } from "apache-arrow";
import { toHex } from "../../model/bytes.ts";
import type { Column, SnapshotTable } from "./tables.ts";

/** A row by its fields, `table` included for catalog tables. */
export type DecodedRow = Readonly<Record<string, unknown>>;

/** @throws Error with what is wrong; the caller knows file and table */
export async function* decodeTable(
  table: SnapshotTable,
  stream: AsyncIterable<Uint8Array>,
): AsyncGenerator<readonly DecodedRow[]> {
  const reader = await RecordBatchReader.from(stream);
  await reader.open({ autoDestroy: false });
  assertSchema(table, reader.schema);
  let last: DecodedRow | null = null;
  for await (const batch of reader) {
    const rows = decodeBatch(table, batch.data, batch.numRows);
    for (const row of rows) {
      if (last && compareKeys(table.key, last, row) >= 0)
        throw new Error("its rows are not in the order of their keys");
      last = row;
    }
    yield rows;
  }
}

/** Text by its UTF-8 bytes (COLLATE "C"), integers by value, key column by key column. */
export function compareKeys(key: readonly string[], a: DecodedRow, b: DecodedRow): number {
  for (const field of key) {
    const [x, y] = [a[field], b[field]];
    if (x === y) continue;
    return typeof x === "number" ? x - (y as number) : Buffer.compare(Buffer.from(String(x)), Buffer.from(String(y)));
  }
  return 0;
}

function assertSchema({ schema: expected }: SnapshotTable, found: Schema): void {
  const text = (schema: Schema) => schema.fields.map(String).join(", ");
  if (text(found) !== text(expected)) throw new Error(`its columns are ${text(found)}, not ${text(expected)}`);
}

function decodeBatch({ table, columns }: SnapshotTable, batch: Data, length: number): DecodedRow[] {
  const first = table === "ledger" ? {} : { table };
  const rows: Record<string, unknown>[] = Array.from({ length }, () => ({ ...first }));
  columns.forEach((column, i) => {
    const data = batch.children[i];
    if (!data || data.length !== length) throw new Error(`a batch lacks ${column.name}`);
    if (!column.nullable && data.nullCount > 0) throw new Error(`${column.name} is null`);
    const value = valueReader(column, data);
    for (let row = 0; row < length; row += 1)
      (rows[row] as Record<string, unknown>)[column.field] = column.nullable && !data.getValid(row) ? null : value(row);
  });
  return rows;
}

function valueReader({ name, type }: Column, data: Data): (row: number) => unknown {
  if (type === "int") {
    const values = data.values as BigInt64Array;
    return (row) => {
      const value = Number(values[row]);
      if (!Number.isSafeInteger(value)) throw new Error(`${name} holds ${values[row]}, which is not a safe integer`);
      return value;
    };
  }
  const values = data.values as Uint8Array;
  const offsets = data.valueOffsets as Int32Array;
  const width = DataType.isFixedSizeBinary(data.type) ? data.type.byteWidth : 0;
  const buffer = Buffer.from(values.buffer, values.byteOffset, values.byteLength);
  const bounds = (row: number): [number, number] => {
    if (width > 0) return [row * width, (row + 1) * width];
    const [from, to] = [offsets[row] ?? -1, offsets[row + 1] ?? -1];
    if (from < 0 || to < from || to > values.byteLength) throw new Error(`${name} points outside of its batch`);
    return [from, to];
  };
  switch (type) {
    case "text":
      return (row) => buffer.toString("utf8", ...bounds(row));
    case "json":
      return (row) => JSON.parse(buffer.toString("utf8", ...bounds(row))) as unknown;
    case "hash":
      return (row) => toHex(buffer.subarray(...bounds(row)));
    case "digest":
      return (row) => `b3:${toHex(buffer.subarray(...bounds(row)))}`;
    case "digests":
      return (row) => (toHex(buffer.subarray(...bounds(row))).match(/.{64}/g) ?? []).map((hex) => `b3:${hex}`);
    case "bytes":
      return (row) => new Uint8Array(values.subarray(...bounds(row)));
  }
}
