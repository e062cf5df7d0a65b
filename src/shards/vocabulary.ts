/**
 * Owns the agreed vocabularies of class columns: which columns have one, which values the files hold, and their order.
 *
 * Every dictionary column of texts has a vocabulary if it fits the object's bound; a plain text column has one when asked
 * for. The base version's list stays as it is and new values follow, bytewise sorted: an index keeps its meaning. Columns
 * in structs have dotted paths; the items of a list go by the list's path.
 */
import { open, type FileHandle } from "node:fs/promises";
import { DataType, Vector, type Data, type RecordBatch, type Schema } from "apache-arrow";
import { utf8 } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { encodeClasses, type Classes } from "../merkle/classes.ts";
import { decodeSegmentIndex, type Segment } from "../merkle/segment-index.ts";
import { batchParts } from "./batch-parts.ts";
import { decodeBatch, decodeDictionaries, type Dictionaries } from "./decode.ts";
import type { ScannedShard } from "./scan-file.ts";
import { decodeSchema, schemaFromCanonical } from "./schema.ts";
import type { FieldSpec } from "./schema-form.ts";
import { textReader } from "./texts.ts";

export interface ClassColumn {
  readonly path: string;
  /** Id of its dictionary in the canonical schema; null for plain text. */
  readonly dictionary: number | null;
  /** Child positions from the schema's fields down. */
  readonly place: readonly number[];
}

/** Distinct values of a column; null once they are too many to be a vocabulary. */
export type ClassValues = Map<string, { readonly values: Set<string>; bytes: number } | null>;

/** Larger batches are read in parts of this to collect the values of plain text columns. */
const PART_BYTES = 32 * 1024 * 1024;
/** Dictionaries are read whole. */
const DICTIONARY_READ_BYTES_MAX = 1024 * 1024 * 1024;
/** A vocabulary of so many bytes has no larger dictionary: each value takes 3 bytes of JSON and at most 24 here. */
const DICTIONARY_BYTES_MAX = 10 * LIMITS.metaBytesMax;

/** Text columns that may have a vocabulary. */
export function classColumns(schema: Uint8Array): readonly ClassColumn[] {
  const found: ClassColumn[] = [];
  let dictionaries = 0;
  const visit = (field: FieldSpec, path: string, place: readonly number[], reachable: boolean): void => {
    const dictionary = field.dictionary ? dictionaries++ : null;
    const { kind } = field.type;
    const text = kind === "utf8" || kind === "large_utf8" || kind === "utf8_view";
    if (text && reachable) found.push({ path, dictionary, place });
    const list = kind === "list" || kind === "large_list" || kind === "fixed_size_list";
    const below = reachable && dictionary === null && (list || kind === "struct");
    field.children?.forEach((child, i) => visit(child, list ? path : `${path}.${child.name}`, [...place, i], below));
  };
  decodeSchema(schema).fields.forEach((field, i) => visit(field, field.name, [i], true));
  return found;
}

/**
 * Adds the values of one file's class columns to `values`.
 * @param columns dictionary columns cost a look at the dictionaries, plain ones a pass over the batches
 * @throws `limit_exceeded`, `shard_malformed`
 */
export async function collectValues(
  path: string,
  scanned: ScannedShard,
  columns: readonly ClassColumn[],
  values: ClassValues,
): Promise<void> {
  const wanted = columns.filter(({ path: column }) => values.get(column) !== null);
  if (wanted.length === 0) return;
  const file = await open(path, "r");
  try {
    await collect(path, file, scanned, wanted, values);
  } finally {
    await file.close();
  }
}

async function collect(
  path: string,
  file: FileHandle,
  scanned: ScannedShard,
  columns: readonly ClassColumn[],
  values: ClassValues,
): Promise<void> {
  const index = decodeSegmentIndex(scanned.index);
  const schema = schemaFromCanonical(scanned.schema);
  const plain = columns.filter(({ dictionary }) => dictionary === null);
  const coded = columns.filter(({ dictionary }) => dictionary !== null);
  const dictionaries = new Map<number, Vector>();
  let skipped = false;
  for (const segment of index.segments) {
    if (segment.kind !== "dictionary") continue;
    if (segment.bytes > DICTIONARY_BYTES_MAX && plain.length === 0) {
      skipped = true;
      continue;
    }
    const bytes = await readSegment(path, file, segment);
    for (const [id, vector] of decodeDictionaries(schema, index, [bytes])) dictionaries.set(id, vector);
  }
  for (const { path: column, dictionary } of coded) {
    const vector = dictionary === null ? undefined : dictionaries.get(dictionary);
    if (vector) addValues(values, column, vector, 0, vector.length);
    else if (skipped) values.set(column, null); // its dictionary is larger than any vocabulary
  }
  for (const segment of plain.length > 0 ? index.segments : []) {
    if (segment.kind !== "batch") continue;
    for await (const { batch, ordinals } of columnsOf(path, file, segment, schema, dictionaries, plain)) {
      for (const { path: column, place } of plain) {
        const [top, ...below] = place;
        visitColumn(batch.data, [ordinals.indexOf(top as number), ...below], 0, batch.numRows, (vector, from, to) =>
          addValues(values, column, vector, from, to),
        );
      }
    }
  }
}

/** The rows of a batch, and the ordinals that its columns have in the schema. */
interface BatchPart {
  readonly batch: RecordBatch;
  readonly ordinals: readonly number[];
}

