/**
 * Owns the plan of one column, as plain data: what `resolve.ts` decides, and all that follows it needs.
 */
import type { ColumnOptions } from "./options.ts";

/** How the values of a column lie in a decoded batch. */
export type ValueKind =
  | "number"
  | "wide"
  | "half"
  | "bool"
  | "dictionary"
  | "string"
  /** Texts that stay texts. */
  | "text"
  | "time"
  | "decimal"
  | "hash"
  | "image";

/** One requested column, resolved against the schema. */
export interface ColumnPlan {
  readonly name: string;
  /** Child ordinals from the batch down to the column; more than one through structs. */
  readonly path: readonly number[];
  readonly kind: ValueKind;
  /** Elements of each nesting level of fixed-size lists, outermost first. */
  readonly lists: readonly number[];
  /** Elements of one row as stored: the product of `lists`. */
  readonly sourceWidth: number;
  /** The vocabulary, for strings. */
  readonly classes: readonly string[] | null;
  readonly oneHot: number | null;
  readonly nulls: NonNullable<ColumnOptions["nulls"]> | null;
  readonly dtype: "float32" | "int32" | "bool" | "string";
  /** Shape of one row of the result. */
  readonly shape: readonly number[];
  /** Elements of one row of the result. */
  readonly width: number;
  /** Integers, or counts of something: beyond 2²⁴ float32 would change them. */
  readonly counts: boolean;
  /** True when stored values are float32 and pass unchanged. */
  readonly copies: boolean;
  /** Lists of any length, filled up; null otherwise. The innermost level of `lists` is then `pad.length`. */
  readonly pad: { readonly length: number; readonly value: number; readonly truncate: boolean } | null;
  /** A count of units: (stored · `ticksNs` − `sinceNs`) ÷ `unitNs`. */
  readonly time: { readonly ticksNs: bigint; readonly sinceNs: bigint; readonly unitNs: bigint } | null;
  /** Places of the stored elements of a row in row-major order; null when they lie so. */
  readonly permutation: Uint32Array | null;
  readonly image: ImagePlan | null;
  /** Buckets of a hash; of a decimal, its scale. */
  readonly parameter: number;
}

export interface ImagePlan {
  readonly channels: 1 | 3 | 4;
  readonly resize: readonly [number, number] | null;
  readonly scale: number;
  readonly pixelsMax: number;
}
