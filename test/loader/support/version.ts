/**
 * A confirmed version over files in a temporary folder, without a group: what `openVersion` would give.
 */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  Bool,
  Field,
  FixedSizeList,
  Float32,
  Int32,
  makeData,
  makeVector,
  RecordBatch,
  Schema,
  Struct,
  type DataType,
  type Vector,
} from "apache-arrow";
import { summarizeSplits } from "../../../src/client/splits.ts";
import type { ConfirmedVersion, ManifestPage, ShardEntry } from "../../../src/client/types.ts";
import { decodeClasses } from "../../../src/merkle/classes.ts";
import { summarizeManifest } from "../../../src/merkle/manifest.ts";
import { cutPages, encodePage, pageDigest, pageTotals } from "../../../src/merkle/page.ts";
import { computeRoot, objectDigest } from "../../../src/merkle/root.ts";
import { formatDigest } from "../../../src/model/bytes.ts";
import { ShardpactError } from "../../../src/model/errors.ts";
import { openDirectoryStore } from "../../../src/shards/directory-store.ts";
import type { PassedOver } from "../../../src/shards/shard-ref.ts";
import { prepareVersion } from "../../../src/shards/prepare.ts";
import { uploadShard } from "../../../src/shards/upload.ts";
import { writeShards } from "../../../src/shards/write.ts";
import { collect } from "../../support/collect.ts";

/** What of a version can be sent to another process (`memory-process.mjs`). */
export interface VersionData extends Pick<
  ConfirmedVersion,
  "root" | "rows" | "bytes" | "splits" | "splitRule" | "pageRows" | "schema" | "classes" | "confirmation"
> {
  readonly manifest: readonly ManifestPage[];
  readonly pages: readonly (readonly ShardEntry[])[];
  /** The folder of the store. */
  readonly store: string;
}

export interface TestVersion extends AsyncDisposable {
  readonly version: ConfirmedVersion;
  readonly data: VersionData;
  /** The store's folder, to damage files in. */
  readonly store: string;
  readonly calls: { plans: unknown[]; receipts: unknown[]; reconfirms: number; passedOver: PassedOver[] };
  close(): Promise<void>;
}

export interface TestVersionOptions {
  /** Record batches of each split; `""` stands for files in no folder. */
  readonly splits: Readonly<Record<string, Iterable<RecordBatch>>>;
  readonly shardBytes?: number;
  readonly pageShards?: number;
  readonly positional?: Readonly<Record<string, number>>;
  readonly classes?: readonly string[];
  readonly reconfirm?: ConfirmedVersion["reconfirm"];
  readonly beginRun?: ConfirmedVersion["beginRun"];
}

export async function makeVersion(o: TestVersionOptions): Promise<TestVersion> {
  const folder = await mkdtemp(join(tmpdir(), "shardpact-loader-"));
  const source = join(folder, "source");
  for (const [split, batches] of Object.entries(o.splits)) {
    await mkdir(join(source, split), { recursive: true });
    await writeShards(batches, { folder: join(source, split), shardBytes: o.shardBytes ?? 4096 });
  }
  const prepared = await prepareVersion({
    sources: source,
    ...(o.positional ? { positional: o.positional } : {}),
    ...(o.classes ? { classes: o.classes } : {}),
  });
  const storeFolder = join(folder, "store");
  const store = await openDirectoryStore(storeFolder);
  for await (const shard of prepared.shards) await uploadShard(store, shard);
  const entries = (await collect(prepared.shards)).map((s) => s.entry);
  const pages = o.pageShards ? chunk(entries, o.pageShards) : cutPages(entries);
  const manifest = pages.map((page) => ({ page: pageDigest(encodePage(page)), totals: pageTotals(page) }));
  const { treeHash, totals } = summarizeManifest(manifest);
  const { splits: names, splitRule } = prepared;
  const root = computeRoot({
    schema: objectDigest("schema", prepared.schema),
    classes: objectDigest("classes", prepared.classes),
    splits: names,
    splitRule,
    pageCount: pages.length,
    treeHash: formatDigest(treeHash),
    totals,
  });
  const all = async function* () {
    yield* pages;
  };
  const { splits, pageRows } = await summarizeSplits({ splits: [...names], totals }, splitRule, all);
  const calls: TestVersion["calls"] = { plans: [], receipts: [], reconfirms: 0, passedOver: [] };
  const confirmation = {
    groupId: "b3:group",
    term: 1,
    index: 7,
    chain: "c0ffee",
    replicas: ["r1", "r2"],
    diverged: [],
    atMs: 0,
  };
  const version: ConfirmedVersion = {
    dataset: "things",
    version: 1,
    root,
    index: 7,
    confirmation,
    rows: splits.reduce((sum, s) => sum + s.rows, 0),
    bytes: totals.reduce((sum, t) => sum + t.bytes, 0),
    splits,
    splitRule,
    pageRows,
    schema: prepared.schema,
    classes: decodeClasses(prepared.classes),
    stores: [store],
    onPassedOver: (passed) => void calls.passedOver.push(passed),
    manifest: async () => manifest,
    page: async (position) => {
      const page = pages[position];
      if (!page) throw new ShardpactError("not_found", `no page ${position}`);
      return page;
    },
    reconfirm: async (signal, since) => {
      calls.reconfirms++;
      return o.reconfirm ? o.reconfirm(signal, since) : confirmation;
    },
    beginRun: async (run, plan, meta, epoch) => {
      calls.plans.push({ run, plan, meta });
      await o.beginRun?.(run, plan, meta, epoch);
    },
    sendReceipt: async (run, rank, receipt) => void calls.receipts.push({ run, rank, receipt }),
    lease: async (_run, ttlMs) => ttlMs,
    following: {
      agreed: async () => null,
      propose: async () => undefined,
      newest: async () => version,
      open: async () => version,
    },
  };
  const { rows, bytes, schema, classes } = version;
  const facts = { root, rows, bytes, splits, splitRule, pageRows, schema, classes, confirmation };
  const data: VersionData = { ...facts, manifest, pages, store: storeFolder };
  const close = async (): Promise<void> => {
    await store.close();
    await prepared.close();
    await rm(folder, { recursive: true, force: true });
  };
  return { version, data, store: storeFolder, calls, close, [Symbol.asyncDispose]: close };
}

