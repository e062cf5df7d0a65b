/**
 * Owns the datasets of the scale bench: manifests of any number of shards over the same few files, so that only the manifest
 * grows. Each page names as many digests as a real one does: what readers ask of the group costs what it would cost.
 */
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { FixedSizeList, Field, Float32, RecordBatch, Schema, Struct, Table, makeData, tableToIPC } from "apache-arrow";
import { commitDraft, putObjects } from "../src/client/commit.ts";
import { draftVersion } from "../src/client/draft.ts";
import { inParallel } from "../src/shards/parallel.ts";
import type { Connection } from "../src/connect.ts";
import { LIMITS } from "../src/model/limits.ts";
import { prepareVersion, type PreparedVersion } from "../src/shards/prepare.ts";
import type { PreparedShard, ShardList } from "../src/shards/shard-list.ts";
import { uploadShard } from "../src/shards/upload.ts";

/** A page full of different files. */
const FILES = LIMITS.pageShardsMax;
const ROWS = 64;
const WIDTH = 256;
const UPLOADS_IN_FLIGHT = 4;

/** A shard of 64 rows of 256 float32: 64 KiB. */
export async function writeFloats(file: string, seed: number): Promise<void> {
  await writeFile(file, floatShard(ROWS, WIDTH, seed));
}

/** An Arrow file of one record batch of lists of `width` float32. */
export function floatShard(rows: number, width: number, seed: number): Uint8Array {
  const values = Float32Array.from({ length: rows * width }, (_, i) => seed + i / 1024);
  const child = makeData({ type: new Float32(), length: values.length, data: values });
  const type = new FixedSizeList(width, new Field("item", new Float32(), false));
  const list = makeData({ type, length: rows, child });
  const schema = new Schema([new Field("x", type, false)]);
  const batch = new RecordBatch(schema, makeData({ type: new Struct(schema.fields), length: rows, children: [list] }));
  return tableToIPC(new Table([batch]), "file");
}

/** Writes, scans and stores the files that all entries stand over. The caller closes it. */
export async function makeFiles({ stores }: Connection, dir: string): Promise<PreparedVersion> {
  const folder = path.join(dir, "files");
  await mkdir(folder);
  for (let i = 0; i < FILES; i++) await writeFloats(path.join(folder, `${String(i).padStart(4, "0")}.arrow`), i);
  const prepared = await prepareVersion({ sources: folder });
  const store = await stores.writable();
  await inParallel(prepared.shards, UPLOADS_IN_FLIGHT, async (shard) => void (await uploadShard(store, shard)));
  return prepared;
}

/** A list of `count` shards over the files, which is made as it is read. */
async function listOver({ shards }: PreparedVersion, count: number): Promise<ShardList> {
  const files: PreparedShard[] = [];
  for await (const shard of shards) files.push(shard);
  async function* read(): AsyncGenerator<PreparedShard> {
    for (let i = 0; i < count; i++) {
      const shard = files[i % files.length];
      if (shard) yield { ...shard, entry: { ...shard.entry, name: `part-${String(i).padStart(7, "0")}.arrow` } };
    }
  }
  return { count, rows: count * ROWS, bytes: 0, [Symbol.asyncIterator]: read };
}

/** Puts the pages of `count` entries over the files, and commits them as the first version of `dataset`. */
export async function publishManifest(
  { session }: Connection,
  dataset: string,
  count: number,
  files: PreparedVersion,
): Promise<void> {
  const draft = await draftVersion(dataset, null, { ...files, shards: await listOver(files, count) }, "");
  await putObjects(session, draft.objects, {});
  await commitDraft(session, draft, {});
}
