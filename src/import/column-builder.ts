/**
 * Owns growing one Arrow column row by row, in the one form that equal rows have: offsets from 0, null slots of zeros, no
 * validity where nothing is null, dictionaries in the order in which their values came.
 */
import { Data, DataType, vectorFromArray } from "apache-arrow";
import { invariant } from "../model/errors.ts";
import { isFixedWidth, type RowSource, unsupported, type Values } from "./row-source.ts";

export interface ColumnBuilder {
  append(source: RowSource, row: number): void;
  appendNull(): void;
  /** Bytes of buffers so far, more or less. */
  bytes(): number;
  /** The column; the builder is used up. */
  finish(): Data;
}

/** @param column for the error. @throws ShardpactError `type_unsupported` */
export function createColumnBuilder(type: DataType, column?: string): ColumnBuilder {
  if (DataType.isBool(type)) return boolBuilder(type);
  if (DataType.isDictionary(type) && DataType.isUtf8(type.dictionary) && type.indices.bitWidth <= 32)
    return dictionaryBuilder(type);
  if (DataType.isStruct(type))
    return structBuilder(
      type,
      childTypes(type).map((child) => createColumnBuilder(child, column)),
    );
  if (DataType.isFixedSizeList(type)) return fixedListBuilder(type, type.listSize, onlyChild(type, column));
  if (DataType.isList(type)) return listBuilder(type, onlyChild(type, column));
  if (DataType.isUtf8(type) || DataType.isBinary(type)) return bytesBuilder(type);
  if (isFixedWidth(type)) return fixedBuilder(type);
  throw unsupported(type, column);
}

function childTypes(type: DataType): DataType[] {
  return (type.children ?? []).map((field) => field.type as DataType);
}

function onlyChild(type: DataType, column?: string): ColumnBuilder {
  const [child] = childTypes(type);
  invariant(child, "a list type has one child");
  return createColumnBuilder(child, column);
}

/** Which rows are null, and how many rows there are. */
function createValidity() {
  let bits = new Uint8Array(64);
  let length = 0;
  let nulls = 0;
  return {
    get length() {
      return length;
    },
    push(valid: boolean): void {
      if (length >> 3 >= bits.byteLength) bits = grown(bits, bits.byteLength * 2);
      if (valid) bits[length >> 3] = (bits[length >> 3] as number) | (1 << (length & 7));
      else nulls += 1;
      length += 1;
    },
    data(type: DataType, values?: unknown, offsets?: Int32Array, children: Data[] = [], dictionary?: unknown): Data {
      const bitmap = nulls > 0 ? bits.slice(0, Math.ceil(length / 64) * 8) : undefined;
      return new Data(type, 0, length, nulls, [offsets, values, bitmap] as never, children, dictionary as never);
    },
  };
}

function grown<T extends Values>(values: T, length: number): T {
  const out = new (values.constructor as new (length: number) => T)(length);
  out.set(values as never);
  return out;
}

function fixedBuilder(type: DataType): ColumnBuilder {
  const validity = createValidity();
  const { ArrayType } = type as unknown as { ArrayType: new (length: number) => Values };
  const stride = strideOf(type);
  let values = new ArrayType(64 * stride);
  let end = 0;
  const reserve = (): void => {
    if (end + stride > values.length) values = grown(values, values.length * 2);
  };
  return {
    append(source, row) {
      reserve();
      const from = source.values as Values;
      if (stride === 1) values[end] = from[row] as never;
      else values.set(from.subarray(row * stride, (row + 1) * stride) as never, end);
      end += stride;
      validity.push(true);
    },
    appendNull() {
      reserve();
      end += stride;
      validity.push(false);
    },
    bytes: () => end * values.BYTES_PER_ELEMENT,
    finish: () => validity.data(type, values.slice(0, end)),
  };
}

/** Elements of the type's array a row. */
function strideOf(type: DataType): number {
  if (DataType.isFixedSizeBinary(type)) return type.byteWidth;
  if (DataType.isDecimal(type)) return type.bitWidth / 32;
  return 1;
}

function boolBuilder(type: DataType): ColumnBuilder {
  const validity = createValidity();
  let bits = new Uint8Array(64);
  const push = (value: boolean, valid: boolean): void => {
    const at = validity.length;
    if (at >> 3 >= bits.byteLength) bits = grown(bits, bits.byteLength * 2);
    if (value) bits[at >> 3] = (bits[at >> 3] as number) | (1 << (at & 7));
    validity.push(valid);
  };
  return {
    append: (source, row) => push(source.bit?.(row) ?? false, true),
    appendNull: () => push(false, false),
    bytes: () => Math.ceil(validity.length / 8),
    finish: () => validity.data(type, bits.slice(0, Math.ceil(validity.length / 64) * 8)),
  };
}

