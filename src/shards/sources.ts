/**
 * Owns finding the files to publish: in a folder and below it by extension, or as named; in bytewise order of their names.
 */
import { readdir, stat } from "node:fs/promises";
import { basename, join, relative, sep } from "node:path";
import { ShardpactError } from "../model/errors.ts";
import { compareUtf8 } from "./vocabulary.ts";

export interface SourceFile {
  readonly path: string;
  /** Below its source folder, with '/', NFC; a file named by itself has its base name. */
  readonly name: string;
  readonly bytes: number;
  readonly mtimeMs: number;
}

export interface FoundSources {
  readonly files: readonly SourceFile[];
  /** Paths in folders that are not Arrow files by their extension. */
  readonly ignored: readonly string[];
}

const EXTENSIONS = [".arrow", ".feather", ".ipc"];

/** @throws `not_found`, `invalid_argument` when two files get the same name or there is none */
export async function findSources(sources: readonly string[]): Promise<FoundSources> {
  const files: SourceFile[] = [];
  const ignored: string[] = [];
  for (const source of sources) {
    if ((await statSource(source)).isDirectory()) {
      for await (const path of walk(source, ignored)) files.push(await sourceFile(path, relative(source, path)));
    } else files.push(await sourceFile(source, basename(source)));
  }
  files.sort((a, b) => compareUtf8(a.name, b.name));
  files.forEach(({ name, path }, i) => {
    const before = files[i - 1];
    if (before?.name !== name) return;
    throw new ShardpactError("invalid_argument", `two files would be the shard '${name}': ${before.path} and ${path}`, {
      details: { name, paths: [before.path, path] },
      hint: "Publish the folder that holds both, or rename one.",
    });
  });
  if (files.length > 0) return { files, ignored };
  throw new ShardpactError("invalid_argument", `no Arrow files in ${sources.join(", ")}`, {
    details: { sources, ignored: ignored.slice(0, 20) },
    hint: `Files named ${EXTENSIONS.join(", ")} are looked for; write Parquet, CSV and the like as Arrow IPC first (pyarrow, polars, arrow-js).`,
  });
}

async function sourceFile(path: string, name: string): Promise<SourceFile> {
  const { size, mtimeMs } = await statSource(path);
  return { path, name: name.split(sep).join("/").normalize("NFC"), bytes: size, mtimeMs };
}

async function* walk(folder: string, ignored: string[]): AsyncGenerator<string> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.name.startsWith(".")) ignored.push(path);
    else if (entry.isDirectory()) yield* walk(path, ignored);
    else if (EXTENSIONS.some((ending) => entry.name.toLowerCase().endsWith(ending)) && (await isFile(path))) yield path;
    else ignored.push(path);
  }
}

/** Follows links to files; links to folders are ignored, as they may lead in circles. */
async function isFile(path: string): Promise<boolean> {
  const info = await stat(path).catch(() => null);
  return info?.isFile() ?? false;
}

async function statSource(path: string) {
  try {
    return await stat(path);
  } catch (cause) {
    throw new ShardpactError("not_found", `there is no file or folder ${path}`, { cause, details: { path } });
  }
}
