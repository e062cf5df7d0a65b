/**
 * Owns the folder of the snapshots that a replica sends and receives. A crash may leave anything in it: what is not whole
 * has a name of its own and goes at the next start; what is whole is checked again by whoever uses it.
 */
import type { Files, SnapshotFolder } from "../port.ts";
import { openSnapshot } from "./file.ts";
import { nodeFiles } from "./files.ts";
import { receiveSnapshot } from "./receive.ts";
import { asFileError } from "./write.ts";

const WHOLE = ".snapshot";
/** Everything that this module, or what writes for it, ever leaves there. */
const OWN = /^[\w-]+\.snapshot(\.partial)?$/;

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
        for (const name of own) if (!name.endsWith(WHOLE)) await files.remove(`${path}/${name}`);
        return own.filter((name) => name.endsWith(WHOLE)).map((name) => name.slice(0, -WHOLE.length));
      } catch (error) {
        throw asFileError(error, path, "opening the folder of");
      }
    },
    source: (name) => openSnapshot(pathOf(name), files),
    sink: (name, expected) => receiveSnapshot(pathOf(name), expected, files),
    remove: (name) => files.remove(pathOf(name)),
  };
}
