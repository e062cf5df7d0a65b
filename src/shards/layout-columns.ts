/**
 * Owns what a layout asks of a column: how many buffers it has, how wide, and what is below it. Nothing of arrow-js, so that a
 * thread that only scans need not load it.
 */
import type { FieldSpec, TypeSpec } from "./schema-form.ts";

/** A column, or a child of one. */
export interface LayoutColumn {
  readonly name: string;
  readonly form: ColumnForm;
}

export type ColumnForm =
  | { readonly kind: "null" | "bits" | "views" }
  /** Values of so many bytes. */
  | { readonly kind: "fixed"; readonly bytes: number }
  /** Texts and binary: offsets so wide, then the data. */
  | { readonly kind: "variable"; readonly width: 4 | 8 }
  | { readonly kind: "list"; readonly width: 4 | 8; readonly child: LayoutColumn }
  | { readonly kind: "fixed_list"; readonly size: number; readonly child: LayoutColumn }
  | { readonly kind: "struct"; readonly children: readonly LayoutColumn[] }
  | {
      readonly kind: "union";
      readonly isDense: boolean;
      readonly typeIds: readonly number[];
      readonly children: readonly LayoutColumn[];
    }
  /** Indices so wide; `id` is the dictionary's in the schema. */
  | { readonly kind: "dictionary"; readonly id: number; readonly width: number; readonly signed: boolean };

/** The columns of a schema; the k-th dictionary column, depth first, has dictionary id k. */
export function layoutColumns(fields: readonly FieldSpec[]): readonly LayoutColumn[] {
  const ids = { next: 0 };
  return fields.map((field) => columnOf(field, ids));
}

/** The column of a dictionary's values. */
export function dictionaryValues({ type, children }: FieldSpec): LayoutColumn {
  return columnOf({ name: "values", type, nullable: true, children }, { next: 0 });
}

function columnOf({ name, type, dictionary, children = [] }: FieldSpec, ids: { next: number }): LayoutColumn {
  if (dictionary) {
    return {
      name,
      form: { kind: "dictionary", id: ids.next++, width: dictionary.bits / 8, signed: dictionary.signed },
    };
  }
  const below = children.map((child) => columnOf(child, ids));
  return { name, form: columnForm(type, below) };
}

/** @throws RangeError when a list has no child */
export function columnForm(type: TypeSpec, children: readonly LayoutColumn[]): ColumnForm {
  switch (type.kind) {
    case "null":
      return { kind: "null" };
    case "bool":
      return { kind: "bits" };
    case "utf8":
    case "binary":
      return { kind: "variable", width: 4 };
    case "large_utf8":
    case "large_binary":
      return { kind: "variable", width: 8 };
    case "utf8_view":
    case "binary_view":
      return { kind: "views" };
    case "list":
    case "map":
      return { kind: "list", width: 4, child: only(children) };
    case "large_list":
      return { kind: "list", width: 8, child: only(children) };
    case "fixed_size_list":
      return { kind: "fixed_list", size: type.size, child: only(children) };
    case "struct":
      return { kind: "struct", children };
    case "union":
      return { kind: "union", isDense: type.mode === "dense", typeIds: type.typeIds, children };
    default:
      return { kind: "fixed", bytes: valueBytes(type) };
  }
}

function only([child]: readonly LayoutColumn[]): LayoutColumn {
  if (!child) throw new RangeError("a list without a child");
  return child;
}

type FixedType = Extract<
  TypeSpec,
  {
    readonly kind:
      | "int"
      | "float"
      | "decimal"
      | "date"
      | "time"
      | "timestamp"
      | "interval"
      | "duration"
      | "fixed_size_binary";
  }
>;

function valueBytes(type: FixedType): number {
  switch (type.kind) {
    case "int":
    case "float":
    case "decimal":
    case "time":
      return type.bits / 8;
    case "date":
      return type.unit === "day" ? 4 : 8;
    case "timestamp":
    case "duration":
      return 8;
    case "interval":
      return type.unit === "year_month" ? 4 : type.unit === "day_time" ? 8 : 16;
    case "fixed_size_binary":
      return type.bytes;
  }
}