/** The columns of a batch, in parts if it is a giant one. */
async function* columnsOf(
  path: string,
  file: FileHandle,
  segment: Segment,
  schema: Schema,
  dictionaries: Dictionaries,
  columns: readonly ClassColumn[],
): AsyncGenerator<BatchPart> {
  const wanted = new Set(columns.map(({ place }) => place[0] as number));
  if (segment.bytes <= PART_BYTES) {
    const batch = decodeBatch(schema, dictionaries, await readSegment(path, file, segment), segment.rows);
    yield { batch, ordinals: [...schema.fields.keys()] };
    return;
  }
  const ordinals = [...wanted].sort((a, b) => a - b);
  const readAt = (position: number, length: number): Promise<Uint8Array> => readBytes(path, file, position, length);
  const input = { schema, dictionaries, segment, wanted, partBytes: PART_BYTES, readAt };
  for await (const batch of batchParts(input)) yield { batch, ordinals };
}

/** Visits the ranges of a nested column that rows [from, to) show: what lies below a null is nobody's value. */
function visitColumn(
  data: Data,
  [position, ...below]: readonly number[],
  from: number,
  to: number,
  visit: (vector: Vector, from: number, to: number) => void,
): void {
  if (position === undefined) return visit(new Vector([data]), from, to);
  const child = data.children[position];
  if (!child || from >= to) return;
  const { type } = data;
  const start = (row: number): number => {
    if (DataType.isFixedSizeList(type)) return row * type.listSize;
    return DataType.isStruct(type) ? row : Number(data.valueOffsets[row]);
  };
  if (data.nullCount === 0) return visitColumn(child, below, start(from), start(to), visit);
  for (let row = from; row < to; row += 1) {
    if (data.getValid(row)) visitColumn(child, below, start(row), start(row + 1), visit);
  }
}

function addValues(values: ClassValues, column: string, vector: Vector, from: number, to: number): void {
  let known = values.get(column);
  if (known === null) return;
  if (!known) values.set(column, (known = { values: new Set(), bytes: 0 }));
  const [data] = vector.data;
  if (!data) return;
  const textOf = textReader(column, data);
  for (let i = from; i < to; i += 1) {
    if (!data.getValid(i)) continue;
    const value = textOf(i);
    if (known.values.has(value)) continue;
    known.values.add(value);
    known.bytes += value.length + 3; // at least, as JSON
    if (known.bytes > LIMITS.metaBytesMax) return void values.set(column, null);
  }
}

async function readSegment(path: string, file: FileHandle, segment: Segment): Promise<Uint8Array> {
  if (segment.bytes > DICTIONARY_READ_BYTES_MAX) {
    throw new ShardpactError(
      "limit_exceeded",
      `${path}: a dictionary of ${segment.bytes} bytes is too large to collect classes`,
      {
        details: { file: path, offset: segment.offset, bytes: segment.bytes },
        hint: "Write the column as plain texts.",
      },
    );
  }
  return readBytes(path, file, segment.offset, segment.bytes);
}

async function readBytes(path: string, file: FileHandle, position: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < bytes.byteLength;) {
    const { bytesRead } = await file.read(bytes, at, bytes.byteLength - at, position + at);
    if (bytesRead === 0) throw new ShardpactError("store_failed", `${path} became shorter while it was read`);
    at += bytesRead;
  }
  return bytes;
}

/** The new version's vocabularies, and the columns that have too many values for one. */
export interface MergedClasses {
  readonly classes: Uint8Array;
  readonly dropped: readonly string[];
}

/**
 * Base lists first, then what is new, bytewise; columns that nobody asked for are dropped when they do not fit.
 * @param asked columns that must have a vocabulary: named by the caller, or in the base version
 * @throws `limit_exceeded` when an asked column does not fit
 */
export function mergeClasses(base: Classes, values: ClassValues, asked: ReadonlySet<string>): MergedClasses {
  const merged: Record<string, readonly string[]> = { ...base };
  const dropped: string[] = [];
  const columns = [...values].sort(([a], [b]) => Number(asked.has(b)) - Number(asked.has(a)) || compareUtf8(a, b));
  let encoded = encodeClasses(merged);
  for (const [column, found] of columns) {
    const known = new Set(merged[column]);
    const fresh = [...(found?.values ?? [])].filter((value) => !known.has(value)).sort(compareUtf8);
    const next = { ...merged, [column]: [...known, ...fresh] };
    const bytes = found === null ? null : fits(next);
    if (bytes) {
      merged[column] = next[column] ?? [];
      encoded = bytes;
    } else if (asked.has(column)) {
      throw new ShardpactError("limit_exceeded", `column ${column} has too many values for a class vocabulary`, {
        details: { column, bytesMax: LIMITS.metaBytesMax },
        hint: "Hash the values into buckets, or leave the column out of `classes`.",
      });
    } else dropped.push(column);
  }
  return { classes: encoded, dropped };
}

function fits(classes: Classes): Uint8Array | null {
  try {
    return encodeClasses(classes);
  } catch (error) {
    if (error instanceof ShardpactError && error.code === "limit_exceeded") return null;
    throw error;
  }
}

export function compareUtf8(a: string, b: string): number {
  return Buffer.compare(utf8(a), utf8(b));
}