function chunk<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}

/** A batch of named vectors. */
export function batchOf(columns: Readonly<Record<string, Vector>>): RecordBatch {
  const entries = Object.entries(columns);
  const fields = entries.map(
    ([name, vector]) => new Field(name, vector.type as DataType, vector.nullable || vector.nullCount > 0),
  );
  const length = entries[0]?.[1].length ?? 0;
  const children = entries.map(([, vector]) => vector.data[0] as NonNullable<(typeof vector.data)[0]>);
  return new RecordBatch(new Schema(fields), makeData({ type: new Struct(fields), length, children }));
}

/** A FixedSizeList vector over float32 values. */
export function listsOf(values: Float32Array, size: number): Vector {
  const child = makeData({ type: new Float32(), data: values });
  const type = new FixedSizeList(size, new Field("item", new Float32(), false));
  return makeVector(makeData({ type, length: values.length / size, child }));
}

/** Rows first…first+count of a table whose values tell their row: `x` = [row, row + ½, −row], `y` = row mod 5, `even`. */
export function numberedBatch(first: number, count: number): RecordBatch {
  const x = new Float32Array(count * 3);
  const y = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const row = first + i;
    x.set([row, row + 0.5, -row], i * 3);
    y[i] = row % 5;
  }
  const bits = new Uint8Array(Math.ceil(count / 8));
  for (let i = 0; i < count; i++) if ((first + i) % 2 === 0) bits[i >>> 3] = (bits[i >>> 3] ?? 0) | (1 << (i & 7));
  return batchOf({
    x: listsOf(x, 3),
    y: makeVector(makeData({ type: new Int32(), data: y })),
    even: makeVector(makeData({ type: new Bool(), length: count, data: bits })),
  });
}

/** `rows` numbered rows in batches of at most `batchRows`, from `first` on. */
export function numberedBatches(rows: number, batchRows: number, first = 0): RecordBatch[] {
  const batches: RecordBatch[] = [];
  for (let at = 0; at < rows; at += batchRows) batches.push(numberedBatch(first + at, Math.min(batchRows, rows - at)));
  return batches;
}

/** `rows` rows of `width` float32, `x`, in batches of about `batchBytes`, made as they are asked for. */
export function* floatBatches(rows: number, width: number, batchBytes: number): Generator<RecordBatch> {
  const batchRows = Math.max(1, Math.floor(batchBytes / (width * 4)));
  for (let from = 0; from < rows; from += batchRows) {
    const values = new Float32Array(Math.min(batchRows, rows - from) * width);
    for (let i = 0; i < values.length; i++) values[i] = (from + i) % 9973;
    yield batchOf({ x: listsOf(values, width) });
  }
}