function bytesBuilder(type: DataType): ColumnBuilder {
  const validity = createValidity();
  const offsets = createOffsets();
  let values = new Uint8Array(1024);
  return {
    append(source, row) {
      const bytes = source.bytes?.(row) as Uint8Array;
      const at = offsets.end();
      if (at + bytes.byteLength > values.byteLength)
        values = grown(values, Math.max(values.byteLength * 2, at + bytes.byteLength));
      values.set(bytes, at);
      offsets.push(bytes.byteLength);
      validity.push(true);
    },
    appendNull() {
      offsets.push(0);
      validity.push(false);
    },
    bytes: () => offsets.end() + validity.length * 4,
    finish: () => validity.data(type, values.slice(0, offsets.end()), offsets.finish()),
  };
}

function createOffsets() {
  let offsets = new Int32Array(64);
  let count = 0;
  return {
    end: () => offsets[count] as number,
    push(length: number): void {
      if (count + 2 > offsets.length) offsets = grown(offsets, offsets.length * 2);
      offsets[count + 1] = (offsets[count] as number) + length;
      count += 1;
    },
    finish: () => offsets.slice(0, count + 1),
  };
}

function listBuilder(type: DataType, child: ColumnBuilder): ColumnBuilder {
  const validity = createValidity();
  const offsets = createOffsets();
  return {
    append(source, row) {
      const [from, to] = source.range?.(row) ?? [0, 0];
      appendRange(child, source, from, to);
      offsets.push(to - from);
      validity.push(true);
    },
    appendNull() {
      offsets.push(0);
      validity.push(false);
    },
    bytes: () => child.bytes() + validity.length * 4,
    finish: () => validity.data(type, undefined, offsets.finish(), [child.finish()]),
  };
}

function fixedListBuilder(type: DataType, size: number, child: ColumnBuilder): ColumnBuilder {
  const validity = createValidity();
  return {
    append(source, row) {
      const [from, to] = source.range?.(row) ?? [0, 0];
      appendRange(child, source, from, to);
      validity.push(true);
    },
    appendNull() {
      for (let i = 0; i < size; i++) child.appendNull();
      validity.push(false);
    },
    bytes: () => child.bytes(),
    finish: () => validity.data(type, undefined, undefined, [child.finish()]),
  };
}

function appendRange(child: ColumnBuilder, source: RowSource, from: number, to: number): void {
  const items = source.children?.[0];
  invariant(items, "a list has items");
  for (let at = from; at < to; at++) {
    if (items.valid(at)) child.append(items, at);
    else child.appendNull();
  }
}

function structBuilder(type: DataType, children: readonly ColumnBuilder[]): ColumnBuilder {
  const validity = createValidity();
  return {
    append(source, row) {
      for (const [i, child] of children.entries()) {
        const from = source.children?.[i] as RowSource;
        if (from.valid(row)) child.append(from, row);
        else child.appendNull();
      }
      validity.push(true);
    },
    appendNull() {
      for (const child of children) child.appendNull();
      validity.push(false);
    },
    bytes: () => children.reduce((sum, child) => sum + child.bytes(), 0),
    finish: () =>
      validity.data(
        type,
        undefined,
        undefined,
        children.map((child) => child.finish()),
      ),
  };
}

function dictionaryBuilder(type: DataType): ColumnBuilder {
  const { indices, dictionary } = type as unknown as { indices: DataType; dictionary: DataType };
  const codes = fixedBuilder(indices);
  const places = new Map<string, number>();
  const code = new Int32Array(1);
  const source: RowSource = { valid: () => true, values: code };
  return {
    append(from, row) {
      const text = from.text?.(row) ?? "";
      code[0] = places.get(text) ?? places.size;
      places.set(text, code[0]);
      codes.append(source, 0);
    },
    appendNull: () => codes.appendNull(),
    bytes: () => codes.bytes(),
    finish() {
      const { length, nullCount, values, nullBitmap } = codes.finish();
      const buffers = [undefined, values, nullCount > 0 ? nullBitmap : undefined] as never;
      return new Data(type, 0, length, nullCount, buffers, [], vectorFromArray([...places.keys()], dictionary));
    },
  };
}
