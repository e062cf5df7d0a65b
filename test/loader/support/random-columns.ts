/**
 * Columns drawn at random over the whole table of types: a field, its cells, the options to read it with, and what the slow
 * reference must know of it.
 */
import { type DataType, Field, FixedSizeList, Int8, LargeList, List, Struct } from "apache-arrow";
import fc from "fast-check";
import type { ColumnOptions } from "../../../src/loader/columns/options.ts";
import { hashBytes } from "../../../src/merkle/hash.ts";
import { createRng, type Rng } from "../../../src/merkle/rng.ts";
import { utf8 } from "../../../src/model/bytes.ts";
import type { Cell } from "./arrow-data.ts";
import { between, KINDS, oneOf, type Kind } from "./column-kinds.ts";
import type { ImagePool } from "./image-pool.ts";
import type { SlowColumn } from "./slow-columns.ts";

export interface ColumnDraw {
  readonly kind: string;
  readonly wrap:
    | "plain"
    | "fixed"
    | "nested"
    | "tensor"
    | "list"
    | "largeList"
    | "struct"
    | "fixedInStruct"
    | "listInStruct";
  readonly nulls: "none" | "mask" | "nan" | "number" | "refused";
  readonly option: number;
  readonly reshape: boolean;
  readonly seed: number;
}

const WRAPS = [
  "plain",
  "fixed",
  "nested",
  "tensor",
  "list",
  "largeList",
  "struct",
  "fixedInStruct",
  "listInStruct",
] as const;

export const columnDraw: fc.Arbitrary<ColumnDraw> = fc.record({
  kind: fc.constantFrom(...Object.keys(KINDS)),
  wrap: fc.constantFrom("plain", ...WRAPS),
  nulls: fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom("none", "none", "mask", "nan", "number") },
    { weight: 1, arbitrary: fc.constant("refused") },
  ),
  option: fc.nat(5),
  reshape: fc.boolean(),
  seed: fc.nat(2 ** 30),
}) as fc.Arbitrary<ColumnDraw>;

/** A draw without fast-check; nulls have an option. */
export function randomDraw(rng: Rng): ColumnDraw {
  return {
    kind: oneOf(...Object.keys(KINDS))(rng),
    wrap: oneOf(...WRAPS)(rng),
    nulls: oneOf("none", "none", "mask", "number")(rng) as ColumnDraw["nulls"],
    option: between(0, 5)(rng),
    reshape: rng.uniform() < 0.5,
    seed: between(0, 2 ** 30)(rng),
  };
}

export interface RandomColumn {
  readonly field: Field;
  readonly cells: readonly Cell[];
  readonly slow: SlowColumn;
  /** Plain texts that need a vocabulary. */
  readonly classes: boolean;
  readonly shape: readonly number[];
  readonly dtype: string;
}

export function makeColumn(top: string, draw: ColumnDraw, rows: number, images: ImagePool): RandomColumn {
  const kind = KINDS[draw.kind] as Kind;
  const rng = createRng(hashBytes(utf8(`column ${draw.seed}`)));
  const { scalar, ...chosen } = kind.options[draw.option % kind.options.length] as Kind["options"][number];
  const isBytes = draw.kind === "bytes";
  const isStruct = draw.wrap.toLowerCase().includes("struct");
  const isLoose = draw.wrap === "tensor" || draw.wrap.toLowerCase().includes("list");
  const wrap = scalar || (isBytes && isLoose) ? (isStruct ? "struct" : "plain") : draw.wrap;
  const one = cellOf(draw, chosen, kind, images);
  const type = kind.type();
  const { field, cell, lists, permutation } = wrapped(wrap, type, one, draw.nulls !== "none");
  const isInt = chosen.dtype === "int32" || chosen.dtype === "bool";
  const nulls = nullsOf(draw.nulls, isInt || chosen.dtype === "string");
  const isList = wrap === "list" || wrap === "largeList" || wrap === "listInStruct";
  const pad = isList
    ? { length: 3, value: isInt ? 1 : -1, ...(draw.reshape ? { truncate: true as const } : {}) }
    : undefined;
  const path = wrap.toLowerCase().includes("struct") ? `${top}.in` : top;
  const inner: ColumnOptions = { ...chosen, ...(nulls === undefined ? {} : { nulls }), ...(pad ? { pad } : {}) };
  const stored = storedShape(inner, isList ? [3] : isBytes ? [...lists, 3] : lists, images);
  const shape = draw.reshape && stored.length > 0 && !chosen.oneHot ? [stored.reduce((a, b) => a * b, 1)] : stored;
  const options = chosen.image ? { ...inner, shape: stored } : shape === stored ? inner : { ...inner, shape };
  return {
    field: nest(top, wrap, field, draw.nulls !== "none"),
    cells: Array.from({ length: rows }, () => nestCell(wrap, cell(rng), draw.nulls !== "none" && rng.uniform() < 0.1)),
    slow: {
      name: path,
      field,
      options,
      classes: [],
      pixelsOf: images.pixelsOf,
      ...(permutation ? { permutation } : {}),
    },
    classes: chosen.classes !== undefined,
    shape: chosen.image ? stored : shape,
    dtype: chosen.dtype === "uint8" ? "float32" : (chosen.dtype ?? "float32"),
  };
}

