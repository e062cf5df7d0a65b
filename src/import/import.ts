/**
 * Owns turning other formats into shards, and Arrow files into shards whose rows stand elsewhere: Parquet, CSV, NDJSON,
 * folders of images; splits by a key; a shuffle. The same bytes, options and importer give the same shards on every machine.
 *
 * Rows stream: read in order, dealt to splits, cut into segments, written. What is held does not grow with the input.
 */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Schema } from "apache-arrow";
import type { SplitRule } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { findSources, type FoundSources, type SourceFile } from "../shards/sources.ts";
import { planKeyed, planSplits } from "../shards/split-rule.ts";
import type { WrittenSplits } from "../shards/prepare.ts";
import { createShardWriter, type ShardWriter } from "../shards/write.ts";
import { openArrow } from "./arrow-rows.ts";
import { duckdbVersion, openTable } from "./duckdb.ts";
import { openImages } from "./images.ts";
import { createRouter, type KeyRule, type Router } from "./route.ts";
import { forEachRow, type RowChunk, type RowReader, type RowSink } from "./row-source.ts";
import { createSegmentBuilder, type SegmentBuilder } from "./segment-builder.ts";
import { shuffleRows } from "./shuffle.ts";

/** Raised when the same input comes to other shards than before. */
const IMPORTER = "import/1";

export interface ImportOptions {
  readonly sources: readonly string[];
  /** Shares of rows per split; with `key`, by a hash of these columns. */
  readonly split?: Readonly<Record<string, number>>;
  readonly key?: readonly string[];
  /** How the version before is split by a key: what holds unless told otherwise. */
  readonly before?: { readonly rule: KeyRule; readonly splits: readonly string[] };
  readonly shuffle?: number | bigint;
  /** DuckDB types by column. */
  readonly types?: Readonly<Record<string, string>>;
  /** Of DuckDB. Shards are the same at any number. */
  readonly threads?: number;
  readonly onProgress?: (progress: ImportProgress) => void;
  /** What is left out, or comes out otherwise than it was. */
  readonly onWarning?: (text: string) => void;
  readonly signal?: AbortSignal;
}

/** Rows so far; all of them, when that is known. */
export interface ImportProgress {
  readonly rows: number;
  readonly rowsTotal: number | null;
}

export interface Imported extends AsyncDisposable {
  /** Arrow files, a folder a split. */
  readonly folder: string;
  readonly written: WrittenSplits;
  /** What wrote them: `import/1 duckdb v1.5.6`. */
  readonly importer: string;
  close(): Promise<void>;
}

/** True when the sources can't be published as they are. @throws as `findSources` */
export async function needsImport({ sources, key, before, shuffle }: ImportOptions): Promise<boolean> {
  if (key !== undefined || before !== undefined || shuffle !== undefined) return true;
  return (await findSources(sources)).format !== "arrow";
}

/**
 * Writes shards into a folder of their own; the caller closes it.
 * @throws ShardpactError `invalid_argument`, `column_unknown`, `type_unsupported`, `schema_differs`, `shard_malformed`,
 * `split_changed`, `setup_failed` (DuckDB is not installed), `limit_exceeded`, `aborted`
 */
