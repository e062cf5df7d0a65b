/**
 * Owns finding the files to publish: in a folder and below it by extension, or as named; in bytewise order of their names.
 *
 * A folder's Arrow files are what it is published for; only where it has none are files of other formats looked at.
 */
import type { Dirent } from "node:fs";
import { opendir, stat } from "node:fs/promises";
import { basename, join, relative, sep } from "node:path";
import { ShardpactError } from "../model/errors.ts";
import { compareUtf8 } from "./vocabulary.ts";

export interface SourceFile {
  readonly path: string;
  /** Below its source folder, with '/', NFC; a file named by itself has its base name. */
  readonly name: string;
  readonly bytes: number;
}

export type SourceFormat = "arrow" | "parquet" | "csv" | "ndjson" | "images";

export interface FoundSources {
  /** All of one format. */
  readonly files: readonly SourceFile[];
  readonly format: SourceFormat;
  readonly ignored: Ignored;
}

/** What is left out of folders: the first paths, and how many there are. */
export interface Ignored {
  readonly paths: readonly string[];
  readonly count: number;
}
const IGNORED_NAMED_MAX = 20;
/** Of a folder, at a time. */
const ENTRIES_READ = 256;

const EXTENSIONS: Readonly<Record<string, SourceFormat>> = {
  ...{ ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow" },
  ...{ ".parquet": "parquet", ".pq": "parquet" },
  ...{ ".csv": "csv", ".tsv": "csv", ".csv.gz": "csv", ".tsv.gz": "csv" },
  ...{ ".ndjson": "ndjson", ".jsonl": "ndjson", ".ndjson.gz": "ndjson", ".jsonl.gz": "ndjson" },
  ...{ ".png": "images", ".jpg": "images", ".jpeg": "images", ".gif": "images", ".webp": "images" },
  ...{ ".tif": "images", ".tiff": "images", ".avif": "images", ".bmp": "images" },
};

/** @throws `not_found`, `invalid_argument` when two files get the same name, formats are mixed, or there is none */
export async function findSources(sources: readonly string[]): Promise<FoundSources> {
  const found = new Map<SourceFormat, SourceFile[]>();
  const ignored = { paths: [] as string[], count: 0 };
  const ignore = (path: string): void => {
    if (ignored.count++ < IGNORED_NAMED_MAX) ignored.paths.push(path);
  };
  const take = async (path: string, name: string): Promise<void> => {
    // A file that is named without an extension that says more is taken for an Arrow file, and looked at.
    const format = extensionOf(path) ?? "arrow";
    const file = await sourceFile(path, name);
    const files = found.get(format);
    if (files) files.push(file);
    else found.set(format, [file]);
  };
  for (const source of sources) {
    if ((await statSource(source)).isDirectory()) {
      for await (const path of walk(source, ignore)) await take(path, relative(source, path));
    } else await take(source, basename(source));
  }
  const format = formatOf(found);
  const files = found.get(format) ?? [];
  for (const [other, left] of found) if (other !== format) left.forEach(({ path }) => ignore(path));
  files.sort((a, b) => compareNames(a.name, b.name));
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
    details: { sources, ignored: ignored.paths },
    hint: `Files named ${Object.keys(EXTENSIONS).join(", ")} are looked for.`,
  });
}

/** UTF-8's order is that of UTF-16 as long as there are no surrogates, which few names have. */
function compareNames(a: string, b: string): number {
  return ASCII.test(a) && ASCII.test(b) ? (a < b ? -1 : Number(a > b)) : compareUtf8(a, b);
}
// oxlint-disable-next-line no-control-regex -- all of ASCII is meant
const ASCII = /^[\u0000-\u007f]*$/;

function formatOf(found: ReadonlyMap<SourceFormat, readonly SourceFile[]>): SourceFormat {
  const [first = "arrow", second] = found.keys();
  if (second === undefined || found.has("arrow")) return found.has("arrow") ? "arrow" : first;
  const example = (format: SourceFormat) => found.get(format)?.[0]?.path ?? "";
  throw new ShardpactError(
    "invalid_argument",
    `files of several formats: ${example(first)} (${first}), ${example(second)} (${second})`,
    { details: { formats: [...found.keys()] }, hint: "Publish one format at a time: name the files of it." },
  );
}

async function sourceFile(path: string, name: string): Promise<SourceFile> {
  const { size } = await statSource(path);
  const slashed = sep === "/" ? name : name.split(sep).join("/");
  const normal = slashed.normalize("NFC");
  // A name that is a part of its path takes no memory of its own.
  return { path, name: normal === slashed ? slashed : normal, bytes: size };
}

function extensionOf(path: string): SourceFormat | null {
  const name = path.toLowerCase();
  return Object.entries(EXTENSIONS).find(([ending]) => name.endsWith(ending))?.[1] ?? null;
}

async function* walk(folder: string, ignore: (path: string) => void): AsyncGenerator<string> {
  for await (const entry of await opendir(folder, { bufferSize: ENTRIES_READ })) {
    const path = join(folder, entry.name);
    if (entry.name.startsWith(".")) ignore(path);
    else if (entry.isDirectory()) yield* walk(path, ignore);
    else if (extensionOf(entry.name) !== null && (await isFile(path, entry))) yield path;
    else ignore(path);
  }
}

/** Follows links to files; links to folders are ignored, as they may lead in circles. */
async function isFile(path: string, entry: Dirent): Promise<boolean> {
  if (!entry.isSymbolicLink()) return entry.isFile();
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
