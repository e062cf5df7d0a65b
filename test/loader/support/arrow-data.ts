/**
 * Arrow data made of plain JS cells, and plain JS cells read back through arrow-js: no code of the loader in either.
 *
 * A cell is null, a number, a bigint (64-bit integers, times and decimals as they are stored), a boolean, a text, bytes, an array (lists) or an
 * object (structs).
 */
import {
  type Data,
  DataType,
  Dictionary,
  type Field,
  Int32,
  makeData,
  makeVector,
  type RecordBatch,
  Utf8,
  Vector,
} from "apache-arrow";

export type Cell =
  | null
  | number
  | bigint
  | boolean
  | string
  | Uint8Array
  | readonly Cell[]
  | { readonly [name: string]: Cell };

/** How many bytes more than the null slots need: what hides there must never be seen. */
const HIDDEN = 7;

export function dataOf(type: DataType, cells: readonly Cell[]): Data {
  const length = cells.length;
  const nulls = {
    length,
    nullCount: cells.filter((cell) => cell === null).length,
    nullBitmap: bitsOf(cells.map((c) => c !== null)),
  };
  const make = (rest: object): Data => makeData({ type, ...nulls, ...rest } as never) as Data;
  if (DataType.isBool(type)) return make({ data: bitsOf(cells.map((c) => c === true || c === null)) });
  if (DataType.isFixedSizeList(type)) {
    const { listSize: size, children } = type;
    const items = cells.flatMap((cell) =>
      cell === null ? Array<Cell>(size).fill(hidden(children[0]?.type)) : (cell as Cell[]),
    );
    return make({ child: dataOf(children[0]?.type as DataType, items) });
  }
  if (DataType.isList(type) || DataType.isLargeList(type)) {
    const lists = cells.map((cell) => (cell === null ? [hidden(type.children[0]?.type)] : (cell as Cell[])));
    const valueOffsets = offsetsOf(
      lists.map((list) => list.length),
      DataType.isLargeList(type),
    );
    return make({ valueOffsets, child: dataOf(type.children[0]?.type as DataType, lists.flat()) });
  }
  if (DataType.isStruct(type)) {
    const children = (type.children as Field[]).map((field) =>
      dataOf(
        field.type as DataType,
        cells.map((cell) =>
          cell === null ? hidden(field.type as DataType) : ((cell as Record<string, Cell>)[field.name] ?? null),
        ),
      ),
    );
    return make({ children });
  }
  if (DataType.isDictionary(type)) {
    const values = [...new Set(cells.filter((cell) => cell !== null))].toReversed();
    const dictionary = makeVector(
      dataOf(type.dictionary as DataType, values.length > 0 ? values : [hidden(type.dictionary as DataType)]),
    );
    const data = (type.indices.ArrayType as Int32ArrayConstructor).from(cells, (cell) =>
      Math.max(0, values.indexOf(cell as never)),
    );
    return make({ data, dictionary });
  }
  if (isBytes(type)) return make(variable(type, cells));
  return make({ data: fixed(type, cells) });
}

const isBytes = (type: DataType): boolean =>
  DataType.isUtf8(type) ||
  DataType.isBinary(type) ||
  DataType.isLargeUtf8(type) ||
  DataType.isLargeBinary(type) ||
  isView(type);

const isView = (type: DataType): boolean => DataType.isUtf8View(type) || DataType.isBinaryView(type);

/** What lies in a null slot: no value that could pass for the one of another row. */
function hidden(type: DataType | undefined): Cell {
  if (type === undefined) return null;
  if (DataType.isFixedSizeList(type)) return Array<Cell>(type.listSize).fill(hidden(type.children[0]?.type));
  if (DataType.isList(type) || DataType.isLargeList(type)) return [];
  if (DataType.isStruct(type))
    return Object.fromEntries(type.children.map((f: Field) => [f.name, hidden(f.type as DataType)]));
  if (DataType.isDictionary(type)) return hidden(type.dictionary as DataType);
  if (DataType.isBool(type)) return true;
  if (DataType.isUtf8(type) || DataType.isLargeUtf8(type) || DataType.isUtf8View(type)) return "hidden";
  if (isBytes(type)) return new Uint8Array(3);
  if (DataType.isFixedSizeBinary(type)) return new Uint8Array(type.byteWidth).fill(HIDDEN);
  return DataType.isFloat(type) || (DataType.isInt(type) && type.bitWidth < 64) || DataType.isDate(type)
    ? HIDDEN
    : BigInt(HIDDEN);
}

function fixed(type: DataType, cells: readonly Cell[]): ArrayBufferView {
  if (DataType.isFixedSizeBinary(type)) {
    const out = new Uint8Array(cells.length * type.byteWidth);
    cells.forEach((cell, i) => out.set((cell ?? hidden(type)) as Uint8Array, i * type.byteWidth));
    return out;
  }
  if (DataType.isDecimal(type)) {
    const words = type.bitWidth / 32;
    return Uint32Array.from({ length: cells.length * words }, (_, i) => {
      const value = BigInt.asUintN(type.bitWidth, BigInt((cells[Math.floor(i / words)] ?? HIDDEN) as bigint));
      return Number((value >> BigInt(32 * (i % words))) & 0xffff_ffffn);
    });
  }
  const Made = type.ArrayType as unknown as { new (length: number): Int32Array };
  const out = new Made(cells.length);
  const isWide = out instanceof BigInt64Array || out instanceof BigUint64Array;
  cells.forEach((cell, i) => {
    const value = cell ?? hidden(type);
    out[i] = (isWide ? BigInt(value as bigint) : Number(value)) as number;
  });
  return out;
}

