/**
 * Owns the public façade: a group that is connected to, and a dataset version that a majority confirmed.
 */
import { randomUUID } from "node:crypto";
import type { RecordBatch, Schema } from "apache-arrow";
import { lockedDatasetOf, lockOf, readLock, writeLock, type Lock } from "./client/lock.ts";
import { confirmedVersion, resolve, type Resolved } from "./client/open.ts";
import { publish, type PublishOptions, type PublishSource, type VersionInfo } from "./client/publish.ts";
import { command, resolveLocked } from "./client/runs.ts";
import type { Session } from "./client/session.ts";
import type { Stores } from "./client/stores.ts";
import { isCache } from "./shards/cache/cached-store.ts";
import type { Confirmation, ConfirmedVersion } from "./client/types.ts";
import { arrowBatches, type ArrowBatchesOptions } from "./loader/arrow-batches.ts";
import type { Digest } from "./model/bytes.ts";
import { ShardpactError } from "./model/errors.ts";
import { datasetName, parseRef } from "./model/names.ts";
import type { ShardStore } from "./shards/port.ts";
import { schemaFromCanonical } from "./shards/schema.ts";
import { createEvaluation, type EvalLoader, type EvalOptions } from "./tfjs/evaluation.ts";
import { createLoader, type Loader, type LoaderOptions } from "./tfjs/loader.ts";

export interface OpenOptions {
  /** Default 10 s. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Folders or `file:` URLs to read shards from before any other. */
  readonly stores?: readonly string[];
}

export interface OpenLockOptions extends OpenOptions {
  /** Path of a lock file. */
  readonly lock: string | URL;
  /** Which dataset, when the lock file holds several. */
  readonly name?: string;
}

export interface GroupPublishOptions extends PublishOptions {
  /** Folder or `file:` URL to bring the shards to. Default: the first that is configured, else the replicas' own. */
  readonly store?: string;
}

