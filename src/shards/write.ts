/**
 * Owns writing record batches as shards: uncompressed Arrow IPC files that every reader takes.
 *
 * Differs from arrow-js's writer in what other readers need: the schema message stands in front (stream readers look for
 * it), each dictionary is written once, whole and unified over the file, and a batch of another schema is an error
 * where arrow-js drops it without a word. A shard's batches are held until it is full, as its dictionary comes first.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Data, DataType, makeData, RecordBatch, RecordBatchFileWriter, Struct, vectorFromArray } from "apache-arrow";
import type { Schema, Vector } from "apache-arrow";
import { Message } from "apache-arrow/ipc/metadata/message";
import { truncateBitmap } from "apache-arrow/util/bit";
import { ShardpactError, invariant } from "../model/errors.ts";
import { canonicalSchema, firstSchemaDifference, schemaFromCanonical } from "./schema.ts";
import { isText, textReader } from "./texts.ts";

const SHARD_BYTES = 64 * 1024 * 1024;

export interface WriteShardsOptions {
  readonly folder: string;
  /** A shard is full once its batches take so many bytes; batches are never cut. Default 64 MiB. */
  readonly shardBytes?: number;
  readonly signal?: AbortSignal;
}

export interface WrittenShard {
  readonly path: string;
  readonly rows: number;
}

/** Takes batches one by one, and writes a shard whenever one is full. */
export interface ShardWriter {
  /** @throws `schema_differs`, `type_unsupported`, `limit_exceeded` (a dictionary outgrew its index type) */
  add(batch: RecordBatch): Promise<void>;
  /** Writes what is left; resolves with all shards. */
  finish(): Promise<readonly WrittenShard[]>;
}

/** Writes `part-00000.arrow`, `part-00001.arrow`, … into `folder` (which is there). */
export function createShardWriter({
  folder,
  shardBytes = SHARD_BYTES,
}: Omit<WriteShardsOptions, "signal">): ShardWriter {
  const written: WrittenShard[] = [];
  let canonical: Uint8Array | null = null;
  let held: RecordBatch[] = [];
  let heldBytes = 0;

  async function flush(): Promise<void> {
    if (canonical === null || held.length === 0) return;
    const path = join(folder, `part-${String(written.length).padStart(5, "0")}.arrow`);
    const rows = held.reduce((sum, batch) => sum + batch.numRows, 0);
    await writeFile(path, encodeShard(schemaFromCanonical(canonical), held), { flag: "wx" });
    written.push({ path, rows });
    [held, heldBytes] = [[], 0];
  }

  return {
    async add(batch) {
      const own = canonicalSchema(batch.schema);
      canonical ??= own;
      const difference = firstSchemaDifference(canonical, own);
      if (difference) {
        const { field, a, b } = difference;
        throw new ShardpactError("schema_differs", `a record batch differs in '${field}': ${a} before, ${b} now`, {
          details: { ...difference },
        });
      }
      if (batch.numRows === 0) return;
      held.push(batch);
      heldBytes += batch.data.byteLength;
      if (heldBytes >= shardBytes) await flush();
    },
    async finish() {
      await flush();
      return written;
    },
  };
}

/** Writes all batches. @throws as `ShardWriter.add`, `aborted` */
export async function writeShards(
  batches: AsyncIterable<RecordBatch> | Iterable<RecordBatch>,
  { signal, ...options }: WriteShardsOptions,
): Promise<readonly WrittenShard[]> {
  const writer = createShardWriter(options);
  for await (const batch of batches) {
    if (signal?.aborted) throw new ShardpactError("aborted", "writing shards was aborted", { cause: signal.reason });
    await writer.add(batch);
  }
  return writer.finish();
}

/** One Arrow IPC file of batches whose canonical schema is that of `schema`. */
export function encodeShard(schema: Schema, batches: readonly RecordBatch[]): Uint8Array {
  const unified = unifyDictionaries(schema, batches);
  const writer = new ShardFileWriter();
  writer.reset(undefined, schema);
  for (const batch of unified) writer.write(batch);
  invariant(writer.batchesWritten === batches.length, "arrow-js wrote every batch");
  writer.finish();
  return writer.toUint8Array(true);
}

class ShardFileWriter extends RecordBatchFileWriter {
  get batchesWritten(): number {
    return this._recordBatchBlocks.length;
  }

  protected override _writeSchema(schema: Schema): this {
    return super._writeSchema(schema)._writeMessage(Message.from(schema));
  }
}

/** Rewrites batches onto one schema with one dictionary for each dictionary column. */
function unifyDictionaries(schema: Schema, batches: readonly RecordBatch[]): readonly RecordBatch[] {
  const struct = new Struct(schema.fields);
  const unions = new Map<number, DictionaryUnion>();
  const remapped = batches.map((batch) =>
    batch.data.children.map((data, i) => remap(data, struct.children[i]?.type, unions)),
  );
  const vectors = new Map([...unions].map(([id, union]) => [id, union.vector()]));
  return remapped.map((children, i) => {
    const withValues = children.map((data) => attach(data, vectors));
    const length = batches[i]?.numRows ?? 0;
    return new RecordBatch(schema, makeData({ type: struct, length, nullCount: 0, children: withValues }));
  });
}

