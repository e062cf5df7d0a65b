/**
 * Owns publishing: scan → put pages → upload bytes → commit, in this order, so that a version exists only when all that
 * it names does, and whatever dies on the way leaves nothing visible.
 *
 * Run again it is a retry: bytes that are there are read and not sent twice, and the commit's id is derived from (actor, dataset,
 * expected head, root), so that a commit whose answer was lost is answered, not repeated.
 */
import type { RecordBatch } from "apache-arrow";
import type { Digest } from "../model/bytes.ts";
import { isShardpactError, ShardpactError } from "../model/errors.ts";
import { type Imported, type ImportOptions, importSources, needsImport } from "../import/import.ts";
import { decodeClasses } from "../merkle/classes.ts";
import { prepareVersion, type PreparedVersion } from "../shards/prepare.ts";
import { uploadAll } from "../shards/upload-all.ts";
import type { ShardStore } from "../shards/port.ts";
import type { CallOptions } from "./confirm.ts";
import { commitDraft, putObjects } from "./commit.ts";
import { draftVersion, findBase, type Base, type Draft } from "./draft.ts";
import type { Session } from "./session.ts";

export type PublishSource = string | readonly string[] | AsyncIterable<RecordBatch>;

export interface PublishOptions extends CallOptions {
  /** The version that must be the head (null: the dataset must not exist). Default: the head when publishing starts. */
  readonly expectedHead?: number | null;
  /**
   * Shares of rows: `{ train: 0.9, val: 0.1 }`. Held out by `key`, or, of Arrow files without one, by position. Default:
   * folders, or as the head has it.
   */
  readonly split?: Readonly<Record<string, number>>;
  /** Columns that tell entities apart: rows are dealt to splits by a hash of them, the same in every version. */
  readonly key?: string | readonly string[];
  /** Seed: rows are written in an order drawn by lot, so that neighbours in the source are none in the shards. */
  readonly shuffle?: number | bigint;
  /** DuckDB types by column, for Parquet, CSV and NDJSON; the others keep what all of their values have. */
  readonly types?: Readonly<Record<string, string>>;
  /** Plain text columns that get an agreed class vocabulary; text dictionary columns have one anyway. */
  readonly classes?: readonly string[];
  /**
   * On top of the head's shards instead of in their place: only what is new is written, however much is there. Run again
   * without `expectedHead`, it appends again.
   */
  readonly append?: boolean;
  readonly message?: string;
  /** When somebody else commits first: commit these files on top of their version (a few times at most). */
  readonly rebase?: boolean;
  readonly onProgress?: (progress: PublishProgress) => void;
}

/** Bytes done of a phase; `warning` stands beside them when something was passed over. */
export interface PublishProgress {
  readonly phase: "import" | "scan" | "pages" | "upload" | "commit";
  /** Of `import`: rows. */
  readonly doneBytes: number;
  /** 0 when it is not known. */
  readonly totalBytes: number;
  readonly warning?: string;
}

export interface VersionInfo {
  readonly dataset: string;
  readonly version: number;
  readonly root: Digest;
  /** Log index of the commit. */
  readonly index: number;
  readonly rows: number;
  readonly bytes: number;
  readonly shards: number;
  /** Shards whose bytes were not in the store before, or damaged there. */
  readonly shardsNew: number;
  /** True when the head had this root already: nothing was committed. */
  readonly unchanged: boolean;
}

const REBASES_MAX = 8;

/**
 * Publishes files, folders or record batches as the next version of a dataset. The version holds these and no others. Arrow
 * files are taken as they are; Parquet, CSV, NDJSON and images are written as Arrow files first, and so is all that has a key or a shuffle.
 * `timeoutMs` bounds each step's wait for the group, not the scan and the upload: those end with `signal`.
 * @throws ShardpactError `head_moved` with the new head, `schema_differs` and `split_changed` (against the head),
 * `shard_malformed`, `limit_exceeded`, `store_failed`, `shard_corrupt` (a file changed meanwhile), and what `propose` throws
 */
export async function publish(
  session: Session,
  store: ShardStore,
  dataset: string,
  source: PublishSource,
  o: PublishOptions = {},
): Promise<VersionInfo> {
  let base = await findBase(session, dataset, o.expectedHead, o);
  await using imported = await importIfNeeded(base, source, o);
  await using prepared = await prepare(base, imported?.folder ?? source, imported, o);
  const message = [o.message ?? "", imported?.importer ?? ""].filter((part) => part !== "").join(" · ");
  for (let rebases = 0; ; rebases++) {
    const draft = await draftVersion(dataset, base, prepared, message);
    try {
      return await publishDraft(session, store, draft, prepared, o);
    } catch (error) {
      if (!isShardpactError(error, "head_moved") || o.rebase !== true || rebases >= REBASES_MAX) throw error;
      base = await findBase(session, dataset, undefined, o);
    }
  }
}

