/**
 * Owns reading Arrow files as rows, for what is written anew: splits by a key, a shuffle.
 *
 * They are checked as at any publish (`scanShard`) before a row of theirs is believed.
 */
import { open } from "node:fs/promises";
import type { DataType, RecordBatch, Schema } from "apache-arrow";
import { ShardpactError } from "../model/errors.ts";
import { decodeSegmentIndex } from "../merkle/segment-index.ts";
import { decodeBatch, decodeDictionaries } from "../shards/decode.ts";
import { scanShard } from "../shards/scan.ts";
import { firstSchemaDifference, schemaFromCanonical } from "../shards/schema.ts";
import type { SourceFile } from "../shards/sources.ts";
import { createColumnBuilder } from "./column-builder.ts";
import { arrowRows, plainSchema, type RowChunk, type RowReader } from "./row-source.ts";

/** @throws ShardpactError `shard_malformed`, `schema_differs`, `type_unsupported` naming the column */
export async function openArrow(files: readonly SourceFile[], signal?: AbortSignal): Promise<RowReader> {
  const [first] = files;
  if (!first) throw new ShardpactError("invalid_argument", "there is no file to read");
  const aborting = signal ? { signal } : {};
  const canonical = (await scanShard(first.path, aborting)).schema;
  const schema = schemaFromCanonical(canonical);
  const written = plainSchema(schema);
  for (const { name, type } of written.fields) createColumnBuilder(type as DataType, name);
  return {
    schema: written,
    rowsTotal: null,
    async *chunks() {
      for (const file of files) yield* chunksOf(file, canonical, schema, aborting);
    },
    close: () => undefined,
  };
}

async function* chunksOf(
  file: SourceFile,
  canonical: Uint8Array,
  schema: Schema,
  aborting: { readonly signal?: AbortSignal },
): AsyncGenerator<RowChunk> {
  const scanned = await scanShard(file.path, aborting);
  const difference = firstSchemaDifference(canonical, scanned.schema);
  if (difference) {
    throw new ShardpactError(
      "schema_differs",
      `${file.name} differs in '${difference.field}' from the files before it`,
      {
        details: { ...difference, file: file.path },
      },
    );
  }
  const index = decodeSegmentIndex(scanned.index);
  await using handle = await open(file.path, "r");
  const read = async (offset: number, bytes: number): Promise<Uint8Array> => {
    const out = new Uint8Array(bytes);
    await handle.read(out, 0, bytes, offset);
    return out;
  };
  const coded: Uint8Array[] = [];
  for (const { kind, offset, bytes } of index.segments)
    if (kind === "dictionary") coded.push(await read(offset, bytes));
  const dictionaries = decodeDictionaries(schema, index, coded);
  for (const { kind, offset, bytes, rows } of index.segments) {
    if (kind !== "batch") continue;
    yield chunkOf(decodeBatch(schema, dictionaries, await read(offset, bytes), rows));
  }
}

export function chunkOf(batch: RecordBatch): RowChunk {
  return { rows: batch.numRows, columns: batch.data.children.map(arrowRows) };
}
