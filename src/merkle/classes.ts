/**
 * Owns the class vocabularies of a version: for each class column the list of its values, in index order.
 *
 * The object's bytes are canonical JSON of `{column: [value, …]}`, so one vocabulary has one digest. A later version
 * may append values to a column's list, never change or reorder them: an index keeps its meaning for ever.
 */
import { bytesEqual, utf8 } from "../model/bytes.ts";
import { canonicalJson } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";

export type Classes = Readonly<Record<string, readonly string[]>>;

/** @throws ShardpactError `invalid_argument`, `limit_exceeded` */
export function encodeClasses(classes: Classes): Uint8Array {
  const problem = classesProblem(classes);
  if (problem) throw new ShardpactError("invalid_argument", `class vocabularies: ${problem}`);
  const bytes = utf8(canonicalJson(classes));
  if (bytes.byteLength > LIMITS.metaBytesMax) {
    throw new ShardpactError(
      "limit_exceeded",
      `class vocabularies of ${bytes.byteLength} bytes; ${LIMITS.metaBytesMax} fit`,
    );
  }
  return bytes;
}

/** Inverse of `encodeClasses`. @throws ShardpactError `damaged` on anything that `encodeClasses` would not write. */
export function decodeClasses(bytes: Uint8Array): Classes {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (cause) {
    throw new ShardpactError("damaged", "class vocabularies are not JSON", { cause });
  }
  const problem = classesProblem(value);
  if (problem) throw new ShardpactError("damaged", `class vocabularies: ${problem}`);
  if (!bytesEqual(utf8(canonicalJson(value)), bytes)) {
    throw new ShardpactError("damaged", "class vocabularies are not canonical JSON");
  }
  return value as Classes;
}

/** The first column whose list in `next` does not start with its list in `base`; null when all do. */
export function firstColumnNotAppended(base: Classes, next: Classes): string | null {
  for (const [column, values] of Object.entries(base)) {
    const list = Object.hasOwn(next, column) ? next[column] : undefined;
    if (!list || values.some((value, i) => list[i] !== value)) return column;
  }
  return null;
}

function classesProblem(value: unknown): string | null {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return "not an object";
  for (const [column, values] of Object.entries(value)) {
    if (!Array.isArray(values) || values.some((v) => typeof v !== "string")) return `'${column}' is no list of texts`;
    if (new Set(values).size !== values.length) return `'${column}' holds a value twice`;
  }
  return null;
}
