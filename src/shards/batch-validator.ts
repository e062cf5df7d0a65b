/**
 * Owns checking the batches and dictionaries of one file as their bytes go by.
 *
 * A dictionary may follow the batches that use it, so the largest index that each batch uses is kept until all
 * dictionaries are known.
 */
import { bytesEqual } from "../model/bytes.ts";
import { invariant } from "../model/errors.ts";
import { createContentChecker, type ContentChecker, type IndexMaxima } from "./content.ts";
import type { Block, Frame, ReadAt } from "./frame.ts";
import { type ContentCheck, layoutBatch } from "./layout.ts";
import { dictionaryValues, type LayoutColumn, layoutColumns } from "./layout-columns.ts";
import { asMalformed, malformed } from "./malformed.ts";
import { type BatchHeader, metadataLength, parseBatchHeader } from "./message.ts";
import { dictionaryFields } from "./schema-spec.ts";

export interface BatchValidator {
  /**
   * The next bytes of a block's segment, from byte `from` of it on. A promise only when metadata that goes beyond them has to be read.
   * @throws `shard_malformed`
   */
  feed(segment: number, offset: number, from: number, bytes: Uint8Array): Promise<void> | null;
  /** Rows or values of each segment by its position. @throws `shard_malformed` */
  finish(): (segment: number) => number;
}

interface OpenBlock {
  readonly block: Block;
  readonly checker: ContentChecker;
  readonly maxima: IndexMaxima;
}

/** Batches of as many rows of columns of fixed width have the same metadata, byte for byte: it is parsed once. */
interface KnownBatch {
  readonly metadata: Uint8Array;
  readonly header: BatchHeader;
  readonly checks: readonly ContentCheck[];
}

export function createBatchValidator(file: string, frame: Frame, readAt: ReadAt): BatchValidator {
  const columns = layoutColumns(frame.fields);
  const dictionaries = dictionaryFields(frame.fields);
  const firstBlock = frame.segments.length - frame.blocks.length - 1;
  const rows = new Map<number, number>();
  const valuesOf = new Map<number, number>(); // by dictionary id in the file
  const used = new Map<number, { readonly index: number; readonly offset: number }>(); // by id in the schema
  let lastBatch: KnownBatch | null = null;
  let current: OpenBlock | null = null;

  function openBlock(block: Block, segment: number, metadata: Uint8Array): OpenBlock {
    const { kind, offset, metadataBytes, bodyBytes } = block;
    if (metadataLength(metadata) !== metadataBytes) {
      throw malformed(file, offset, "no message of the length that the footer says");
    }
    const known = kind === "batch" && lastBatch && bytesEqual(lastBatch.metadata, metadata) ? lastBatch : null;
    const header = known?.header ?? parseBatchHeader(metadata);
    if (header.kind !== kind) throw malformed(file, offset, `a ${header.kind} where the footer lists a ${kind}`);
    if (header.bodyBytes !== bodyBytes) {
      throw malformed(file, offset, `a body of ${header.bodyBytes} bytes where the footer says ${bodyBytes}`);
    }
    rows.set(segment, header.rows);
    const parts = kind === "batch" ? columns : valueColumns(offset, header.dictionaryId, header.rows);
    const checks = known?.checks ?? layoutBatch(parts, header).checks;
    if (kind === "batch" && !known) lastBatch = { metadata: metadata.slice(), header, checks };
    const maxima: IndexMaxima = new Map();
    return { block, checker: createContentChecker(checks, maxima), maxima };
  }

  /** The column of a dictionary's values. */
  function valueColumns(offset: number, fileId: number, values: number): readonly LayoutColumn[] {
    const field = dictionaries[frame.dictionaryIds.indexOf(fileId)];
    if (!field) throw malformed(file, offset, `a dictionary (id ${fileId}) of no column`);
    if (valuesOf.has(fileId)) throw malformed(file, offset, `a second dictionary with id ${fileId}`);
    valuesOf.set(fileId, values);
    return [dictionaryValues(field)];
  }

  function closeBlock({ block, maxima }: OpenBlock): void {
    for (const [dictionary, index] of maxima) {
      if (index > (used.get(dictionary)?.index ?? -1)) used.set(dictionary, { index, offset: block.offset });
    }
  }

  /** Bytes of the open block, from byte `from` of its segment on. */
  function feedOpen(from: number, bytes: Uint8Array): void {
    invariant(current, "a segment is fed from its first byte on");
    const { metadataBytes, bodyBytes } = current.block;
    const bodyFrom = Math.min(Math.max(metadataBytes - from, 0), bytes.byteLength);
    const bodyTo = Math.min(metadataBytes + bodyBytes - from, bytes.byteLength);
    if (bodyTo > bodyFrom) current.checker.feed(bytes.subarray(bodyFrom, bodyTo));
    if (from + bytes.byteLength >= metadataBytes + bodyBytes) closeBlock(current);
  }

  async function feedLong(block: Block, segment: number, bytes: Uint8Array): Promise<void> {
    try {
      current = openBlock(block, segment, await readAt(block.offset, block.metadataBytes));
      feedOpen(0, bytes);
    } catch (error) {
      throw asMalformed(error, file, block.offset);
    }
  }

  return {
    feed(segment, offset, from, bytes) {
      try {
        if (from === 0) {
          const block = frame.blocks[segment - firstBlock];
          invariant(block, "a batch or dictionary segment is a block");
          if (block.metadataBytes > bytes.byteLength) return feedLong(block, segment, bytes);
          current = openBlock(block, segment, bytes.subarray(0, block.metadataBytes));
        }
        feedOpen(from, bytes);
        return null;
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
