/**
 * Owns the folder of the snapshots that a replica sends and receives. A crash may leave anything in it: what was being
 * written from the tables goes at the next start, what was being received goes on; whoever uses a file checks it as a whole.
 */
import type { Files, SnapshotFolder } from "../port.ts";
import { openSnapshot } from "./file.ts";
import { nodeFiles } from "./files.ts";
import { BEGUN, receiveSnapshot } from "./receive.ts";
import { asFileError } from "./write.ts";

const WHOLE = ".snapshot";
/** Everything that this module, or what writes for it, ever leaves there. */
const OWN = /^[\w-]+\.snapshot(\.partial|\.begun)?$/;

/** `path`: the replica's alone. Nothing is touched before `open`. */
export function snapshotFolder(path: string, files: Files = nodeFiles): SnapshotFolder {
  const pathOf = (name: string): string => `${path}/${name}${WHOLE}`;
  return {
    files,
    pathOf,
    async open() {
      try {
        await files.makeFolder(path);
        const own = (await files.list(path)).filter((name) => OWN.test(name));
        const ending = (end: string): string[] =>
          own.filter((name) => name.endsWith(end)).map((name) => name.slice(0, -end.length));
        const found = { whole: ending(WHOLE), begun: ending(`${WHOLE}${BEGUN}`) };
        for (const name of own) if (name.endsWith(".partial")) await files.remove(`${path}/${name}`);
        return found;
      } catch (error) {
        throw asFileError(error, path, "opening the folder of");
      }
    },
    source: (name) => openSnapshot(pathOf(name), files),
    sink: (name, expected) => receiveSnapshot(pathOf(name), expected, files),
    async remove(name) {
      await files.remove(pathOf(name));
      await files.remove(`${pathOf(name)}${BEGUN}`);
    },
  };
}
