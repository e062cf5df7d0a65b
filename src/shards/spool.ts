/**
 * Owns bytes that are made now and needed later, in a file of their own: the segment indexes of a million shards do not fit
 * in memory.
 */
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ShardpactError } from "../model/errors.ts";

/** Where bytes lie in a spool. */
export interface SpoolPlace {
  readonly from: number;
  readonly bytes: number;
}

export interface Spool extends AsyncDisposable {
  /** Keeps a copy of the bytes until `close`. Calls may not overlap. */
  put(bytes: Uint8Array): Promise<SpoolPlace>;
  read(place: SpoolPlace): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** Small pieces are gathered before they are written, and read with what comes after them: they are asked for in their order. */
const GATHERED_BYTES = 256 * 1024;
const AHEAD_FOR_BYTES_MAX = 16 * 1024;

/** @throws `store_failed` when there is no room for it */
export async function openSpool(): Promise<Spool> {
  const folder = await mkdtemp(join(tmpdir(), "shardpact-spool-"));
  const file = await open(join(folder, "spool"), "w+");
  const gathered = new Uint8Array(GATHERED_BYTES);
  let written = 0; // bytes of the file
  let waiting = 0; // bytes of `gathered` that come after them
  let closing: Promise<void> | null = null;

  async function write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.byteLength;)
      at += (await file.write(bytes, at, bytes.byteLength - at, written + at)).bytesWritten;
    written += bytes.byteLength;
  }
  async function flush(): Promise<void> {
    await write(gathered.subarray(0, waiting));
    waiting = 0;
  }
  async function readFile({ from, bytes }: SpoolPlace): Promise<Uint8Array> {
    const found = new Uint8Array(bytes);
    const { bytesRead } = await file.read(found, 0, bytes, from);
    if (bytesRead === bytes) return found;
    throw new ShardpactError("store_failed", `${bytesRead} of ${bytes} bytes came back from ${folder}`);
  }
  let ahead: { readonly place: SpoolPlace; readonly read: Promise<Uint8Array> } | null = null;
  async function readSmall({ from, bytes }: SpoolPlace): Promise<Uint8Array> {
    if (!ahead || from < ahead.place.from || from + bytes > ahead.place.from + ahead.place.bytes) {
      const place = { from, bytes: Math.min(GATHERED_BYTES, written - from) };
      ahead = { place, read: readFile(place) };
    }
    const at = from - ahead.place.from;
    return (await ahead.read).slice(at, at + bytes);
  }
  const close = async (): Promise<void> => {
    await file.close();
    await rm(folder, { recursive: true, force: true });
  };
  const closeOnce = (): Promise<void> => (closing ??= close());
  return {
    async put(bytes) {
      if (waiting + bytes.byteLength > GATHERED_BYTES) await flush();
      const from = written + waiting;
      if (bytes.byteLength > GATHERED_BYTES) await write(bytes);
      else {
        gathered.set(bytes, waiting);
        waiting += bytes.byteLength;
      }
      return { from, bytes: bytes.byteLength };
    },
    async read(place) {
      const { from, bytes } = place;
      if (from >= written) return gathered.slice(from - written, from - written + bytes);
      return bytes <= AHEAD_FOR_BYTES_MAX ? await readSmall(place) : await readFile(place);
    },
    close: closeOnce,
    [Symbol.asyncDispose]: closeOnce,
  };
}
