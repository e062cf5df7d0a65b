/**
 * Owns making arrow-js batches and dictionaries of verified segments, without copying: the result's arrays are views.
 *
 * Whoever calls keeps the segment's memory untouched for as long as it uses the batch. The schema is the agreed one
 * (`schemaFromCanonical`), never a file's. Counts, lengths, offsets, null counts and dictionary indices are checked at
 * every decode: digests prove agreement, not sanity.
 */
import { DataType, Field, makeData, MetadataVersion, RecordBatch, Schema, Struct, Vector } from "apache-arrow";
import { VectorLoader } from "apache-arrow/visitor/vectorloader";
import { ShardpactError, invariant } from "../model/errors.ts";
import type { SegmentIndex } from "../merkle/segment-index.ts";
import { layoutColumnsOf } from "./arrow-columns.ts";
import { createContentChecker, type IndexMaxima } from "./content.ts";
import { FlatError } from "./flat.ts";
import { layoutBatch, LayoutError, type BatchLayout } from "./layout.ts";
import { metadataLength, parseBatchHeader, type BatchHeader } from "./message.ts";
import { textReader } from "./texts.ts";

/** Values of each dictionary column, by the column's id in the canonical schema. */
export type Dictionaries = ReadonlyMap<number, Vector>;

/**
 * The record batch in a verified batch segment; views into `segment`, which must start at a multiple of 8.
 * @param rows what the segment index says; another count is refused
 * @throws `shard_malformed`
 */
export function decodeBatch(
  schema: Schema,
  dictionaries: Dictionaries,
  segment: Uint8Array,
  rows?: number,
): RecordBatch {
  const { header, body, layout } = openSegment(segment, "batch", schema.fields, dictionaries);
  if (rows !== undefined && header.rows !== rows) throw refused(`${header.rows} rows where ${rows} were agreed`);
  const children = loader(body, layout, header, dictionaries).visitMany(
    schema.fields.map((field) => field.type as DataType),
  );
  return new RecordBatch(schema, makeData({ type: new Struct(schema.fields), length: header.rows, children }));
}

/**
 * The record batch that a header and a body make, when they don't lie together as they do in a file: a slice of a batch.
 * `fields` are its columns; views into `body`, which must start at a multiple of 8. @throws `shard_malformed`
 */
export function decodeSlice(
  fields: readonly Field[],
  dictionaries: Dictionaries,
  header: BatchHeader,
  body: Uint8Array,
): RecordBatch {
  const layout = checkBody(fields, dictionaries, header, body);
  const children = loader(body, layout, header, dictionaries).visitMany(fields.map((f) => f.type as DataType));
  const schema = new Schema([...fields]);
  return new RecordBatch(schema, makeData({ type: new Struct([...fields]), length: header.rows, children }));
}

/**
 * The dictionaries of one shard, from its verified dictionary segments in file order; views into them.
 * @param schema as of `schemaFromCanonical`
 * @throws `shard_malformed`
 */
export function decodeDictionaries(
  schema: Schema,
  index: Pick<SegmentIndex, "dictionaryIds">,
  segments: Iterable<Uint8Array>,
): Dictionaries {
  const dictionaries = new Map<number, Vector>();
  for (const segment of segments) {
    const fileId = headerOf(segment, "dictionary").dictionaryId;
    index.dictionaryIds.forEach((id, column) => {
      const type = schema.dictionaries.get(column);
      if (id !== fileId || !type) return;
      const { header, body, layout } = openSegment(segment, "dictionary", [new Field("values", type, true)], new Map());
      const data = loader(body, layout, header, new Map()).visitMany([type]);
      dictionaries.set(column, new Vector(data).memoize());
    });
  }
  return dictionaries;
}

/**
 * Agreed class index of each value of a shard's dictionary; −1 for null and for values outside the vocabulary.
 * Indices of per-shard dictionaries mean nothing elsewhere: only what this table makes of them may reach a tensor.
 */
export function vocabularyTable(dictionary: Vector, classes: readonly string[]): Int32Array {
  const places = new Map(classes.map((value, i) => [value, i]));
  const table = new Int32Array(dictionary.length);
  const [data] = dictionary.data;
  if (!data) return table;
  const textOf = textReader("dictionary", data);
  for (let i = 0; i < table.length; i += 1) table[i] = data.getValid(i) ? (places.get(textOf(i)) ?? -1) : -1;
  return table;
}

/** The header of a verified segment: for readers that fetch single columns by their buffers' places. @throws `shard_malformed` */
export function headerOf(segment: Uint8Array, kind: BatchHeader["kind"]): BatchHeader {
  const length = metadataLength(segment);
  if (length === null || length > segment.byteLength) throw refused("no message where the segment starts");
  try {
    const header = parseBatchHeader(segment.subarray(0, length));
    if (header.kind === kind) return header;
  } catch (error) {
    if (error instanceof FlatError) throw refused(error.message);
    throw error;
  }
  throw refused(`a segment that is not a ${kind}`);
}

/**
 * Nodes and buffers of a verified batch segment whose metadata is at hand but not its whole body; `bodyAt` is where the
 * body starts in the segment. Buffers follow arrow's order; they are cut to what the rows need. @throws `shard_malformed`
 */
export function layoutOf(
  schema: Schema,
  segment: Uint8Array,
): { header: BatchHeader; layout: BatchLayout; bodyAt: number } {
  const header = headerOf(segment, "batch");
  try {
    return {
      header,
      layout: layoutBatch(layoutColumnsOf(schema.fields), header),
      bodyAt: metadataLength(segment) ?? 0,
    };
  } catch (error) {
    if (error instanceof LayoutError) throw refused(error.message);
    throw error;
  }
}

function openSegment(segment: Uint8Array, kind: BatchHeader["kind"], fields: readonly Field[], known: Dictionaries) {
  invariant(segment.byteOffset % 8 === 0, "segments are decoded from memory aligned to 8 bytes");
  const header = headerOf(segment, kind);
  const bodyAt = metadataLength(segment) ?? 0;
  const body = segment.subarray(bodyAt, bodyAt + header.bodyBytes);
  if (body.byteLength !== header.bodyBytes)
    throw refused(`a body of ${header.bodyBytes} bytes does not fit the segment`);
  return { header, body, layout: checkBody(fields, known, header, body) };
}

function checkBody(fields: readonly Field[], known: Dictionaries, header: BatchHeader, body: Uint8Array): BatchLayout {
  try {
    const layout = layoutBatch(layoutColumnsOf(fields), header);
    const maxima: IndexMaxima = new Map();
    createContentChecker(layout.checks, maxima).feed(body);
    for (const [dictionary, max] of maxima) {
      const values = known.get(dictionary)?.length ?? 0;
      if (max >= values) throw new LayoutError(`index ${max} into a dictionary of ${values} values`);
    }
    return layout;
  } catch (error) {
    if (error instanceof LayoutError) throw refused(error.message);
    throw error;
  }
}

function loader(body: Uint8Array, layout: BatchLayout, header: BatchHeader, dictionaries: Dictionaries): VectorLoader {
  return new VectorLoader(body, [...layout.nodes], [...layout.buffers], new Map(dictionaries), MetadataVersion.V5, [
    ...header.variadicCounts,
  ]);
}

function refused(reason: string): ShardpactError {
  return new ShardpactError(
    "shard_malformed",
    `an Arrow message that was agreed on does not hold together: ${reason}`,
    {
      details: { reason },
      hint: "Publish the shard again with shardpact, which refuses such files.",
    },
  );
}
