/**
 * What arrow-js makes of a changed file, for what a loader delivered of it to be held against.
 */
import { DataType, type RecordBatch, type RecordBatchFileReader, RecordBatchReader } from "apache-arrow";
import type { ConfirmedVersion } from "../../../src/client/types.ts";
import type { Columns } from "../../../src/loader/batch.ts";
import { headerOf } from "../../../src/shards/decode.ts";
import { schemaFromCanonical } from "../../../src/shards/schema.ts";
import { cellsIn, type Cell } from "./arrow-data.ts";
import type { Mutant, Specimen } from "./hostile.ts";
import type { ImagePool } from "./image-pool.ts";
import type { RandomColumn } from "./random-columns.ts";
import { firstDifference, type WantedColumn } from "./slow-loader.ts";

/** What arrow-js reads in the changed file, cell by cell, as far as anybody looks. */
export function referenceOf(
  mutant: Mutant,
  { columns, specimen }: { readonly columns: readonly RandomColumn[]; readonly specimen: Specimen },
  version: ConfirmedVersion,
): WantedColumn[] {
  const file = RecordBatchReader.from(restored(mutant, specimen, columns)) as RecordBatchFileReader;
  file.open();
  const firsts: number[] = [];
  let rows = 0;
  for (const { kind, rows: count } of mutant.segments) {
    if (kind !== "batch") continue;
    firsts.push(rows);
    rows += count;
  }
  return columns.map(({ slow, shape, dtype }) => {
    const classes = version.classes[slow.name] ?? [];
    const readers: ((row: number) => Cell)[] = [];
    const cellOf = (row: number): Cell => {
      const b = firsts.findLastIndex((first) => first <= row);
      const reader = (readers[b] ??= cellsIn(file.readRecordBatch(b) as RecordBatch, slow.name));
      return reader(row - (firsts[b] as number));
    };
    const cells = new Proxy<Cell[]>([], { get: (_, key) => cellOf(Number(key)) });
    return {
      slow: { ...slow, classes, pixelsOf: knownPixels(slow.pixelsOf ?? new Map()) },
      shape: shape.map((side) => (side === -1 ? classes.length : side)),
      dtype,
      cells,
    };
  });
}

/** A changed image may decode to pixels that nobody knows: then there is nothing to compare with. */
class UnknownPixels extends Error {}

export function differenceOf(got: Columns, expected: () => Columns): string | null {
  try {
    return firstDifference(got, expected());
  } catch (error) {
    if (error instanceof UnknownPixels) return null;
    throw error;
  }
}

function knownPixels(pixelsOf: ImagePool["pixelsOf"]): ImagePool["pixelsOf"] {
  const get = (hex: string): readonly number[] => {
    const pixels = pixelsOf.get(hex);
    if (!pixels) throw new UnknownPixels();
    return pixels;
  };
  return { get } as unknown as ImagePool["pixelsOf"];
}

/**
 * The file as arrow-js can open it: with zeros where a segment lost its end, as it finds segments by the places in its footer; with the
 * dictionaries as they were that are of no column that is read (any more), as it reads them all.
 */
function restored(
  { bytes, segments }: Mutant,
  { version, shards: [shard] }: Specimen,
  columns: readonly RandomColumn[],
): Uint8Array {
  if (!shard) return bytes;
  const { fields } = schemaFromCanonical(version.schema);
  const isRead = (name: string): boolean => columns.some(({ field }) => field.name === name);
  const read = fields.filter(({ name }) => isRead(name)).flatMap(({ type }) => dictionariesIn(type as DataType));
  const idsRead = new Set(read.map((column) => shard.index.dictionaryIds[column]));
  const out = new Uint8Array(shard.bytes.byteLength);
  segments.forEach((segment, s) => {
    const own = shard.index.segments[s];
    const changed = bytes.subarray(segment.offset, segment.offset + segment.bytes);
    const isKept = segment.kind === "dictionary" && (idsRead.size === 0 || isOfOthers(changed, idsRead));
    out.set(isKept && own ? shard.bytes.subarray(own.offset, own.offset + own.bytes) : changed, own?.offset);
  });
  return out;
}

/** Which dictionaries of the schema a type has. */
function dictionariesIn(type: DataType): number[] {
  if (DataType.isDictionary(type)) return [type.id];
  return (type.children ?? []).flatMap((child) => dictionariesIn(child.type as DataType));
}

function isOfOthers(segment: Uint8Array, idsRead: ReadonlySet<number | undefined>): boolean {
  try {
    return !idsRead.has(headerOf(segment, "dictionary").dictionaryId);
  } catch {
    return false; // arrow-js sees what a loader saw
  }
}
