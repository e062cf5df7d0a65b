/**
 * Owns the frame of an Arrow IPC file: magic, footer, schema and blocks, found without believing any of them.
 *
 *   "ARROW1" 0 0 · [schema message] · dictionaries and batches · [end mark] · footer · i32 footer bytes · "ARROW1"
 *
 * Blocks must lie inside the file, in order, and apart. They and what is between them become segments that tile the
 * file: a block's segment reaches to the next block, so padding belongs to what it follows; the schema message, if the
 * writer put one (arrow-js does not), reaches to the first block; bytes before the first block that are no schema
 * message (polars writes a bare schema) belong to the head; the footer starts where the last block ends.
 * Source: Arrow columnar format, "IPC File Format"; format/File.fbs.
 */
import type { SegmentPart } from "../merkle/segment-index.ts";
import { LIMITS } from "../model/limits.ts";
import { countAt, FlatBuffer, FlatError } from "./flat.ts";
import { readFlatSchema } from "./flat-schema.ts";
import { asMalformed, malformed } from "./malformed.ts";
import { isSchemaMessage, MESSAGE_PREFIX_BYTES, metadataLength } from "./message.ts";
import type { FieldSpec } from "./schema-form.ts";
import { dictionaryFields, encodeSchema, schemaProblem } from "./schema-spec.ts";

/** Reads exactly `length` bytes at `position`. */
export type ReadAt = (position: number, length: number) => Uint8Array | Promise<Uint8Array>;

export interface Block {
  readonly kind: "dictionary" | "batch";
  readonly offset: number;
  readonly metadataBytes: number;
  readonly bodyBytes: number;
}

export interface Frame {
  /** Canonical schema bytes; whether they make sense is for `checkSchema` to say. */
  readonly schema: Uint8Array;
  readonly fields: readonly FieldSpec[];
  readonly dictionaryIds: readonly number[];
  readonly blocks: readonly Block[];
  /** Segments before their rows are known; blocks are the dictionaries and batches among them, in order. */
  readonly segments: readonly Omit<SegmentPart, "rows">[];
}

const MAGIC = "ARROW1";
const HEAD_BYTES = 8;
/** Footer length and trailing magic. */
const TAIL_BYTES = 10;
const BLOCK_BYTES = 24;
const CONVERT =
  "Convert it: python -c \"import pyarrow as pa; t = pa.ipc.open_stream('in').read_all(); pa.ipc.new_file('out', t.schema).write_table(t)\"";

/** @throws `shard_malformed` */
export async function readFrame(file: string, fileBytes: number, readAt: ReadAt): Promise<Frame> {
  if (fileBytes === 0) throw malformed(file, 0, "the file is empty");
  const head = await readAt(0, Math.min(fileBytes, HEAD_BYTES));
  checkHead(file, head);
  if (fileBytes < HEAD_BYTES + TAIL_BYTES) throw malformed(file, fileBytes, "the file is cut off");
  const tailAt = fileBytes - TAIL_BYTES;
  const tail = await readAt(tailAt, TAIL_BYTES);
  if (ascii(tail.subarray(4)) !== MAGIC)
    throw malformed(file, fileBytes, "it does not end in ARROW1: cut off, or still being written");
  const footerBytes = new DataView(tail.buffer, tail.byteOffset).getInt32(0, true);
  const footerAt = tailAt - footerBytes;
  if (footerBytes <= 0 || footerAt < HEAD_BYTES) throw malformed(file, tailAt, `a footer of ${footerBytes} bytes`);
  if (footerBytes > LIMITS.segmentMetadataBytesMax * 2) throw malformed(file, tailAt, "the footer is too long");
  const footer = await readAt(footerAt, footerBytes);
  try {
    const parsed = parseFooter(footer);
    const blocks = checkBlocks(file, parsed.blocks, footerAt);
    if (!blocks.some(({ kind }) => kind === "batch"))
      throw malformed(file, footerAt, "it holds no rows", "Leave empty files out.");
    const hasSchema = await findSchemaMessage(file, blocks[0]?.offset ?? footerAt, readAt);
    return {
      schema: parsed.schema,
      fields: parsed.fields,
      dictionaryIds: parsed.dictionaryIds,
      blocks,
      segments: tile(blocks, hasSchema, fileBytes),
    };
  } catch (error) {
    throw asMalformed(error, file, footerAt);
  }
}

function checkHead(file: string, head: Uint8Array): void {
  if (ascii(head.subarray(0, 6)) === MAGIC) return;
  if (ascii(head.subarray(0, 4)) === "FEA1")
    throw malformed(file, 0, "it is Feather V1; Arrow IPC files (Feather V2) are read");
  if (ascii(head.subarray(0, 4)) === "PAR1") throw malformed(file, 0, "it is a Parquet file, not an Arrow IPC file");
  if (metadataLength(head) !== null)
    throw malformed(file, 0, "it is an Arrow IPC stream, not an Arrow IPC file", CONVERT);
  throw malformed(file, 0, "it is not an Arrow IPC file (it does not start with ARROW1)");
}