function variable(type: DataType, cells: readonly Cell[]): object {
  const parts = cells.map((cell) => {
    const value = cell ?? hidden(type);
    return typeof value === "string" ? new Uint8Array(Buffer.from(value, "utf8")) : (value as Uint8Array);
  });
  if (isView(type)) return views(parts);
  const isLarge = DataType.isLargeUtf8(type) || DataType.isLargeBinary(type);
  const data = new Uint8Array(Buffer.concat(parts));
  return {
    valueOffsets: offsetsOf(
      parts.map((part) => part.byteLength),
      isLarge,
    ),
    data,
  };
}

/** Long values alternate between two buffers. */
function views(parts: readonly Uint8Array[]): object {
  const buffers: Uint8Array[][] = [[], []];
  const sizes = [0, 0];
  const data = new Uint8Array(parts.length * 16);
  const view = new DataView(data.buffer);
  parts.forEach((part, i) => {
    view.setInt32(i * 16, part.byteLength, true);
    if (part.byteLength <= 12) return data.set(part, i * 16 + 4);
    const b = i % 2;
    data.set(part.subarray(0, 4), i * 16 + 4);
    view.setInt32(i * 16 + 8, b, true);
    view.setInt32(i * 16 + 12, sizes[b] as number, true);
    buffers[b]?.push(part);
    sizes[b] = (sizes[b] as number) + part.byteLength;
  });
  return { views: data, variadicBuffers: buffers.map((all) => new Uint8Array(Buffer.concat(all))) };
}

function offsetsOf(lengths: readonly number[], isLarge: boolean): Int32Array | BigInt64Array {
  const ends = [0];
  for (const length of lengths) ends.push((ends.at(-1) as number) + length);
  return isLarge ? BigInt64Array.from(ends, BigInt) : Int32Array.from(ends);
}

function bitsOf(flags: readonly boolean[]): Uint8Array {
  const bits = new Uint8Array(Math.ceil(flags.length / 64) * 8);
  flags.forEach((flag, i) => (bits[i >> 3] = (bits[i >> 3] as number) | (flag ? 1 << (i & 7) : 0)));
  return bits;
}

/** The cell in row `row` of data that arrow-js loaded. Times and decimals as stored: arrow-js itself rounds them. */
export function cellAt(data: Data, row: number): Cell {
  const { type } = data as { type: DataType };
  if (!data.getValid(row)) return null;
  const child = (at: number): Data => data.children[at] as Data;
  if (DataType.isFixedSizeList(type)) {
    return Array.from({ length: type.listSize }, (_, i) => cellAt(child(0), row * type.listSize + i));
  }
  if (DataType.isList(type) || DataType.isLargeList(type)) {
    const [from, to] = [Number(data.valueOffsets[row]), Number(data.valueOffsets[row + 1])];
    return Array.from({ length: to - from }, (_, i) => cellAt(child(0), from + i));
  }
  if (DataType.isStruct(type)) {
    return Object.fromEntries(type.children.map((field: Field, i: number) => [field.name, cellAt(child(i), row)]));
  }
  if (DataType.isDictionary(type)) {
    const place = Number((data.values as ArrayLike<number>)[row]);
    let chunk = 0;
    let at = place;
    const chunks = (data.dictionary as Vector).data;
    while (at >= (chunks[chunk] as Data).length) at -= (chunks[chunk++] as Data).length;
    return cellAt(chunks[chunk] as Data, at);
  }
  if (DataType.isDecimal(type)) {
    const words = type.bitWidth / 32;
    let value = 0n;
    for (let i = words - 1; i >= 0; i--)
      value = (value << 32n) | BigInt((data.values as Uint32Array)[row * words + i] as number);
    return BigInt.asIntN(type.bitWidth, value);
  }
  const isTime =
    DataType.isTimestamp(type) || DataType.isTime(type) || DataType.isDuration(type) || DataType.isDate(type);
  if (isTime) return BigInt((data.values as Int32Array)[row] as number);
  if (DataType.isUtf8(type) || DataType.isLargeUtf8(type)) {
    const [from, to] = [Number(data.valueOffsets[row]), Number(data.valueOffsets[row + 1])];
    return textIn(data.values as Uint8Array, from, to);
  }
  if (DataType.isUtf8View(type)) {
    const view = Buffer.from(data.values as unknown as Uint8Array).subarray(row * 16, row * 16 + 16);
    const [length, buffer, from] = [view.readInt32LE(0), view.readInt32LE(8), view.readInt32LE(12)];
    if (length <= 12) return view.subarray(4, 4 + length).toString("utf8");
    return textIn(data.variadicBuffers[buffer] as Uint8Array, from, from + length);
  }
  return new Vector([data]).get(row) as Cell;
}

export const labelType = (): Dictionary => new Dictionary(new Utf8(), new Int32());

/** arrow-js would drop a byte order mark, and give what is there of a text that is not there to its end. */
function textIn(bytes: Uint8Array, from: number, to: number): string {
  if (from < 0 || to < from || to > bytes.byteLength) throw new RangeError(`no text in [${from}, ${to})`);
  return Buffer.from(bytes.subarray(from, to)).toString("utf8");
}

/** Reads cells of a column of a batch, through structs by a dotted path. */
export function cellsIn(batch: RecordBatch, path: string): (row: number) => Cell {
  const [top = "", ...below] = path.split(".");
  const at = batch.schema.fields.findIndex((field) => field.name === top);
  const data = batch.data.children[at] as Data;
  return (row) => {
    let cell: Cell = cellAt(data, row);
    for (const part of below) cell = cell === null ? null : ((cell as Record<string, Cell>)[part] ?? null);
    return cell;
  };
}

/** All cells of a column of a batch. */
export function cellsOf(batch: RecordBatch, path: string): Cell[] {
  return Array.from({ length: batch.numRows }, (_, row) => cellsIn(batch, path)(row));
}
