/**
 * Owns checking the batches and dictionaries of one file as their bytes go by.
 *
 * A dictionary may follow the batches that use it, so the largest index that each batch uses is kept until all
 * dictionaries are known.
 */
import { Field, type DataType } from "apache-arrow";
import { invariant } from "../model/errors.ts";
import { createContentChecker, type ContentChecker, type IndexMaxima } from "./content.ts";
import type { Block, Frame, ReadAt } from "./frame.ts";
import { layoutBatch } from "./layout.ts";
import { asMalformed, malformed } from "./malformed.ts";
import { metadataLength, parseBatchHeader } from "./message.ts";
import { schemaFromCanonical } from "./schema.ts";

export interface BatchValidator {
  /** The next bytes of a block's segment, from byte `from` of it on. @throws `shard_malformed` */
  feed(segment: number, offset: number, from: number, bytes: Uint8Array): Promise<void>;
  /** Rows or values of each segment by its position. @throws `shard_malformed` */
  finish(): (segment: number) => number;
}

interface OpenBlock {
  readonly block: Block;
  readonly checker: ContentChecker;
  readonly maxima: IndexMaxima;
}

export function createBatchValidator(file: string, frame: Frame, readAt: ReadAt): BatchValidator {
  const schema = schemaFromCanonical(frame.schema);
  const firstBlock = frame.segments.length - frame.blocks.length - 1;
  const rows = new Map<number, number>();
  const valuesOf = new Map<number, number>(); // by dictionary id in the file
  const used = new Map<number, { readonly index: number; readonly offset: number }>(); // by id in the schema
  let current: OpenBlock | null = null;

  async function openBlock(segment: number, bytes: Uint8Array): Promise<OpenBlock> {
    const block = frame.blocks[segment - firstBlock];
    invariant(block, "a batch or dictionary segment is a block");
    const { kind, offset, metadataBytes, bodyBytes } = block;
    const metadata =
      metadataBytes <= bytes.byteLength ? bytes.subarray(0, metadataBytes) : await readAt(offset, metadataBytes);
    if (metadataLength(metadata) !== metadataBytes) {
      throw malformed(file, offset, "no message of the length that the footer says");
    }
    const header = parseBatchHeader(metadata);
    if (header.kind !== kind) throw malformed(file, offset, `a ${header.kind} where the footer lists a ${kind}`);
    if (header.bodyBytes !== bodyBytes) {
      throw malformed(file, offset, `a body of ${header.bodyBytes} bytes where the footer says ${bodyBytes}`);
    }
    rows.set(segment, header.rows);
    const fields = kind === "batch" ? schema.fields : valueFields(offset, header.dictionaryId, header.rows);
    const maxima: IndexMaxima = new Map();
    return { block, checker: createContentChecker(layoutBatch(fields, header).checks, maxima), maxima };
  }

  /** The column of a dictionary's values. */
  function valueFields(offset: number, fileId: number, values: number): readonly Field[] {
    const type: DataType | undefined = schema.dictionaries.get(frame.dictionaryIds.indexOf(fileId));
    if (!type) throw malformed(file, offset, `a dictionary (id ${fileId}) of no column`);
    if (valuesOf.has(fileId)) throw malformed(file, offset, `a second dictionary with id ${fileId}`);
    valuesOf.set(fileId, values);
    return [new Field("values", type, true)];
  }

  function closeBlock({ block, maxima }: OpenBlock): void {
    for (const [dictionary, index] of maxima) {
      if (index > (used.get(dictionary)?.index ?? -1)) used.set(dictionary, { index, offset: block.offset });
    }
  }

  return {
    async feed(segment, offset, from, bytes) {
      try {
        if (from === 0) current = await openBlock(segment, bytes);
        invariant(current, "a segment is fed from its first byte on");
        const { metadataBytes, bodyBytes } = current.block;
        const bodyFrom = Math.min(Math.max(metadataBytes - from, 0), bytes.byteLength);
        const bodyTo = Math.min(metadataBytes + bodyBytes - from, bytes.byteLength);
        if (bodyTo > bodyFrom) current.checker.feed(bytes.subarray(bodyFrom, bodyTo));
        if (from + bytes.byteLength >= metadataBytes + bodyBytes) closeBlock(current);
      } catch (error) {
        throw asMalformed(error, file, offset);
      }
    },

    finish() {
      for (const [dictionary, { index, offset }] of used) {
        const values = valuesOf.get(frame.dictionaryIds[dictionary] ?? -1) ?? 0;
        if (index >= values) throw malformed(file, offset, `index ${index} into a dictionary of ${values} values`);
      }
      const total = frame.segments.reduce((sum, { kind }, i) => (kind === "batch" ? sum + (rows.get(i) ?? 0) : sum), 0);
      if (total === 0) throw malformed(file, 0, "it holds no rows", "Leave empty files out.");
      return (segment) => rows.get(segment) ?? 0;
    },
  };
}