async function importIfNeeded(base: Base | null, source: PublishSource, o: PublishOptions): Promise<Imported | null> {
  if (typeof source !== "string" && Symbol.asyncIterator in source) {
    if (o.key === undefined && o.shuffle === undefined) return null;
    throw new ShardpactError("invalid_argument", "record batches are published in the order in which they come", {
      hint: "Leave key and shuffle out, or write the batches into files and publish those.",
    });
  }
  let doneBytes = 0; // rows
  let totalBytes = 0;
  const before = base?.splitRule.kind === "key" ? { rule: base.splitRule, splits: base.splits } : undefined;
  const options: ImportOptions = {
    sources: typeof source === "string" ? [source] : source,
    ...(o.split === undefined ? {} : { split: o.split }),
    ...(o.key === undefined ? {} : { key: typeof o.key === "string" ? [o.key] : o.key }),
    ...(before === undefined ? {} : { before }),
    ...(o.shuffle === undefined ? {} : { shuffle: o.shuffle }),
    ...(o.types === undefined ? {} : { types: o.types }),
    ...(o.signal === undefined ? {} : { signal: o.signal }),
    onProgress: ({ rows, rowsTotal }) => {
      [doneBytes, totalBytes] = [rows, rowsTotal ?? 0];
      o.onProgress?.({ phase: "import", doneBytes, totalBytes });
    },
    onWarning: (warning) => o.onProgress?.({ phase: "import", doneBytes, totalBytes, warning }),
  };
  return (await needsImport(options)) ? importSources(options) : null;
}

async function prepare(
  base: Base | null,
  sources: PublishSource,
  imported: Imported | null,
  o: PublishOptions,
): Promise<PreparedVersion> {
  let doneBytes = 0;
  let totalBytes = 0;
  const tell = (warning?: string) =>
    o.onProgress?.({ phase: "scan", doneBytes, totalBytes, ...(warning === undefined ? {} : { warning }) });
  const positional = o.split ?? base?.positional;
  return prepareVersion({
    sources,
    ...(imported ? { written: imported.written } : positional === undefined ? {} : { positional }),
    ...(o.classes === undefined ? {} : { classes: o.classes }),
    ...(base === null ? {} : { baseClasses: decodeClasses(base.classes) }),
    ...(o.signal === undefined ? {} : { signal: o.signal }),
    onProgress: (event) => {
      if (event.kind === "found") totalBytes = event.bytes;
      if (event.kind === "bytes") doneBytes += event.bytes;
      if (event.kind === "found" || event.kind === "bytes") tell();
      if (event.kind === "ignored") tell(`${event.path} is left out`);
      if (event.kind === "ignored_more") tell(`${event.files} more files are left out`);
      if (event.kind === "no_vocabulary") tell(`column '${event.column}' has too many values for class vocabularies`);
    },
  });
}

async function publishDraft(
  session: Session,
  store: ShardStore,
  draft: Draft,
  prepared: PreparedVersion,
  o: PublishOptions,
): Promise<VersionInfo> {
  let doneBytes = 0;
  const onBytes = (bytes: number): void => {
    doneBytes += bytes;
    o.onProgress?.({ phase: "pages", doneBytes, totalBytes: 0 });
  };
  onBytes(0);
  await putObjects(session, draft.objects, { ...o, onBytes });
  const shardsNew = await upload(store, prepared, o);
  o.onProgress?.({ phase: "commit", doneBytes: 0, totalBytes: 0 });
  const committed = await commitDraft(session, draft, o);
  return { ...committed, rows: draft.rows, bytes: draft.bytes, shards: draft.shards, shardsNew };
}

/** Brings all shards into the store; returns how many were not there, or not whole. */
async function upload(store: ShardStore, prepared: PreparedVersion, o: PublishOptions): Promise<number> {
  const totalBytes = prepared.shards.bytes;
  let doneBytes = 0;
  const onBytes = (bytes: number): void => {
    doneBytes += bytes;
    o.onProgress?.({ phase: "upload", doneBytes, totalBytes });
  };
  onBytes(0);
  return uploadAll(store, prepared, { ...(o.signal === undefined ? {} : { signal: o.signal }), onBytes });
}
