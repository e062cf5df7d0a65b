/**
 * Owns finding the files to publish: in a folder and below it by extension, or as named; in bytewise order of their names.
 *
 * A folder's Arrow files are what it is published for; only where it has none are files of other formats looked at.
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
  readonly format: SourceFormat;
}

export type SourceFormat = "arrow" | "parquet" | "csv" | "ndjson" | "images";

export interface FoundSources {
  /** All of one format. */
  readonly files: readonly SourceFile[];
  readonly format: SourceFormat;
  /** Paths in folders that are left out. */
  readonly ignored: readonly string[];
}

const EXTENSIONS: Readonly<Record<string, SourceFormat>> = {
  ...{ ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow" },
  ...{ ".parquet": "parquet", ".pq": "parquet" },
  ...{ ".csv": "csv", ".tsv": "csv", ".csv.gz": "csv", ".tsv.gz": "csv" },
  ...{ ".ndjson": "ndjson", ".jsonl": "ndjson", ".ndjson.gz": "ndjson", ".jsonl.gz": "ndjson" },
  ...{ ".png": "images", ".jpg": "images", ".jpeg": "images", ".bmp": "images", ".gif": "images" },
};

/** @throws `not_found`, `invalid_argument` when two files get the same name, formats are mixed, or there is none */
export async function findSources(sources: readonly string[]): Promise<FoundSources> {
  const found: SourceFile[] = [];
  const ignored: string[] = [];
  for (const source of sources) {
    if ((await statSource(source)).isDirectory()) {
      for await (const path of walk(source, ignored)) found.push(await sourceFile(path, relative(source, path)));
    } else found.push(await sourceFile(source, basename(source)));
  }
  const format = formatOf(found);
  const files = found.filter((file) => file.format === format);
  ignored.push(...found.filter((file) => file.format !== format).map(({ path }) => path));
  files.sort((a, b) => compareUtf8(a.name, b.name));
  files.forEach(({ name, path }, i) => {
    const before = files[i - 1];
    if (before?.name !== name) return;
    throw new ShardpactError("invalid_argument", `two files would be the shard '${name}': ${before.path} and ${path}`, {
      details: { name, paths: [before.path, path] },
      hint: "Publish the folder that holds both, or rename one.",
    });
  });
  if (files.length > 0) return { files, format, ignored };
  throw new ShardpactError("invalid_argument", `nothing to publish in ${sources.join(", ")}`, {
    details: { sources, ignored: ignored.slice(0, 20) },
    hint: `Files named ${Object.keys(EXTENSIONS).join(", ")} are looked for.`,
  });
}

function formatOf(files: readonly SourceFile[]): SourceFormat {
  const formats = new Set(files.map(({ format }) => format));
  const [first = "arrow", second] = formats;
  if (second === undefined || formats.has("arrow")) return formats.has("arrow") ? "arrow" : first;
  const example = (format: SourceFormat) => files.find((file) => file.format === format)?.path ?? "";
  throw new ShardpactError(
    "invalid_argument",
    `files of several formats: ${example(first)} (${first}), ${example(second)} (${second})`,
    { details: { formats: [...formats] }, hint: "Publish one format at a time: name the files of it." },
  );
}

async function sourceFile(path: string, name: string): Promise<SourceFile> {
  const { size, mtimeMs } = await statSource(path);
  // A file that is named without an extension that says more is taken for an Arrow file, and looked at.
  const format = extensionOf(path) ?? "arrow";
  return { path, name: name.split(sep).join("/").normalize("NFC"), bytes: size, mtimeMs, format };
}

function extensionOf(path: string): SourceFormat | null {
  const name = path.toLowerCase();
  return Object.entries(EXTENSIONS).find(([ending]) => name.endsWith(ending))?.[1] ?? null;
}

async function* walk(folder: string, ignored: string[]): AsyncGenerator<string> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.name.startsWith(".")) ignored.push(path);
    else if (entry.isDirectory()) yield* walk(path, ignored);
    else if (extensionOf(entry.name) !== null && (await isFile(path))) yield path;
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
