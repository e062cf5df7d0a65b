/**
 * Owns a snapshot file that comes in chunks: in order, each at its place, whole before it gets its name.
 */
import type { Digest } from "../../model/bytes.ts";
import { invariant } from "../../model/errors.ts";
import type { Files, OpenFile, SnapshotSink } from "../port.ts";
import { openSnapshot } from "./file.ts";
import { nodeFiles } from "./files.ts";
import { damagedSnapshot } from "./header.ts";
import { asFileError } from "./write.ts";

/** After the name of a file that is not whole. */
export const BEGUN = ".begun";

/**
 * Goes on where an earlier one was left, which may have been a crash: what is there is as unproven as what comes.
 * @throws `store_failed`
 */
export async function receiveSnapshot(
  path: string,
  expected: { readonly digest: Digest; readonly bytes: number },
  files: Files = nodeFiles,
): Promise<SnapshotSink> {
  const begun = `${path}${BEGUN}`;
  const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      throw asFileError(error, path, "receiving");
    }
  };
  const { file, offset: start } = await guarded(() => openBegun(begun, expected.bytes, files));
  let offset = start;
  let isOpen = true;
  const close = async (): Promise<void> => {
    if (!isOpen) return;
    isOpen = false;
    await file.close();
  };
  return {
    get offset() {
      return offset;
    },
    write: (at, bytes) =>
      guarded(async () => {
        if (at !== offset) return;
        if (at + bytes.byteLength > expected.bytes)
          throw damagedSnapshot(path, "file", at, `more than its ${expected.bytes} bytes came`);
        offset += bytes.byteLength;
        await file.write(bytes, at);
      }),
    finish: () =>
      guarded(async () => {
        invariant(isOpen, "a received snapshot is finished once, before it is closed");
        if (offset !== expected.bytes)
          throw damagedSnapshot(path, "file", offset, `it has ${offset} of ${expected.bytes} bytes`);
        await file.sync();
        await using received = await openSnapshot(begun, files);
        if (received.info.digest !== expected.digest)
          throw damagedSnapshot(path, "header", 0, `it is ${received.info.digest}, not ${expected.digest}`);
        await received.checkBytes();
        await files.rename(begun, path);
        isOpen = false;
        await file.close();
        return received.info;
      }),
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function openBegun(path: string, bytes: number, files: Files): Promise<{ file: OpenFile; offset: number }> {
  try {
    const file = await files.open(path, "r+");
    const offset = await file.size();
    if (offset <= bytes) return { file, offset };
    await file.close();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  return { file: await files.open(path, "w"), offset: 0 };
}
