/**
 * Owns what a caller may say about columns: names, and how each becomes an array.
 */
import { ShardpactError } from "../../model/errors.ts";
import { nearestNames } from "../../model/nearest.ts";

/** How one column becomes an array. Without options: float32, in the column's own shape. */
export interface ColumnOptions {
  /**
   * Default float32. A value that would change beyond float rounding is an error. `string`: texts as they are. `uint8`: the
   * bytes of a FixedSizeBinary, as float32. An option that says nothing about the column's type is an error, too.
   */
  readonly dtype?: "float32" | "int32" | "bool" | "string" | "uint8";
  /** Shape of one row; the product must equal the column's. `[]`: one value, also where `fitDataset` would get `[1]`. */
  readonly shape?: readonly number[];
  /** 1 at the value's place among `oneHot` (`true`: as many as the vocabulary has), 0 elsewhere. */
  readonly oneHot?: number | true;
  /** Strings become their index in the vocabulary that the version's root covers. */
  readonly classes?: "agreed";
  /**
   * What stands for a null; without it a null is `null_found`. `mask`: 0, and a second array `<name>_mask`, float32
   * [rows], 1 where there is a value.
   */
  readonly nulls?: number | "nan" | "mask";
  /** Dates, times, timestamps, durations: how many of these units, as a number. A count beyond 2²⁴ is an error. */
  readonly unit?: TimeUnitName;
  /** From when dates and timestamps are counted (a zone-less timestamp counts as UTC). Default 1970-01-01. */
  readonly since?: string;
  /** Decimals become the nearest float32. */
  readonly lossy?: true;
  /** 64-bit integers become a bucket of a hash, 0 … hash − 1: ids that no vocabulary holds. */
  readonly hash?: number;
  /** Lists of any length: filled up to `length` with `value`, and a second array `<name>_mask`, 1 where there is an item. */
  readonly pad?: { readonly length: number; readonly value?: number; readonly truncate?: true };
  /** Encoded images (PNG, JPEG, …): decoded to [height, width, channels], 0 … 255 times `scale`. Needs the package sharp. */
  readonly image?: ImageOptions;
}

export type TimeUnitName = "ns" | "us" | "ms" | "s" | "min" | "h" | "d";

export interface ImageOptions {
  /** Default 3. */
  readonly channels?: 1 | 3 | 4;
  /** [height, width]: every image is fitted to it. Without it all must have the size that `shape` says. */
  readonly resize?: readonly [number, number];
  /** Default 1: values from 0 to 255. */
  readonly scale?: number;
  /** Pixels that an encoded image may have; one that declares more is `image_malformed` before it is decoded. Default 2²⁶. */
  readonly pixelsMax?: number;
}

type NameOf<S> = unknown extends S ? string : Extract<keyof S, string>;

/** Columns of a batch: a name, several, or a record of name → options. Struct fields by dotted path. */
export type Cols<S = unknown> = NameOf<S> | readonly NameOf<S>[] | { readonly [K in NameOf<S>]?: ColumnOptions };

export interface ColumnRequest {
  readonly name: string;
  readonly options: ColumnOptions;
}

/** The columns in the caller's order. @throws ShardpactError `invalid_argument` on none, one twice, or options that there are not. */
export function listColumns(columns: Cols, what: "xs" | "ys"): readonly ColumnRequest[] {
  if (columns === undefined || columns === null)
    throw new ShardpactError("invalid_argument", `${what} names no column`);
  const requests: ColumnRequest[] =
    typeof columns === "string"
      ? [{ name: columns, options: {} }]
      : Array.isArray(columns)
        ? (columns as readonly string[]).map((name) => ({ name, options: {} }))
        : Object.entries(columns as Record<string, ColumnOptions>).map(([name, options]) => ({ name, options }));
  if (requests.length === 0) throw new ShardpactError("invalid_argument", `${what} names no column`);
  const names = new Set(requests.map((r) => r.name));
  if (names.size !== requests.length) throw new ShardpactError("invalid_argument", `${what} names a column twice`);
  for (const { name, options } of requests) {
    requireOptions(name, options);
    const mask = `${name}_mask`;
    if (!names.has(mask) || (options.pad === undefined && options.nulls !== "mask")) continue;
    throw new ShardpactError("invalid_argument", `'${mask}' of ${what} is a column, and the mask of '${name}'`, {
      details: { column: name, mask },
      hint: "Publish the column under another name, or leave it out.",
    });
  }
  return requests;
}

const OPTION_NAMES: Readonly<Record<keyof ColumnOptions, true>> = {
  ...{ dtype: true, shape: true, oneHot: true, classes: true, nulls: true, unit: true },
  ...{ since: true, lossy: true, hash: true, pad: true, image: true },
};

const PAD_NAMES: Readonly<Record<keyof NonNullable<ColumnOptions["pad"]>, true>> = {
  ...{ length: true, value: true, truncate: true },
};
const IMAGE_NAMES: Readonly<Record<keyof ImageOptions, true>> = {
  ...{ channels: true, resize: true, scale: true, pixelsMax: true },
};

function requireOptions(name: string, options: ColumnOptions): void {
  if (typeof options !== "object" || options === null) {
    throw new ShardpactError("invalid_argument", `the options of '${name}' must be an object, not ${String(options)}`, {
      hint: `Write { "${name}": {} } for none.`,
    });
  }
  requireKnownNames(`'${name}'`, options, OPTION_NAMES);
  if (options.pad) requireKnownNames(`pad of '${name}'`, options.pad, PAD_NAMES);
  if (options.image) requireKnownNames(`image of '${name}'`, options.image, IMAGE_NAMES);
}

/** A mistyped option would say nothing, and nobody would notice. @throws ShardpactError `invalid_argument` with the nearest names */
export function requireKnownNames(of: string, options: object, names: Readonly<Record<string, true>>): void {
  const unknown = Object.keys(options).find((name) => !Object.hasOwn(names, name));
  if (unknown === undefined) return;
  const near = nearestNames(unknown, Object.keys(names));
  throw new ShardpactError("invalid_argument", `'${unknown}' is no option of ${of}`, {
    details: { option: unknown, nearest: near },
    hint: near.length > 0 ? `Did you mean ${near.join(" or ")}?` : `Options are: ${Object.keys(names).join(", ")}.`,
  });
}
