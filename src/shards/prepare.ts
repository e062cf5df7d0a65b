/**
 * Owns preparing a version for publication: finds the files, scans each, holds their schemas against one another, and
 * gathers splits and class vocabularies. Nothing is stored or agreed here.
 *
 * The same files give the same result on every machine: order is bytewise by name, nothing depends on time or host.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { RecordBatch } from "apache-arrow";
import type { SplitRule } from "../model/commands.ts";
import { ShardpactError, invariant } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import type { Classes } from "../merkle/classes.ts";
import { type FileThreads, startFileThreads } from "./file-threads.ts";
import type { ScannedShard } from "./scan-file.ts";
import { scanAll } from "./scan-all.ts";
import { firstSchemaDifference } from "./schema.ts";
import { findSources, type SourceFile } from "./sources.ts";
import { type ShardList, writeShardList } from "./shard-list.ts";
import { openSpool, type Spool } from "./spool.ts";
import { planSplits, planWritten } from "./split-rule.ts";
import { classColumns, collectValues, mergeClasses, type ClassColumn, type ClassValues } from "./vocabulary.ts";
import { writeShards } from "./write.ts";

export type PrepareProgress =
  | { readonly kind: "found"; readonly files: number; readonly bytes: number }
  /** A file in a source folder that is no Arrow file by its extension. */
  | { readonly kind: "ignored"; readonly path: string }
  /** So many more of them, after the first few. */
  | { readonly kind: "ignored_more"; readonly files: number }
  /** So many more bytes were scanned. */
  | { readonly kind: "bytes"; readonly bytes: number }
  | { readonly kind: "shard"; readonly name: string; readonly rows: number; readonly bytes: number }
  /** A dictionary column with too many values for an agreed vocabulary: it cannot be used as a class column. */
  | { readonly kind: "no_vocabulary"; readonly column: string };

export interface PrepareOptions {
  /** A folder (with what is below it), files, or record batches, which are first written as files. */
  readonly sources: string | readonly string[] | AsyncIterable<RecordBatch>;
  /** Shares of rows, cut by position when the version is read: `{train: 0.9, val: 0.1}`. */
  readonly positional?: Readonly<Record<string, number>>;
  /** The sources were written by an import, a folder a split. */
  readonly written?: WrittenSplits;
  /** Plain text columns that get a class vocabulary; text dictionary columns have one anyway. */
  readonly classes?: readonly string[];
  /** Vocabularies of the version that this one follows. */
  readonly baseClasses?: Classes;
  readonly onProgress?: (progress: PrepareProgress) => void;
  readonly signal?: AbortSignal;
}

/** How an import dealt its rows, and how many there are. */
export interface WrittenSplits {
  readonly rule: SplitRule;
  readonly splits: readonly string[];
  readonly rows: number;
}

export interface PreparedVersion extends AsyncDisposable {
  /** Canonical schema. */
  readonly schema: Uint8Array;
  /** Encoded class vocabularies (`merkle/classes.ts`). */
  readonly classes: Uint8Array;
  readonly splits: readonly string[];
  readonly splitRule: SplitRule;
  readonly shards: ShardList;
  /** What they were scanned in, for what comes next. */
  readonly threads: FileThreads | null;
  /** Removes the files that were written for record batches; the caller's own stay. The shards can't be read any more. */
  close(): Promise<void>;
}

/**
 * Scans all sources. `train/`, `val/`, `test/` (and `validation/`, `dev/`, `eval/`) below a source folder become splits.
 * @throws `shard_malformed`, `schema_differs`, `invalid_argument`, `column_unknown`, `limit_exceeded`, `not_found`, `aborted`
 */
