/**
 * Owns which split a row belongs to when splits are cut by a key: a hash of the key's value, so that an entity stays in its
 * split in every version, wherever its rows stand (docs/spec.md, Splits by key).
 */
import { type DataType, DataType as Types, DateUnit, type Schema } from "apache-arrow";
import { hashAs } from "../merkle/hash.ts";
import { concatBytes, u32le, utf8 } from "../model/bytes.ts";
import type { SplitRule } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import type { RowSource, Values } from "./row-source.ts";

export type KeyRule = Extract<SplitRule, { kind: "key" }>;

const MILLION = 1_000_000;
const DECODER = new TextDecoder();

/** Ordinal in `splits` of a row. */
export type Router = (columns: readonly RowSource[], row: number) => number;

/** @throws ShardpactError `column_unknown`, `type_unsupported` (a key is an integer, a text, a boolean or a day) */
export function createRouter(rule: KeyRule, splits: readonly string[], schema: Schema): Router {
  const keys = rule.columns.map((name) => {
    const at = schema.fields.findIndex((field) => field.name === name);
    const field = schema.fields[at];
    if (!field) {
      throw new ShardpactError("column_unknown", `there is no column '${name}' to split by`, {
        details: { column: name, columns: schema.fields.map((f) => f.name) },
        hint: `Columns are: ${schema.fields.map((f) => f.name).join(", ")}.`,
      });
    }
    return { at, textOf: keyText(field.type, name) };
  });
  const rest = splits.findIndex((name) => !Object.hasOwn(rule.ppm, name));
  let sum = 0;
  const bounds = Object.keys(rule.ppm)
    .sort()
    .map((name) => ({ split: splits.indexOf(name), below: (sum += rule.ppm[name] ?? 0) }));
  const salt = utf8(rule.salt);
  return (columns, row) => {
    const parts = keys.map(({ at, textOf }) => {
      const source = columns[at] as RowSource;
      const text = source.valid(row) ? utf8(textOf(source, row)) : null;
      // A null is no text, not even the empty one.
      return text === null ? u32le(0xffff_ffff) : concatBytes([u32le(text.byteLength), text]);
    });
    const hash = hashAs("splitKey", u32le(salt.byteLength), salt, ...parts);
    const place =
      ((hash[4] as number) | ((hash[5] as number) << 8) | ((hash[6] as number) << 16)) + (hash[7] as number) * 2 ** 24;
    const ppm = Math.floor((place * MILLION) / 2 ** 32);
    return bounds.find(({ below }) => ppm < below)?.split ?? rest;
  };
}

/** One text for equal values, whatever their width: decimal digits, those of a day with a `d`, `true` or `false`, or the text itself. */
function keyText(type: DataType, name: string): (source: RowSource, row: number) => string {
  if (Types.isInt(type)) return (source, row) => String((source.values as Values)[row]);
  if (Types.isDate(type) && type.unit === DateUnit.DAY) {
    return (source, row) => `${(source.values as Values)[row]}d`; // since 1970-01-01
  }
  if (Types.isBool(type)) return (source, row) => String(source.bit?.(row));
  if (Types.isUtf8(type)) return (source, row) => DECODER.decode(source.bytes?.(row));
  if (Types.isDictionary(type)) return (source, row) => source.text?.(row) ?? "";
  throw new ShardpactError("type_unsupported", `column '${name}' of type ${String(type)} is no key to split by`, {
    details: { column: name },
    hint: "A key is an integer, a text, a boolean or a day.",
  });
}
