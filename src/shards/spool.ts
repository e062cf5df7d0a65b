/**
 * Owns bytes that are made now and needed later, in a file of their own: the segment indexes of a million shards do not fit
 * in memory.
 */
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ShardpactError } from "../model/errors.ts";

export interface Spool extends AsyncDisposable {
  /** Writes the bytes at the end; resolves with how to read them again, until `close`. */
  put(bytes: Uint8Array): Promise<() => Promise<Uint8Array>>;
  close(): Promise<void>;
}

/** @throws `store_failed` when there is no room for it */
export async function openSpool(): Promise<Spool> {
  const folder = await mkdtemp(join(tmpdir(), "shardpact-spool-"));
  const file = await open(join(folder, "spool"), "w+");
  let end = 0;
  let closing: Promise<void> | null = null;
  const read = async (from: number, length: number): Promise<Uint8Array> => {
    const bytes = new Uint8Array(length);
    const { bytesRead } = await file.read(bytes, 0, length, from);
    if (bytesRead === length) return bytes;
    throw new ShardpactError("store_failed", `${bytesRead} of ${length} bytes came back from ${folder}`);
  };
  const close = async (): Promise<void> => {
    await file.close();
    await rm(folder, { recursive: true, force: true });
  };
  const closeOnce = (): Promise<void> => (closing ??= close());
  return {
    async put(bytes) {
      const from = end;
      end += bytes.byteLength;
      for (let at = 0; at < bytes.byteLength;)
        at += (await file.write(bytes, at, bytes.byteLength - at, from + at)).bytesWritten;
      return () => read(from, bytes.byteLength);
    },
    close: closeOnce,
    [Symbol.asyncDispose]: closeOnce,
  };
}
