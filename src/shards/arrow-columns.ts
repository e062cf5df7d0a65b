/**
 * Owns what a layout asks of arrow-js columns, whose dictionaries have ids of their own: some columns of a schema have a layout, too.
 */
import { DataType, type Field } from "apache-arrow";
import { invariant } from "../model/errors.ts";
import { columnForm, type LayoutColumn } from "./layout-columns.ts";
import { specOfType } from "./schema-types.ts";

/** Batch after batch has the same fields. */
const columns = new WeakMap<Field, LayoutColumn>();

/** @throws RangeError on a type that has no form here */
export function layoutColumnsOf(fields: readonly Field[]): readonly LayoutColumn[] {
  return fields.map((field) => {
    let column = columns.get(field);
    if (!column) columns.set(field, (column = columnOf(field)));
    return column;
  });
}

function columnOf({ name, type }: Field): LayoutColumn {
  if (DataType.isDictionary(type)) {
    const { bitWidth, isSigned: signed } = type.indices;
    return { name, form: { kind: "dictionary", id: type.id, width: bitWidth / 8, signed } };
  }
  const children = ((type as DataType).children ?? []) as Field[];
  return { name, form: columnForm(specOfType(type as DataType), children.map(columnOf)) };
}

/** Bytes of one value of a type without offsets and children. */
export function fixedWidth(type: DataType): number {
  const form = columnForm(specOfType(type), []);
  invariant(form.kind === "fixed", `values of ${String(type)} have one width`);
  return form.bytes;
}
