/**
 * What a cell becomes, written down as slowly and plainly as the table of types: one cell at a time, in BigInt where it counts.
 */
import { DataType, DateUnit, TimeUnit, type Field } from "apache-arrow";
import type { ColumnOptions } from "../../../src/loader/columns/options.ts";
import type { ErrorCode } from "../../../src/model/errors.ts";
import type { Cell } from "./arrow-data.ts";

/** One row of one column. `present`: what goes into `<name>_mask`, if that is there. */
export interface SlowRow {
  readonly values: readonly number[];
  readonly text: string | null;
  readonly present: readonly number[] | null;
}

/** The row cannot be delivered. */
export class Refused extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode) {
    super(code);
    this.code = code;
  }
}

export interface SlowColumn {
  readonly name: string;
  readonly field: Field;
  readonly options: ColumnOptions;
  readonly classes: readonly string[];
  /** Pixels of each encoded image, 0 … 255. */
  readonly pixelsOf?: ReadonlyMap<string, readonly number[]>;
  /** Places of the stored values of a row in the order in which they are wanted. */
  readonly permutation?: readonly number[];
}

const TICK_NS = {
  [TimeUnit.SECOND]: 10n ** 9n,
  [TimeUnit.MILLISECOND]: 10n ** 6n,
  [TimeUnit.MICROSECOND]: 1000n,
  [TimeUnit.NANOSECOND]: 1n,
};
const UNIT_NS = {
  ns: 1n,
  us: 1000n,
  ms: 10n ** 6n,
  s: 10n ** 9n,
  min: 60n * 10n ** 9n,
  h: 3600n * 10n ** 9n,
  d: 86_400n * 10n ** 9n,
};

/** @throws Refused */
export function slowRow(column: SlowColumn, width: number, cell: Cell): SlowRow {
  const { options, field } = column;
  const type = field.type as DataType;
  const mask = options.nulls === "mask" || options.pad !== undefined;
  if (cell === null) {
    if (options.nulls === undefined) throw new Refused("null_found");
    const value = options.nulls === "nan" ? NaN : options.nulls === "mask" ? 0 : options.nulls;
    const absent = options.pad ? Array<number>(width).fill(0) : [0];
    return { values: Array<number>(width).fill(value), text: "", present: mask ? absent : null };
  }
  if (options.pad) return padded(column, type, cell as Cell[], options.pad);
  const present = mask ? [1] : null;
  if (options.dtype === "string") return { values: [], text: cell as string, present };
  if (options.image) {
    const pixels = column.pixelsOf?.get(Buffer.from(cell as Uint8Array).toString("hex")) ?? [];
    return { values: pixels.map((pixel) => Math.fround(pixel * (options.image?.scale ?? 1))), text: null, present };
  }
  const stored = flatten(type, cell);
  const ordered = column.permutation ? column.permutation.map((at) => stored.cells[at] as Cell) : stored.cells;
  const values = ordered.map((item) => {
    if (item === null) throw new Refused("null_found");
    return convert(column, stored.type, item);
  });
  if (options.oneHot === undefined) return { values, text: null, present };
  const hot = Array<number>(width).fill(0);
  const place = values[0] as number;
  if (!(Number.isInteger(place) && place >= 0 && place < width)) throw new Refused("value_out_of_range");
  hot[place] = 1;
  return { values: hot, text: null, present };
}

function padded(
  column: SlowColumn,
  type: DataType,
  items: readonly Cell[],
  pad: NonNullable<ColumnOptions["pad"]>,
): SlowRow {
  if (items.length > pad.length && !pad.truncate) throw new Refused("shape_differs");
  const item = (type.children as Field[])[0]?.type as DataType;
  const values: number[] = [];
  const present: number[] = [];
  for (let i = 0; i < pad.length; i++) {
    const cell = items[i];
    if (cell === null) throw new Refused("null_found");
    values.push(cell === undefined ? (pad.value ?? 0) : convert(column, item, cell));
    present.push(cell === undefined ? 0 : 1);
  }
  return { values, text: null, present };
}

/** The single values of a row, row-major. */
function flatten(type: DataType, cell: Cell): { readonly type: DataType; readonly cells: readonly Cell[] } {
  if (DataType.isFixedSizeBinary(type)) return { type, cells: [...(cell as Uint8Array)] };
  if (!DataType.isFixedSizeList(type)) return { type, cells: [cell] };
  const item = type.children[0]?.type as DataType;
  const all = (cell as Cell[]).map((inner) => (inner === null ? null : flatten(item, inner)));
  if (all.includes(null)) return { type: item, cells: [null] };
  return { type: all[0]?.type ?? item, cells: all.flatMap((inner) => inner?.cells ?? []) };
}

/** One value as it lies in the array. */
function convert({ options, classes }: SlowColumn, type: DataType, cell: Cell): number {
  const dtype = options.dtype ?? "float32";
  if (typeof cell === "string") {
    const place = classes.indexOf(cell);
    if (place === -1) throw new Refused("class_unknown");
    return place;
  }
  if (DataType.isDictionary(type))
    return convert({ options, classes } as SlowColumn, type.dictionary as DataType, cell);
  if (options.hash !== undefined) return bucket(BigInt(cell as bigint), options.hash);
  if (DataType.isDecimal(type)) return asFloat(Number(cell) / 10 ** type.scale);
  if (options.unit !== undefined) return asCount(inUnits(type, cell as bigint, options), dtype);
  if (DataType.isFloat(type)) return dtype === "float32" ? asFloat(Number(cell)) : asCount(Number(cell), dtype);
  return asCount(Number(cell), dtype);
}

function asFloat(value: number): number {
  const rounded = Math.fround(value);
  if (Number.isFinite(value) && !Number.isFinite(rounded)) throw new Refused("value_out_of_range");
  return rounded;
}

function asCount(value: number, dtype: string): number {
  const fits =
    dtype === "int32"
      ? Number.isInteger(value) && value >= -(2 ** 31) && value < 2 ** 31
      : dtype === "bool"
        ? value === 0 || value === 1
        : Math.abs(value) <= 2 ** 24;
  if (!fits) throw new Refused("value_out_of_range");
  return dtype === "float32" ? Math.fround(value) : value;
}

function inUnits(type: DataType, stored: bigint, { unit, since }: ColumnOptions): number {
  const tick = DataType.isDate(type)
    ? type.unit === DateUnit.DAY
      ? UNIT_NS.d
      : UNIT_NS.ms
    : TICK_NS[(type as unknown as { unit: TimeUnit }).unit];
  const ns = stored * tick - (since === undefined ? 0n : BigInt(new Date(`${since}T00:00:00Z`).getTime()) * 10n ** 6n);
  const size = UNIT_NS[unit ?? "ns"];
  const whole = ns / size;
  return Number(whole) + Number(ns - whole * size) / Number(size);
}

/** MurmurHash3's finalizer of the low word xored with that of the high one, scaled to the buckets. */
function bucket(value: bigint, buckets: number): number {
  const mix = (word: bigint): bigint => {
    let h = word;
    h = ((h ^ (h >> 16n)) * 0x85eb_ca6bn) & 0xffff_ffffn;
    h = ((h ^ (h >> 13n)) * 0xc2b2_ae35n) & 0xffff_ffffn;
    return h ^ (h >> 16n);
  };
  const bits = BigInt.asUintN(64, value);
  const low = bits & 0xffff_ffffn;
  return Number((mix(low ^ mix(bits >> 32n)) * BigInt(buckets)) >> 32n);
}