export interface TagOptions {
  /** The version that the tag must point at now (null: it must not exist); else `tag_moved`. Default: whatever. */
  readonly expected?: number | null;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** A run to give to loaders: `ds.loader({ run })`. The first rank's loader fixes its plan at its first batch. */
export interface Run {
  readonly id: string;
  readonly meta?: Readonly<Record<string, string>>;
  /** Records how it ended. @throws ShardpactError `not_found` when no loader began it, `run_ended` */
  end(outcome: "done" | "failed" | "stopped"): Promise<void>;
}

export interface Pin {
  readonly dataset: string;
  readonly version: number;
  readonly root: Digest;
  readonly run: string;
  /** Log index of the pin. */
  readonly index: number;
}

/** A group that is connected to. The caller closes it; that ends what its datasets still read. */
export interface Group extends AsyncDisposable {
  readonly name: string;
  /** Digest of the group's first log entry. */
  readonly id: string;
  /**
   * Opens `name`, `name@v3`, `name@tag` or `name@b3:<root>`, or what a lock file pins, once a majority has confirmed it.
   * @throws ShardpactError `no_quorum`, `not_found` (with the nearest names), `revoked`, `replica_diverged`, `root_mismatch`,
   * `group_forked`, `lock_mismatch`, `unavailable`, `aborted`
   * @typeParam S of a row: loaders take the names of its keys for columns, and no others
   */
  open<S = unknown>(ref: string, o?: OpenOptions): Promise<Dataset<S>>;
  open<S = unknown>(o: OpenLockOptions): Promise<Dataset<S>>;
  /**
   * Publishes Arrow files, folders of them or record batches as the next version; it holds these and no others.
   * @throws ShardpactError as `client/publish.ts`
   */
  publish(name: string, source: PublishSource, o?: GroupPublishOptions): Promise<VersionInfo>;
  /** Points a tag at a version. @throws ShardpactError `tag_moved`, `not_found`, `revoked`, and what every write throws */
  tag(name: string, tag: string, version: number, o?: TagOptions): Promise<void>;
  /** No I/O: a loader that is given the run begins it. The id is drawn when missing. */
  run(o?: { readonly id?: string; readonly meta?: Readonly<Record<string, string>> }): Run;
  close(): Promise<void>;
}

/** A version that a majority confirmed. Closing it only says that it is not used any more: loaders close themselves. */
export interface Dataset<S = unknown> extends AsyncDisposable {
  readonly name: string;
  readonly version: number;
  readonly root: Digest;
  readonly rows: number;
  readonly bytes: number;
  readonly schema: Schema;
  /** Rows per split. */
  readonly splits: Readonly<Record<string, number>>;
  /** Who confirmed it, at which log index. */
  readonly confirmed: Confirmation;
  /** What loaders of other frameworks build on. */
  readonly source: ConfirmedVersion;
  /** Writes (or adds to) a lock file that reproduces this version. @throws ShardpactError `lock_mismatch`, `config_invalid` */
  lock(file?: string): Promise<Lock>;
  /** Claims the version for a run, for ever. @throws ShardpactError `pin_conflict`, `revoked`, and what every write throws */
  pin(o: { readonly run: string; readonly note?: string }): Promise<Pin>;
  /** Verified record batches in file order, those of more than 64 MiB in parts; the caller keeps them. @throws ShardpactError as `loader/arrow-batches.ts` */
  batches(o?: ArrowBatchesOptions): AsyncIterable<RecordBatch>;
  /** For training; no I/O before its first batch, `size` is known at once. The caller closes it. @throws as `createLoader` */
  loader<T = S>(o: LoaderOptions<T>): Loader;
  /** A split in file order, from row 0 each time. The caller closes it. @throws as `createLoader` */
  evaluation<T = S>(o: EvalOptions<T>): EvalLoader;
  close(): Promise<void>;
}

const LOCK_FILE = "shardpact.lock";

interface GroupParts {
  readonly session: Session;
  readonly stores: Stores;
  close(): Promise<void>;
}

export function createGroup({ session, stores, close }: GroupParts): Group {
  return {
    name: session.group,
    id: session.groupId,
    open: (what: string | OpenLockOptions, o: OpenOptions = {}) =>
      typeof what === "string" ? openRef(session, stores, what, o) : openLocked(session, stores, what),
    publish: async (name, source, o = {}) => {
      requireName(name);
      const store = await stores.writable(o.store === undefined ? [] : [o.store]);
      return publish(session, store, name, source, o);
    },
    tag: async (dataset, tag, version, o = {}) => {
      const { expected, ...calls } = o;
      const body = { dataset, tag, version, ...(expected === undefined ? {} : { expected }) };
      await command(session, "tag.move", body, calls);
    },
    run: ({ id = randomUUID(), meta } = {}) => ({
      id,
      ...(meta === undefined ? {} : { meta }),
      end: async (outcome) => void (await command(session, "run.end", { run: id, outcome })),
    }),
    close,
    [Symbol.asyncDispose]: close,
  };
}

function requireName(name: string): void {
  const parsed = datasetName.safeParse(name);
  if (parsed.success) return;
  throw new ShardpactError("invalid_argument", `'${name}': ${parsed.error.issues[0]?.message ?? "no dataset name"}`);
}

async function openRef(session: Session, stores: Stores, text: string, o: OpenOptions): Promise<Dataset> {
  const ref = parseRef(text);
  const readable = beside(stores.readable(o.stores ?? []));
  const resolved = await resolve(session, ref, o);
  if (ref.target.kind === "head") noticeUnpinned(session, text, resolved);
  return openResolved(session, resolved, o, readable);
}

/** A bare name means another version tomorrow: say what it meant today. */
function noticeUnpinned(session: Session, text: string, { version }: Resolved): void {
  session.notice({
    code: "resolved",
    message: `${text} is ${text}@v${version.version} (${version.root}) now; open that, or a lock file, to have the same again`,
    details: { dataset: version.dataset, version: version.version, root: version.root },
  });
}

async function openLocked(session: Session, stores: Stores, o: OpenLockOptions): Promise<Dataset> {
  const lock = await readLock(o.lock);
  const { name, locked } = lockedDatasetOf(lock, o.name);
  const readable = beside(stores.readable(o.stores ?? [], locked.stores ?? []));
  const resolved = await resolveLocked(session, lock, name, locked, o);
  return openResolved(session, resolved, o, readable);
}

/** Goes on beside something else; a failure is told to whoever awaits it, or to nobody. */
function beside<T>(work: Promise<T>): Promise<T> {
  work.catch(() => undefined);
  return work;
}

async function openResolved(
  session: Session,
  resolved: Resolved,
  o: OpenOptions,
  readable: Promise<readonly ShardStore[]>,
): Promise<Dataset> {
  const source = await confirmedVersion(session, resolved, { ...o, stores: await readable });
  return createDataset(session, source);
}

function createDataset(session: Session, source: ConfirmedVersion): Dataset {
  const { dataset, version, root } = source;
  const close = () => Promise.resolve();
  return {
    name: dataset,
    version,
    root,
    rows: source.rows,
    bytes: source.bytes,
    schema: schemaFromCanonical(source.schema),
    splits: Object.fromEntries(source.splits.map((split) => [split.name, split.rows])),
    confirmed: source.confirmation,
    source,
    lock: (file = LOCK_FILE) => {
      const urls = source.stores.filter((store) => !isCache(store)).map((store) => store.url);
      return writeLock(file, lockOf(session, source, urls));
    },
    pin: async ({ run, note = "" }) => {
      const { index } = await command(session, "pin.create", { dataset, version, root, run, note });
      return { dataset, version, root, run, index };
    },
    batches: (o) => arrowBatches(source, o),
    loader: <S>(o: LoaderOptions<S>) => createLoader<S>(source, o),
    evaluation: <S>(o: EvalOptions<S>) => createEvaluation<S>(source, o),
    close,
    [Symbol.asyncDispose]: close,
  };
}