/** The same values under the schema's type, indices counted in the unified dictionary. */
function remap(data: Data, type: DataType | undefined, unions: Map<number, DictionaryUnion>): Data {
  invariant(type, "equal canonical schemas have equal children");
  const buffers = { 0: data.valueOffsets, 1: data.values, 2: data.nullBitmap, 3: data.typeIds };
  if (DataType.isDictionary(type)) {
    invariant(data.dictionary, "a dictionary column has a dictionary");
    const union = unions.get(type.id) ?? new DictionaryUnion(type.dictionary, type.indices.ArrayType);
    unions.set(type.id, union);
    return new Data(type, data.offset, data.length, data.nullCount, { ...buffers, 1: union.add(data) });
  }
  const children = data.children.map((child, i) =>
    remap(child, type.children?.[i]?.type as DataType | undefined, unions),
  );
  if (DataType.isUtf8View(type) || DataType.isBinaryView(type)) {
    return new Data(type, data.offset, data.length, data.nullCount, buffers, children, undefined, data.variadicBuffers);
  }
  return new Data(type, data.offset, data.length, data.nullCount, buffers, children);
}

function attach(data: Data, vectors: ReadonlyMap<number, Vector>): Data {
  if (hasViews(data.type)) return attachViews(data, vectors);
  const buffers = { 0: data.valueOffsets, 1: data.values, 2: data.nullBitmap, 3: data.typeIds };
  const children = data.children.map((child) => attach(child, vectors));
  const values = DataType.isDictionary(data.type) ? vectors.get(data.type.id) : undefined;
  return new Data(data.type, data.offset, data.length, data.nullCount, buffers, children, values);
}

function hasViews(type: DataType): boolean {
  const children = (type.children ?? []) as readonly { readonly type: DataType }[];
  return DataType.isUtf8View(type) || DataType.isBinaryView(type) || children.some((child) => hasViews(child.type));
}

/** arrow-js's writer cuts the views of a slice once more: they and the lists around them are made to begin at 0. */
function attachViews(data: Data, vectors: ReadonlyMap<number, Vector>): Data {
  const { type, offset, length, nullCount, values, typeIds, variadicBuffers } = data;
  if (DataType.isUtf8View(type) || DataType.isBinaryView(type)) {
    const validity = nullCount > 0 ? truncateBitmap(offset, length, data.nullBitmap) : undefined;
    return new Data(type, 0, length, nullCount, { 1: values, 2: validity } as never, [], undefined, variadicBuffers);
  }
  const given = data.valueOffsets as Int32Array | BigInt64Array | undefined;
  const [begin, end] = [given?.[0] ?? 0, given?.[length] ?? 0];
  const isList = !DataType.isUnion(type) && given !== undefined && given.length > length;
  const below = isList
    ? data.children.map((child) => child.slice(Number(begin), Number(end) - Number(begin)))
    : data.children;
  const offsets = isList ? (given as Int32Array).map((at) => (at as never) - (begin as never)) : given;
  const children = below.map((child) => attach(child, vectors));
  return new Data(
    type,
    offset,
    length,
    nullCount,
    { 0: offsets, 1: values, 2: data.nullBitmap, 3: typeIds } as never,
    children,
  );
}

type IndexArray = Int8Array | Int16Array | Int32Array | Uint8Array | Uint16Array | Uint32Array;

class DictionaryUnion {
  readonly #type: DataType;
  readonly #indices: new (length: number) => IndexArray;
  readonly #places = new Map<unknown, number>();
  constructor(type: DataType, indices: unknown) {
    if (type.children?.length) {
      throw new ShardpactError("type_unsupported", `a dictionary of ${String(type)} values cannot be written`);
    }
    this.#type = type;
    this.#indices = indices as new (length: number) => IndexArray;
  }

  /** Takes over the dictionary of `data`; its indices in the union. */
  add(data: Data): IndexArray {
    const own: Vector = data.dictionary as Vector;
    const table = valuesOf(own).map((value) => this.#place(value));
    const from = data.values as ArrayLike<number>;
    const out = new this.#indices(data.length);
    for (let i = 0; i < data.length; i += 1) out[i] = data.getValid(i) ? (table[Number(from[i])] ?? 0) : 0;
    const last = this.#places.size - 1;
    if (new this.#indices(1).fill(last)[0] !== last) {
      throw new ShardpactError("limit_exceeded", `${last + 1} dictionary values do not fit the column's index type`, {
        hint: "Use a wider index type, such as Int32.",
      });
    }
    return out;
  }

  vector(): Vector {
    return vectorFromArray([...this.#places.keys()], this.#type);
  }

  #place(value: unknown): number {
    const known = this.#places.get(value);
    if (known !== undefined) return known;
    this.#places.set(value, this.#places.size);
    return this.#places.size - 1;
  }
}

/** Texts as their bytes say: arrow-js would take two that differ by a byte order mark for one. */
function valuesOf(dictionary: Vector): readonly unknown[] {
  if (!isText(dictionary.type as DataType)) return Array.from(dictionary);
  return dictionary.data.flatMap((data) => {
    const textOf = textReader("dictionary", data);
    return Array.from({ length: data.length }, (_, i) => (data.getValid(i) ? textOf(i) : null));
  });
}