function parseFooter(bytes: Uint8Array): Pick<Frame, "schema" | "fields" | "dictionaryIds" | "blocks"> {
  const footer = new FlatBuffer(bytes).root();
  const schemaTable = footer.table(1);
  if (!schemaTable) throw new FlatError("the footer holds no schema");
  const { fields, metadata, dictionaryIds } = readFlatSchema(schemaTable);
  if (fields.length === 0) throw new FlatError("the schema has no columns");
  const problem = schemaProblem(fields);
  if (problem) throw new FlatError(problem);
  const schema = encodeSchema(fields, metadata);
  if (dictionaryFields(fields).length !== dictionaryIds.length)
    throw new FlatError("dictionary ids and columns differ");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const blocksOf = (slot: number, kind: Block["kind"]): Block[] => {
    const { at, count } = footer.vector(slot, BLOCK_BYTES);
    if (count > LIMITS.segmentsPerShardMax - 3) throw new FlatError(`${count} blocks`);
    return Array.from({ length: count }, (_, i) => {
      const block = at + BLOCK_BYTES * i;
      const offset = countAt(view, block);
      return { kind, offset, metadataBytes: view.getInt32(block + 8, true), bodyBytes: countAt(view, block + 16) };
    });
  };
  return { schema, fields, dictionaryIds, blocks: inFileOrder(blocksOf(2, "dictionary"), blocksOf(3, "batch")) };
}

/** Merges the two lists; each must be in file order itself, because the order of batches is the order of rows. */
function inFileOrder(dictionaries: readonly Block[], batches: readonly Block[]): Block[] {
  for (const list of [dictionaries, batches]) {
    if (list.some((block, i) => i > 0 && block.offset <= (list[i - 1]?.offset ?? 0))) {
      throw new FlatError("the footer lists its blocks out of file order");
    }
  }
  if (dictionaries.length + batches.length > LIMITS.segmentsPerShardMax - 3) throw new FlatError("too many blocks");
  return [...dictionaries, ...batches].sort((a, b) => a.offset - b.offset);
}

function checkBlocks(file: string, blocks: readonly Block[], footerAt: number): readonly Block[] {
  let end = HEAD_BYTES;
  for (const { kind, offset, metadataBytes, bodyBytes } of blocks) {
    if (offset % 8 !== 0 || metadataBytes % 8 !== 0)
      throw malformed(file, offset, `a ${kind} is not aligned to 8 bytes`);
    if (metadataBytes < MESSAGE_PREFIX_BYTES * 2 || metadataBytes > LIMITS.segmentMetadataBytesMax) {
      throw malformed(file, offset, `a ${kind} with ${metadataBytes} bytes of metadata`);
    }
    if (offset < end) throw malformed(file, offset, `a ${kind} overlaps what is before it`);
    end = offset + metadataBytes + bodyBytes;
    if (end > footerAt)
      throw malformed(file, offset, `a ${kind} of ${metadataBytes + bodyBytes} bytes reaches into the footer`);
  }
  return blocks;
}

/** Whether a schema message stands between the head and the first block. */
async function findSchemaMessage(file: string, firstBlock: number, readAt: ReadAt): Promise<boolean> {
  if (firstBlock < HEAD_BYTES + MESSAGE_PREFIX_BYTES) return false;
  const length = metadataLength(await readAt(HEAD_BYTES, MESSAGE_PREFIX_BYTES));
  if (length === null || length > LIMITS.segmentMetadataBytesMax || HEAD_BYTES + length > firstBlock) return false;
  try {
    return isSchemaMessage(await readAt(HEAD_BYTES, length));
  } catch (error) {
    throw asMalformed(error, file, HEAD_BYTES);
  }
}

function tile(blocks: readonly Block[], hasSchema: boolean, fileBytes: number): Frame["segments"] {
  const segments: Omit<SegmentPart, "rows">[] = [];
  const first = blocks[0]?.offset ?? HEAD_BYTES;
  if (!hasSchema) segments.push({ kind: "head", bytes: first });
  else segments.push({ kind: "head", bytes: HEAD_BYTES }, { kind: "schema", bytes: first - HEAD_BYTES });
  blocks.forEach(({ kind, offset, metadataBytes, bodyBytes }, i) => {
    const end = blocks[i + 1]?.offset ?? offset + metadataBytes + bodyBytes;
    segments.push({ kind, bytes: end - offset });
  });
  const end = segments.reduce((sum, segment) => sum + segment.bytes, 0);
  segments.push({ kind: "footer", bytes: fileBytes - end });
  return segments;
}

function ascii(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}
