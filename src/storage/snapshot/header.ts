/**
 * Owns the frame of a snapshot file: what stands before and behind the tables' streams.
 *
 *   "SPSNAP\r\n" · u32le version · u32le bytes of JSON · JSON, padded with spaces · one Arrow IPC stream a table · digest
 *
 * The JSON names every stream's size and digest, and the digest at the end covers all that stands before the streams: so
 * it covers the file. Its length follows from the number of tables, so it can be written when the streams are there.
 */
import { z } from "zod";
import { hashAs } from "../../merkle/hash.ts";
import { bytesEqual, concatBytes, formatDigest, fromHex, parseDigest, toHex, u32le, utf8 } from "../../model/bytes.ts";
import { ShardpactError } from "../../model/errors.ts";
import { canonicalJson } from "../../model/json.ts";
import type { SnapshotInfo, SnapshotTableInfo } from "../port.ts";
import { CATALOG_LEVEL, SNAPSHOT_TABLES } from "./tables.ts";

export const TRAILER_BYTES = 32;
/** Magic, version, length of the JSON. */
export const PREFIX_BYTES = 16;
const MAGIC = utf8("SPSNAP\r\n");
const VERSION = 1;
const FORMAT = "shardpact-snapshot/1";
const JSON_BYTES_MAX = 1024 * 1024;
const ALIGNMENT = 64;

const hash = z.string().regex(/^[0-9a-f]{64}$/);
const digest = z.string().regex(/^b3:[0-9a-f]{64}$/);
const count = z.number().int().nonnegative();
const header = z.strictObject({
  format: z.literal(FORMAT),
  groupId: digest,
  genesis: z.string().regex(/^([0-9a-f]{2})*$/),
  catalogLevel: count,
  index: count.positive(),
  epoch: count,
  chain: hash,
  stateDigest: hash,
  timeMs: count,
  tables: z.array(z.strictObject({ name: z.string(), rows: count, bytes: count, digest })),
});

/** A header before the file's size and digest are known. */
export type SnapshotHeader = Omit<SnapshotInfo, "bytes" | "digest">;

/** Everything before the first stream. */
export function encodeHeader(info: SnapshotHeader): Uint8Array {
  const json = utf8(jsonOf(info));
  const padded = new Uint8Array(headerBytes(info) - PREFIX_BYTES).fill(0x20);
  padded.set(json);
  return concatBytes([MAGIC, u32le(VERSION), u32le(padded.byteLength), padded]);
}

/** Where the first stream starts, whatever the streams' sizes and rows turn out to be. */
export function headerBytes(info: Omit<SnapshotHeader, "tables">): number {
  const largest = Number.MAX_SAFE_INTEGER;
  const tables = SNAPSHOT_TABLES.map(({ name }): SnapshotTableInfo => ({
    name,
    rows: largest,
    bytes: largest,
    digest: `b3:${"0".repeat(64)}`,
  }));
  const bytes = PREFIX_BYTES + utf8(jsonOf({ ...info, tables })).byteLength;
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** What stands at the end of the file. */
export function trailerOf(encodedHeader: Uint8Array): Uint8Array {
  return hashAs("snapshot", encodedHeader);
}

export function infoOf(info: SnapshotHeader, encodedHeader: Uint8Array): SnapshotInfo {
  const streams = info.tables.reduce((sum, { bytes }) => sum + bytes, 0);
  const bytes = encodedHeader.byteLength + streams + TRAILER_BYTES;
  return { ...info, bytes, digest: formatDigest(trailerOf(encodedHeader)) };
}

/** Length of the header that starts so. @throws `damaged`, `upgrade_required` */
export function headerLength(file: string, prefix: Uint8Array): number {
  const view = new DataView(prefix.buffer, prefix.byteOffset, prefix.byteLength);
  if (prefix.byteLength < PREFIX_BYTES || !bytesEqual(prefix.subarray(0, MAGIC.byteLength), MAGIC))
    throw damagedSnapshot(file, "header", 0, "it is not a snapshot");
  const version = view.getUint32(8, true);
  if (version > VERSION) throw newerSnapshot(file, `its format is ${version}, this build reads ${VERSION}`);
  const length = view.getUint32(12, true);
  if (version !== VERSION || length > JSON_BYTES_MAX || (length + PREFIX_BYTES) % ALIGNMENT !== 0)
    throw damagedSnapshot(file, "header", 8, "its header makes no sense");
  return PREFIX_BYTES + length;
}

/** @throws `damaged`, `upgrade_required` (tables of a later build) */
export function decodeHeader(file: string, encoded: Uint8Array, trailer: Uint8Array, fileBytes: number): SnapshotInfo {
  const bad = (offset: number, what: string) => damagedSnapshot(file, "header", offset, what);
  if (!bytesEqual(trailerOf(encoded), trailer)) throw bad(0, "its header and the digest at its end differ");
  const parsed = header.safeParse(parseJson(encoded.subarray(PREFIX_BYTES)));
  if (!parsed.success) throw bad(PREFIX_BYTES, `its header: ${parsed.error.issues[0]?.message ?? "malformed"}`);
  const { genesis, catalogLevel, index, chain, stateDigest, timeMs, tables, groupId, epoch } = parsed.data;
  if (catalogLevel > CATALOG_LEVEL)
    throw newerSnapshot(file, `its catalog level is ${catalogLevel}, this build's is ${CATALOG_LEVEL}`);
  const found: SnapshotHeader = {
    groupId,
    genesis: fromHex(genesis),
    catalogLevel,
    applied: { index, chain, stateDigest, timeMs },
    epoch,
    tables: tables.map((table) => ({ ...table, digest: formatDigest(parseDigest(table.digest)) })),
  };
  if (tables.map(({ name }) => name).join() !== SNAPSHOT_TABLES.map(({ name }) => name).join())
    throw bad(PREFIX_BYTES, `its tables are ${tables.map(({ name }) => name).join(", ")}`);
  if (!bytesEqual(encodeHeader(found), encoded)) throw bad(PREFIX_BYTES, "its header is not in its one form");
  const info = infoOf(found, encoded);
  if (info.bytes !== fileBytes)
    throw damagedSnapshot(file, "file", Math.min(info.bytes, fileBytes), `it has ${fileBytes} of ${info.bytes} bytes`);
  return info;
}

export function damagedSnapshot(
  file: string,
  table: string,
  offset: number,
  what: string,
  cause?: unknown,
): ShardpactError {
  return new ShardpactError("damaged", `snapshot ${file}, ${table} at byte ${offset}: ${what}`, {
    details: { file, table, offset },
    hint: "Nothing of it was used. Copy it again, or take another snapshot.",
    cause,
  });
}

function newerSnapshot(file: string, what: string): ShardpactError {
  return new ShardpactError("upgrade_required", `snapshot ${file} is of a newer build: ${what}`, {
    hint: "Use a build at least as new as the one that wrote it.",
  });
}

function jsonOf({ groupId, genesis, catalogLevel, applied, epoch, tables }: SnapshotHeader): string {
  return canonicalJson({
    format: FORMAT,
    groupId,
    genesis: toHex(genesis),
    catalogLevel,
    epoch,
    ...applied,
    tables,
  });
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return null;
  }
}
