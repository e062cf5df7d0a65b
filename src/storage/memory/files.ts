/**
 * Owns files in memory, for tests and the simulator: what nothing waits for but the turn of a promise.
 */
import type { Files, OpenFile } from "../port.ts";

/** Its content outlives whoever opened it, as a disk does. */
export function createMemoryFiles(): Files {
  const files = new Map<string, { bytes: Uint8Array; length: number }>();
  const missing = (path: string): Error => Object.assign(new Error(`no such file: '${path}'`), { code: "ENOENT" });

  function openFile(file: { bytes: Uint8Array; length: number }): OpenFile {
    return {
      async read(into, at) {
        const part = file.bytes.subarray(at, Math.min(file.length, at + into.byteLength));
        into.set(part);
        return part.byteLength;
      },
      async write(bytes, at) {
        const end = at + bytes.byteLength;
        if (end > file.bytes.byteLength) {
          const larger = new Uint8Array(Math.max(end, 2 * file.bytes.byteLength));
          larger.set(file.bytes);
          file.bytes = larger;
        }
        file.bytes.set(bytes, at);
        file.length = Math.max(file.length, end);
      },
      size: async () => file.length,
      sync: async () => undefined,
      close: async () => undefined,
    };
  }

  return {
    async open(path, flags) {
      if (flags === "w") files.set(path, { bytes: new Uint8Array(0), length: 0 });
      const file = files.get(path);
      if (!file) throw missing(path);
      return openFile(file);
    },
    async rename(from, to) {
      const file = files.get(from);
      if (!file) throw missing(from);
      files.delete(from);
      files.set(to, file);
    },
    remove: async (path) => void files.delete(path),
    makeFolder: async () => undefined,
    list: async (folder) =>
      [...files.keys()].filter((path) => path.startsWith(`${folder}/`)).map((path) => path.slice(folder.length + 1)),
    syncFolder: async () => undefined,
  };
}