export async function importSources(options: ImportOptions): Promise<Imported> {
  const found = await findSources(options.sources);
  tellIgnored(found, options);
  const plan = planOf(found, options);
  const folder = await mkdtemp(join(tmpdir(), "shardpact-import-"));
  const close = () => rm(folder, { recursive: true, force: true });
  try {
    for (const split of plan.splits) await mkdir(join(folder, "shards", split), { recursive: true });
    const writers = createSplitWriters(join(folder, "shards"), plan.splits);
    for (const group of plan.groups) await importGroup(group, plan, writers, join(folder, "buckets"), options, found);
    const rows = await writers.finish();
    if (rows === 0) throw new ShardpactError("invalid_argument", `there are no rows in ${options.sources.join(", ")}`);
    const isDuck = ["parquet", "csv", "ndjson"].includes(found.format);
    return {
      folder: join(folder, "shards"),
      written: { rule: plan.rule, splits: plan.splits, rows },
      importer: isDuck ? `${IMPORTER} ${await duckdbVersion()}` : IMPORTER,
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function tellIgnored({ ignored: { paths, count } }: FoundSources, { onWarning }: ImportOptions): void {
  for (const path of paths) onWarning?.(`${path} is left out`);
  if (count > paths.length) onWarning?.(`${count - paths.length} more files are left out`);
}

interface Group {
  /** Ordinal of the split that all of it belongs to; null when each row is asked. */
  readonly split: number | null;
  readonly files: readonly SourceFile[];
}

interface Plan {
  readonly rule: SplitRule;
  readonly splits: readonly string[];
  readonly groups: readonly Group[];
}

function planOf({ files }: FoundSources, { split, key, before }: ImportOptions): Plan {
  if (before !== undefined && key === undefined && split === undefined) {
    return { ...before, groups: [{ split: null, files }] };
  }
  if (key !== undefined) {
    if (split === undefined) {
      throw new ShardpactError("invalid_argument", "a key without shares: what is to be held out by it?", {
        hint: "Add the shares: --split train=0.9,val=0.1.",
      });
    }
    return { ...planKeyed(split, key), groups: [{ split: null, files }] };
  }
  if (split !== undefined) {
    throw new ShardpactError("invalid_argument", "shares of rows that are written anew need a key to deal them by", {
      hint: "Name a column that tells entities apart: --key id. Without it only Arrow files can be split, by position.",
    });
  }
  const plan = planSplits(files.map(({ name }) => name));
  const groups = plan.splits.map((_, ordinal) => ({
    split: ordinal,
    files: files.filter((_, i) => plan.ordinals[i] === ordinal),
  }));
  return { rule: plan.rule, splits: plan.splits, groups };
}

async function importGroup(
  { split, files }: Group,
  { rule, splits }: Plan,
  writers: SplitWriters,
  folder: string,
  options: ImportOptions,
  { format }: FoundSources,
): Promise<void> {
  const reader = await openReader(format, files, rule, options);
  try {
    const { schema } = reader;
    const route: Router | null = rule.kind === "key" ? createRouter(rule, splits, schema) : null;
    const sink: RowSink = (columns, row) => writers.append(route?.(columns, row) ?? split ?? 0, schema, columns, row);
    const chunks = counted(reader, options);
    const { shuffle } = options;
    if (shuffle === undefined) await forEachRow(chunks, sink);
    else {
      const sourceBytes = files.reduce((sum, { bytes }) => sum + bytes, 0);
      await shuffleRows(chunks, { schema, seed: shuffle, sourceBytes, folder }, sink);
    }
  } finally {
    reader.close();
  }
}

function openReader(
  format: FoundSources["format"],
  files: readonly SourceFile[],
  rule: SplitRule,
  { types = {}, threads, signal, onWarning }: ImportOptions,
): Promise<RowReader> {
  if (format === "arrow") return openArrow(files, signal);
  if (format === "images") return Promise.resolve(openImages(files, rule.kind === "folders", onWarning));
  return openTable({
    format,
    files,
    types,
    ...(threads === undefined ? {} : { threads }),
    ...(onWarning && { onWarning }),
  });
}

async function* counted(reader: RowReader, { onProgress, signal }: ImportOptions): AsyncGenerator<RowChunk> {
  let rows = 0;
  for await (const chunk of reader.chunks()) {
    if (signal?.aborted) throw new ShardpactError("aborted", "the import was aborted", { cause: signal.reason });
    yield chunk;
    rows += chunk.rows;
    onProgress?.({ rows, rowsTotal: reader.rowsTotal });
  }
}

interface SplitWriters {
  append(split: number, schema: Schema, columns: Parameters<RowSink>[0], row: number): Promise<void> | null;
  /** Resolves with the number of rows written. */
  finish(): Promise<number>;
}

function createSplitWriters(folder: string, splits: readonly string[]): SplitWriters {
  const open: ({ readonly builder: SegmentBuilder; readonly writer: ShardWriter } | undefined)[] = [];
  const writerOf = (split: number, schema: Schema) =>
    (open[split] ??= {
      builder: createSegmentBuilder(schema),
      writer: createShardWriter({ folder: join(folder, splits[split] ?? "") }),
    });
  return {
    append(split, schema, columns, row) {
      const { builder, writer } = writerOf(split, schema);
      const full = builder.append(columns, row);
      return full && writer.add(full);
    },
    async finish() {
      let rows = 0;
      for (const each of open) {
        if (!each) continue; // a split that no row came to
        const last = each.builder.finish();
        if (last) await each.writer.add(last);
        for (const shard of await each.writer.finish()) rows += shard.rows;
      }
      return rows;
    },
  };
}
