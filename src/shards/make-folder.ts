/**
 * Owns making a folder with those above it.
 *
 * Not `mkdir` with `recursive`: below /proc and the like the kernel answers ENOENT to every attempt, and Node 20 tries for ever.
 */
import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { ShardpactError } from "../model/errors.ts";

/** @throws ShardpactError `store_failed` where no folder can be made; what the file system says otherwise */
export async function makeFolder(path: string): Promise<void> {
  try {
    await make(path);
  } catch (cause) {
    if (!isCode(cause, "ENOENT")) throw cause;
    throw new ShardpactError("store_failed", `the folder ${path} cannot be made: its file system refuses new folders`, {
      details: { path },
      hint: "Name a folder on a disk, or on a share that is mounted.",
      cause,
    });
  }
}

async function make(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    if (isCode(error, "EEXIST") && (await stat(path)).isDirectory()) return;
    const above = dirname(path);
    if (!isCode(error, "ENOENT") || above === path) throw error;
    await make(above);
    await mkdir(path).catch((again: unknown) => {
      if (!isCode(again, "EEXIST")) throw again; // somebody else made it meanwhile
    });
  }
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
