/**
 * Owns reading a snapshot file: its header, its rows, its chunks.
 *
 * The bytes of a table are hashed as they are read, every time: rows that were handed out before a wrong digest was
 * found came with the promise that it will be, so whoever uses them must be able to take everything back.
 */
import { Hasher } from "../../merkle/hash.ts";
import { formatDigest } from "../../model/bytes.ts";
import { invariant, isShardpactError, ShardpactError } from "../../model/errors.ts";
import type { Files, OpenFile, SnapshotInfo, SnapshotSource, SnapshotTableInfo } from "../port.ts";
import { decodeTable, type DecodedRow } from "./decode.ts";
import { nodeFiles } from "./files.ts";
import { damagedSnapshot, decodeHeader, headerLength, PREFIX_BYTES, TRAILER_BYTES } from "./header.ts";
import { SNAPSHOT_TABLES, type SnapshotTable } from "./tables.ts";
import { asFileError } from "./write.ts";

const READ_BYTES = 1024 * 1024;

export interface SnapshotFile extends SnapshotSource {
  /** Reads and hashes all streams, parses none. @throws `damaged` */
  checkBytes(signal?: AbortSignal): Promise<void>;
  /** Rows of a table in the order of their keys. @throws `damaged`, also after the last row */
  rows(table: SnapshotTable): AsyncIterable<readonly DecodedRow[]>;
}

/** Opens the file and checks its header. @throws `damaged`, `upgrade_required`, `store_failed` */
export async function openSnapshot(path: string, files: Files = nodeFiles): Promise<SnapshotFile> {
  let handle: OpenFile | null = null;
  try {
    handle = await files.open(path, "r");
    const file = handle;
    const info = await readInfo(path, file);
    const { offsets } = placesOf(info);
    const close = () => file.close();
    const streamOf = (i: number) => readStream(path, file, info.tables[i], offsets[i]);
    return {
      info,
      async checkBytes(signal) {
        for (const i of info.tables.keys()) for await (const _ of streamOf(i)) throwIfAborted(signal);
      },
      rows: (table) => readRows(path, table, streamOf, offsets),
      chunk: (offset, bytesMax) => readChunk(path, file, info, offset, bytesMax),
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await handle?.close();
    throw asFileError(error, path, "reading");
  }
}

async function readInfo(path: string, file: OpenFile): Promise<SnapshotInfo> {
  const size = await file.size();
  const prefix = await readAt(file, 0, Math.min(PREFIX_BYTES, size));
  const headerBytes = headerLength(path, prefix);
  if (size < headerBytes + TRAILER_BYTES) throw damagedSnapshot(path, "file", size, "it is cut off");
  const encoded = await readAt(file, 0, headerBytes);
  return decodeHeader(path, encoded, await readAt(file, size - TRAILER_BYTES, TRAILER_BYTES), size);
}

function placesOf({ bytes, tables }: SnapshotInfo): { readonly offsets: readonly number[] } {
  let offset = bytes - TRAILER_BYTES - tables.reduce((sum, table) => sum + table.bytes, 0);
  const offsets: number[] = [];
  for (const table of tables) {
    offsets.push(offset);
    offset += table.bytes;
  }
  return { offsets };
}

async function* readStream(
  path: string,
  file: OpenFile,
  table: SnapshotTableInfo | undefined,
  offset: number | undefined,
): AsyncGenerator<Uint8Array> {
  invariant(table && offset !== undefined, "the header names every table");
  const hasher = new Hasher();
  for (let at = 0; at < table.bytes;) {
    const chunk = await readFully(path, file, offset + at, Math.min(READ_BYTES, table.bytes - at));
    hasher.update(chunk);
    at += chunk.byteLength;
    yield chunk;
  }
  if (formatDigest(hasher.digest()) === table.digest) return;
  throw damagedSnapshot(path, table.name, offset, `its ${table.bytes} bytes are not what was written`);
}

async function* readRows(
  path: string,
  table: SnapshotTable,
  streamOf: (i: number) => AsyncGenerator<Uint8Array>,
  offsets: readonly number[],
): AsyncGenerator<readonly DecodedRow[]> {
  const i = SNAPSHOT_TABLES.indexOf(table);
  const stream = streamOf(i);
  try {
    yield* decodeTable(table, stream);
    // The decoder stops at the end mark: the rest, and the digest, are still to be read.
    for await (const _ of stream) throw new Error("bytes follow its end");
  } catch (error) {
    if (isShardpactError(error)) throw error;
    const said = error instanceof Error ? error.message : String(error);
    throw damagedSnapshot(path, table.name, offsets[i] ?? 0, said, error);
  }
}

async function readChunk(
  path: string,
  file: OpenFile,
  { bytes }: SnapshotInfo,
  offset: number,
  bytesMax: number,
): Promise<Uint8Array> {
  if (!Number.isSafeInteger(offset) || offset < 0 || offset > bytes || bytesMax < 1)
    throw new ShardpactError("invalid_argument", `${bytesMax} bytes at ${offset} of a snapshot of ${bytes}`);
  try {
    return await readFully(path, file, offset, Math.min(bytesMax, bytes - offset));
  } catch (error) {
    throw asFileError(error, path, "reading");
  }
}

async function readFully(path: string, file: OpenFile, offset: number, length: number): Promise<Uint8Array> {
  const bytes = await readAt(file, offset, length);
  if (bytes.byteLength < length) throw damagedSnapshot(path, "file", offset + bytes.byteLength, "it is cut off");
  return bytes;
}

/** Fewer bytes only at the end of the file. A buffer of its own: Arrow keeps views. */
async function readAt(file: OpenFile, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let at = 0;
  while (at < length) {
    const bytesRead = await file.read(bytes.subarray(at), offset + at);
    if (bytesRead === 0) break;
    at += bytesRead;
  }
  return bytes.subarray(0, at);
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new ShardpactError("aborted", "the snapshot was aborted", { cause: signal.reason });
}
