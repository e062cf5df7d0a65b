/**
 * Owns the file system as snapshots use it: the adapter of `Files` over node.
 */
import { mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import type { Files } from "../port.ts";

export const nodeFiles: Files = {
  async open(path, flags) {
    const file = await open(path, flags, 0o600);
    return {
      read: async (into, at) => (await file.read(into, 0, into.byteLength, at)).bytesRead,
      async write(bytes, at) {
        for (let done = 0; done < bytes.byteLength;)
          done += (await file.write(bytes, done, bytes.byteLength - done, at + done)).bytesWritten;
      },
      size: async () => (await file.stat()).size,
      sync: () => file.sync(),
      close: () => file.close(),
    };
  },
  rename: (from, to) => rename(from, to),
  remove: (path) => rm(path, { force: true }),
  async makeFolder(path) {
    await mkdir(path, { recursive: true, mode: 0o700 });
    // Below a folder that is everybody's, somebody else may have been there first.
    const { uid } = await stat(path);
    const own = process.getuid?.() ?? uid;
    if (uid !== own) throw Object.assign(new Error("it belongs to another user"), { code: "EPERM" });
  },
  list: (path) => readdir(path),
  async syncFolder(path) {
    const folder = await open(path, "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  },
};