export async function prepareVersion(options: PrepareOptions): Promise<PreparedVersion> {
  const { sources, signal } = options;
  if (typeof sources === "string") return prepareFiles(options, [sources], null);
  if (!(Symbol.asyncIterator in sources)) return prepareFiles(options, sources, null);
  const folder = await mkdtemp(join(tmpdir(), "shardpact-publish-"));
  try {
    const written = await writeShards(sources, { folder, ...(signal ? { signal } : {}) });
    if (written.length === 0) throw new ShardpactError("invalid_argument", "the record batches hold no rows");
    const prepared = await prepareFiles(options, [folder], folder);
    const rows = written.reduce((sum, shard) => sum + shard.rows, 0);
    invariant(rows === prepared.shards.rows, "every row written was found again");
    return prepared;
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

async function prepareFiles(
  options: PrepareOptions,
  sources: readonly string[],
  ownFolder: string | null,
): Promise<PreparedVersion> {
  const { onProgress, positional, written } = options;
  const { files, ignored, format } = await findSources(sources);
  if (format !== "arrow") {
    throw new ShardpactError("invalid_argument", `${sources.join(", ")}: ${format} has to be imported first`);
  }
  for (const path of ignored.paths) onProgress?.({ kind: "ignored", path });
  const unnamed = ignored.count - ignored.paths.length;
  if (unnamed > 0) onProgress?.({ kind: "ignored_more", files: unnamed });
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  onProgress?.({ kind: "found", files: files.length, bytes });
  for (const { name } of files) checkName(name);
  const names = files.map(({ name }) => name);
  const plan = written ? planWritten(names, written.rule, written.splits) : planSplits(names, positional);
  const spool = await openSpool();
  const threads = startFileThreads(files.length, bytes, options.signal);
  const close = async (): Promise<void> => {
    await Promise.all([threads?.close(), spool.close()]);
    if (ownFolder) await rm(ownFolder, { recursive: true, force: true });
  };
  try {
    const { shards, schema, classes } = await scanShards(options, files, plan.ordinals, threads, spool);
    invariant(written === undefined || shards.rows === written.rows, "every row written was found again");
    const { splits, rule: splitRule } = plan;
    return { schema, classes, splits, splitRule, shards, threads, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await Promise.all([threads?.close(), spool.close()]);
    throw error;
  }
}

async function scanShards(
  options: PrepareOptions,
  files: readonly SourceFile[],
  ordinals: readonly number[],
  threads: FileThreads | null,
  spool: Spool,
): Promise<Pick<PreparedVersion, "schema" | "classes" | "shards">> {
  const shards = writeShardList(spool);
  let i = 0;
  const gathered = gatherer(options);
  const { signal, onProgress } = options;
  const onBytes = (bytes: number): void => onProgress?.({ kind: "bytes", bytes });
  for await (const scanned of scanAll(files, threads, { ...(signal ? { signal } : {}), onBytes })) {
    const file = files[i];
    invariant(file, "a file was scanned");
    await gathered.add(file, scanned);
    const { rows, bytes, digest, index, indexDigest } = scanned;
    const entry = { name: file.name, split: ordinals[i] ?? 0, rows, bytes, digest, segmentIndex: indexDigest };
    await shards.add(entry, file.path, index);
    i += 1;
    onProgress?.({ kind: "shard", name: file.name, rows, bytes });
  }
  return { ...gathered.finish(), shards: await shards.finish() };
}

/** Holds each file's schema against the first one's, and gathers class values under it. */
function gatherer({ classes = [], baseClasses = {}, onProgress }: PrepareOptions) {
  const asked = new Set([...classes, ...Object.keys(baseClasses)]);
  const values: ClassValues = new Map();
  let first: {
    readonly file: SourceFile;
    readonly schema: Uint8Array;
    readonly columns: readonly ClassColumn[];
  } | null = null;
  return {
    async add(file: SourceFile, scanned: ScannedShard): Promise<void> {
      first ??= { file, schema: scanned.schema, columns: chooseColumns(scanned.schema, classes, asked) };
      const difference = firstSchemaDifference(first.schema, scanned.schema);
      if (difference) throw schemaDiffers(first.file, file, difference);
      await collectValues(file.path, scanned, first.columns, values);
    },
    finish() {
      invariant(first, "there is at least one file");
      const merged = mergeClasses(baseClasses, values, asked);
      for (const column of merged.dropped) onProgress?.({ kind: "no_vocabulary", column });
      return { schema: first.schema, classes: merged.classes };
    },
  };
}

function chooseColumns(
  schema: Uint8Array,
  classes: readonly string[],
  asked: ReadonlySet<string>,
): readonly ClassColumn[] {
  const columns = classColumns(schema);
  for (const column of classes) {
    if (columns.some(({ path }) => path === column)) continue;
    throw new ShardpactError("column_unknown", `there is no text column '${column}' to take classes from`, {
      details: { column, columns: columns.map(({ path }) => path) },
      hint: `Text columns are: ${columns.map(({ path }) => path).join(", ") || "none"}.`,
    });
  }
  return columns.filter(({ path, dictionary }) => dictionary !== null || asked.has(path));
}

function schemaDiffers(
  first: SourceFile,
  file: SourceFile,
  difference: { readonly field: string; readonly a: string; readonly b: string },
): ShardpactError {
  const what = difference.field === "" ? "the schema's metadata" : `column '${difference.field}'`;
  return new ShardpactError(
    "schema_differs",
    `${file.name} differs from ${first.name} in ${what}: ${difference.b} there, ${difference.a} here`,
    {
      details: {
        file: file.path,
        first: first.path,
        field: difference.field,
        expected: difference.a,
        got: difference.b,
      },
      hint: "All shards of a version have one schema: convert the file, or publish it as a dataset of its own.",
    },
  );
}

function checkName(name: string): void {
  const bytes = Buffer.byteLength(name);
  if (bytes <= LIMITS.shardNameBytesMax) return;
  throw new ShardpactError("limit_exceeded", `the name of shard '${name}' takes ${bytes} bytes`, {
    details: { name, bytesMax: LIMITS.shardNameBytesMax },
    hint: "Publish from a folder closer to the files, or shorten their names.",
  });
}