function nullsOf(nulls: ColumnDraw["nulls"], isWhole: boolean): ColumnOptions["nulls"] {
  if (nulls === "none" || nulls === "refused") return undefined;
  if (nulls === "nan" && !isWhole) return "nan";
  return nulls === "number" ? (isWhole ? 1 : -1.5) : "mask";
}

function storedShape(
  options: ColumnOptions,
  lists: readonly number[],
  { height, width }: ImagePool,
): readonly number[] {
  if (options.image) return [height, width, options.image.channels ?? 3];
  if (options.oneHot === true) return [-1]; // as many as the vocabulary has
  return options.oneHot === undefined ? lists : [options.oneHot];
}

function cellOf(draw: ColumnDraw, { image }: ColumnOptions, kind: Kind, { encoded }: ImagePool): (rng: Rng) => Cell {
  const value = image ? (rng: Rng): Cell => oneOf(...encoded[image.channels === 1 ? 1 : 3])(rng) : kind.cell;
  if (draw.nulls === "none") return value;
  const share = draw.nulls === "refused" ? 0.01 : 0.3;
  return (rng) => (rng.uniform() < share ? null : value(rng));
}

interface Wrapped {
  readonly field: Field;
  readonly cell: (rng: Rng) => Cell;
  readonly lists: readonly number[];
  readonly permutation?: readonly number[];
}

function wrapped(wrap: ColumnDraw["wrap"], type: DataType, one: (rng: Rng) => Cell, nullable: boolean): Wrapped {
  const item = new Field("item", type, true);
  const present = (rng: Rng): Cell => {
    for (;;) {
      const cell = one(rng);
      if (cell !== null) return cell; // nulls are of whole rows
    }
  };
  const list =
    (of: (rng: Rng) => Cell, size: (rng: Rng) => number) =>
    (rng: Rng): Cell =>
      nullable && rng.uniform() < 0.2 ? null : Array.from({ length: size(rng) }, () => of(rng));
  const full =
    (of: (rng: Rng) => Cell, size: number) =>
    (rng: Rng): Cell =>
      Array.from({ length: size }, () => of(rng));
  switch (wrap) {
    case "fixed":
    case "fixedInStruct":
      return { field: new Field("in", new FixedSizeList(4, item), true), cell: list(present, () => 4), lists: [4] };
    case "nested": {
      const pair = new FixedSizeList(2, item);
      return {
        field: new Field("in", new FixedSizeList(3, new Field("item", pair, true)), true),
        cell: list(full(present, 2), () => 3),
        lists: [3, 2],
      };
    }
    case "tensor": {
      const metadata = new Map([
        ["ARROW:extension:name", "arrow.fixed_shape_tensor"],
        ["ARROW:extension:metadata", '{"shape":[2,3],"permutation":[1,0]}'],
      ]);
      return {
        field: new Field("in", new FixedSizeList(6, item), true, metadata),
        cell: list(present, () => 6),
        lists: [3, 2],
        permutation: [0, 3, 1, 4, 2, 5],
      };
    }
    case "list":
    case "listInStruct":
      return { field: new Field("in", new List(item), true), cell: list(present, between(0, 4)), lists: [3] };
    case "largeList":
      return { field: new Field("in", new LargeList(item), true), cell: list(present, between(0, 3)), lists: [3] };
    default:
      return { field: new Field("in", type, true), cell: one, lists: [] };
  }
}

function nest(top: string, wrap: ColumnDraw["wrap"], field: Field, nullable: boolean): Field {
  if (wrap === "struct" || wrap === "fixedInStruct" || wrap === "listInStruct") {
    return new Field(top, new Struct([new Field("other", new Int8(), false), field]), nullable);
  }
  return new Field(top, field.type, true, field.metadata);
}

function nestCell(wrap: ColumnDraw["wrap"], cell: Cell, isNull: boolean): Cell {
  const isStruct = wrap === "struct" || wrap === "fixedInStruct" || wrap === "listInStruct";
  return isStruct ? (isNull ? null : { other: 1, in: cell }) : cell;
}
