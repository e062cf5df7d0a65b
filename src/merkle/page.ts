/**
 * Owns the manifest page: up to 1,024 consecutive shard entries as little-endian columns (docs/spec.md, Page).
 *
 * One list of entries has one encoding: a decoder refuses whatever does not encode to the same bytes again. Pages come
 * from strangers, so every length is checked before it is used.
 */
import { isAscii } from "node:buffer";
import { bytesEqual, formatDigest, parseDigest, utf8 } from "../model/bytes.ts";
import type { Digest } from "../model/bytes.ts";
import { isShardpactError, ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { DIGEST_BYTES, hashAs } from "./hash.ts";
import { sumTotals } from "./totals.ts";
import type { SplitTotals } from "./totals.ts";

/** One shard, in manifest order. */
export interface PageEntry {
  /** NFC, relative, '/' between parts: it may become a file's path. */
  readonly name: string;
  /** Ordinal into the version's `splits`. */
  readonly split: number;
  readonly rows: number;
  readonly bytes: number;
  /** Plain BLAKE3 of the file: what `b3sum` prints. */
  readonly digest: Digest;
  readonly segmentIndex: Digest;
}

const ENCODER = new TextEncoder();
const NAME_DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** No part is empty, '.' or '..': each begins with a letter, digit or underscore. */
const PLAIN_NAME = /^[A-Za-z0-9_][A-Za-z0-9_.=-]*(?:\/[A-Za-z0-9_][A-Za-z0-9_.=-]*)*$/;

const MAGIC = utf8("SPPG");
const VERSION = 1;
const HEAD_BYTES = 12;
/** nameEnd u32 · split u8 · rows u64 · bytes u64 · two digests. */
const ENTRY_BYTES = 4 + 1 + 8 + 8 + 2 * DIGEST_BYTES;

/** Cuts entries into pages, each as full as count and bytes allow. The same entries give the same pages. */
export function cutPages(entries: Iterable<PageEntry>): PageEntry[][] {
  const pages: PageEntry[][] = [];
  const cutter = createPageCutter();
  for (const entry of entries) {
    const full = cutter.add(entry);
    if (full) pages.push(full);
  }
  const last = cutter.finish();
  return last ? [...pages, last] : pages;
}

export interface PageCutter {
  /** The page before, when the entry does not fit into it any more. */
  add(entry: PageEntry): PageEntry[] | null;
  /** What is left. */
  finish(): PageEntry[] | null;
}

/** `cutPages` for entries that come one after the other. */
export function createPageCutter(): PageCutter {
  let page: PageEntry[] = [];
  let bytes = HEAD_BYTES;
  return {
    add(entry) {
      const more = ENTRY_BYTES + utf8(entry.name).byteLength;
      const isFull = page.length === LIMITS.pageShardsMax || bytes + more > LIMITS.pageBytesMax;
      const full = page.length > 0 && isFull ? page : null;
      if (full) [page, bytes] = [[], HEAD_BYTES];
      page.push(entry);
      bytes += more;
      return full;
    },
    finish: () => (page.length > 0 ? page : null),
  };
}

/** @throws ShardpactError `invalid_argument` naming the entry, `limit_exceeded` */
export function encodePage(entries: readonly PageEntry[]): Uint8Array {
  if (entries.length === 0) throw new ShardpactError("invalid_argument", "a page holds at least one shard");
  if (entries.length > LIMITS.pageShardsMax) {
    throw new ShardpactError("limit_exceeded", `a page of ${entries.length} shards; ${LIMITS.pageShardsMax} fit`);
  }
  checkEntries(entries);
  const n = entries.length;
  const digestsAt = HEAD_BYTES + n * 21;
  const namesAt = HEAD_BYTES + n * ENTRY_BYTES;
  // One buffer, written in place: a million shards are a thousand pages. A character takes three bytes at most.
  const room = new Uint8Array(namesAt + entries.reduce((sum, { name }) => sum + 3 * name.length, 0));
  const view = new DataView(room.buffer);
  let end = 0;
  entries.forEach((entry, i) => {
    end += ENCODER.encodeInto(entry.name, room.subarray(namesAt + end)).written;
    view.setUint32(HEAD_BYTES + i * 4, end, true);
    view.setUint8(HEAD_BYTES + n * 4 + i, entry.split);
    view.setBigUint64(HEAD_BYTES + n * 5 + i * 8, BigInt(entry.rows), true);
    view.setBigUint64(HEAD_BYTES + n * 13 + i * 8, BigInt(entry.bytes), true);
    room.set(parseDigest(entry.digest), digestsAt + i * DIGEST_BYTES);
    room.set(parseDigest(entry.segmentIndex), digestsAt + (n + i) * DIGEST_BYTES);
  });
  room.set(MAGIC);
  view.setUint16(4, VERSION, true);
  view.setUint16(6, n, true);
  view.setUint32(8, end, true);
  const bytes = room.slice(0, namesAt + end);
  if (bytes.byteLength > LIMITS.pageBytesMax) {
    throw new ShardpactError("limit_exceeded", `a page of ${bytes.byteLength} bytes; ${LIMITS.pageBytesMax} fit`);
  }
  return bytes;
}

/** Inverse of `encodePage`. @throws ShardpactError `damaged` on anything that `encodePage` would not write. */
export function decodePage(bytes: Uint8Array): PageEntry[] {
  const n = readHead(bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // Text is cut out of one buffer: a view for each of a thousand names and digests costs more than the text.
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const digestsAt = HEAD_BYTES + n * 21;
  const namesAt = HEAD_BYTES + n * ENTRY_BYTES;
  const nameAt = isAscii(buffer.subarray(namesAt)) ? asciiNameAt : utf8NameAt;
  const entries: PageEntry[] = [];
  let nameFrom = 0;
  for (let i = 0; i < n; i++) {
    const nameTo = view.getUint32(HEAD_BYTES + i * 4, true);
    if (nameTo < nameFrom || namesAt + nameTo > bytes.byteLength) throw damaged(`the name of shard ${i} lies outside`);
    entries.push({
      name: nameAt(buffer, namesAt + nameFrom, namesAt + nameTo, i),
      split: view.getUint8(HEAD_BYTES + n * 4 + i),
      rows: Number(view.getBigUint64(HEAD_BYTES + n * 5 + i * 8, true)),
      bytes: Number(view.getBigUint64(HEAD_BYTES + n * 13 + i * 8, true)),
      digest: digestAt(buffer, digestsAt, i),
      segmentIndex: digestAt(buffer, digestsAt + n * DIGEST_BYTES, i),
    });
    nameFrom = nameTo;
  }
  if (namesAt + nameFrom !== bytes.byteLength) throw damaged("bytes of no name follow the names");
  requireSound(entries);
  return entries;
}

/** Digest of a page's bytes, under the `page` context. */
export function pageDigest(bytes: Uint8Array): Digest {
  return formatDigest(hashAs("page", bytes));
}

/** Rows, bytes and shards per split, sorted by split ordinal. @throws ShardpactError `limit_exceeded` */
export function pageTotals(entries: readonly PageEntry[]): SplitTotals[] {
  return sumTotals(entries.map(({ split, rows, bytes }) => [{ split, rows, bytes, shards: 1 }]));
}

/** Checks magic, version and that the declared counts fit the bytes. Returns the number of entries. */
function readHead(bytes: Uint8Array): number {
  if (bytes.byteLength > LIMITS.pageBytesMax) throw damaged(`it takes ${bytes.byteLength} bytes`);
  if (bytes.byteLength < HEAD_BYTES || !bytesEqual(bytes.subarray(0, 4), MAGIC)) throw damaged("it has another magic");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint16(4, true);
  if (version !== VERSION) throw damaged(`its version is ${version}, not ${VERSION}`);
  const n = view.getUint16(6, true);
  if (n === 0 || n > LIMITS.pageShardsMax) throw damaged(`it says to hold ${n} shards`);
  const expected = HEAD_BYTES + n * ENTRY_BYTES + view.getUint32(8, true);
  if (expected !== bytes.byteLength) throw damaged(`it takes ${bytes.byteLength} bytes where ${expected} are declared`);
  return n;
}

/**
 * Every rule of `encodePage`. With them the encoding is unique: lengths leave no byte out, names are strict UTF-8 one after the
 * other, and figures that a double can't hold are refused. So nothing has to be encoded again to compare.
 */
function requireSound(entries: readonly PageEntry[]): void {
  try {
    checkEntries(entries);
  } catch (cause) {
    if (isShardpactError(cause)) throw damaged(cause.message, cause);
    throw cause;
  }
}

function checkEntries(entries: readonly PageEntry[]): void {
  const seen = new Set<string>();
  for (const entry of entries) {
    const problem = nameProblem(entry.name) ?? figuresProblem(entry);
    if (problem) throw new ShardpactError("invalid_argument", `shard '${entry.name.slice(0, 255)}': ${problem}`);
    if (seen.has(entry.name)) {
      throw new ShardpactError("invalid_argument", `shard '${entry.name}' stands twice in one page`);
    }
    seen.add(entry.name);
  }
}

function figuresProblem({ split, rows, bytes }: PageEntry): string | null {
  if (!Number.isInteger(split) || split < 0 || split >= LIMITS.splitsMax) return `split ${split} is no ordinal`;
  if (!Number.isSafeInteger(rows) || rows < 0) return `${rows} rows`;
  if (!Number.isSafeInteger(bytes) || bytes < 0) return `${bytes} bytes`;
  return null;
}

/** A name may become a path below a folder of the reader's choice: it must not lead out of it. */
function nameProblem(name: string): string | null {
  // Most names by far: letters that have one form and one byte each.
  if (PLAIN_NAME.test(name) && name.length <= LIMITS.shardNameBytesMax) return null;
  const length = utf8(name).byteLength;
  if (length === 0 || length > LIMITS.shardNameBytesMax) return `its name takes ${length} bytes`;
  if (/\p{Surrogate}/u.test(name)) return "its name holds half a surrogate pair";
  if (name !== name.normalize("NFC")) return "its name is not in Unicode form NFC";
  // oxlint-disable-next-line no-control-regex -- control characters are what is refused
  if (/[\u0000-\u001f\u007f\\]/.test(name)) return "its name holds a control character or a backslash";
  if (name.split("/").some((part) => part === "" || part === "." || part === "..")) {
    return "its name has an empty part, '.' or '..'";
  }
  return null;
}

function asciiNameAt(buffer: Buffer, from: number, to: number): string {
  return buffer.toString("latin1", from, to);
}

function utf8NameAt(buffer: Buffer, from: number, to: number, i: number): string {
  try {
    return NAME_DECODER.decode(buffer.subarray(from, to));
  } catch (cause) {
    throw damaged(`the name of shard ${i} is not UTF-8`, cause);
  }
}

function digestAt(buffer: Buffer, at: number, i: number): Digest {
  return `b3:${buffer.toString("hex", at + i * DIGEST_BYTES, at + (i + 1) * DIGEST_BYTES)}`;
}

function damaged(what: string, cause?: unknown): ShardpactError {
  return new ShardpactError("damaged", `a manifest page does not decode: ${what}`, { cause });
}
