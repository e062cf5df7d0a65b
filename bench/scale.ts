/**
 * What a million shards cost: the commit of an append of ten, and `open` with the first batch of rank 0 of 64, beside the same on
 * a dataset of a thousand. Entries stand over few files: what grows is the manifest.
 * SCALE_SHARDS in the environment: fewer, for a try.
 */
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { pathToFileURL } from "node:url";
import { createRequire } from "node:module";
import { startLocalGroup } from "../src/cli/embedded/local-group.ts";
import { makeCommand, propose } from "../src/client/propose.ts";
import { publish } from "../src/client/publish.ts";
import { type Connection, openConnection } from "../src/connect.ts";
import { encodeClasses } from "../src/merkle/classes.ts";
import { summarizeManifest } from "../src/merkle/manifest.ts";
import { cutPages, encodePage, type PageEntry, pageTotals } from "../src/merkle/page.ts";
import { computeRoot, objectDigest } from "../src/merkle/root.ts";
import { type Digest, concatBytes, formatDigest, parseDigest } from "../src/model/bytes.ts";
import type { ObjectKind } from "../src/model/commands.ts";
import { prepareVersion } from "../src/shards/prepare.ts";
import { uploadShard } from "../src/shards/upload.ts";
import { tinyShard } from "../test/support/group.ts";
import { tempDir } from "../test/support/temp-dir.ts";
import { type Figure, latency, median } from "./report.ts";

const MANY = Number(process.env["SCALE_SHARDS"] ?? 1_000_000);
const FEW = 1_000;
const RUNS = 5;
const run = promisify(execFile);

interface Opened {
  readonly openMs: number;
  readonly firstBatchMs: number;
  readonly rssMiB: number;
}

/** Puts the pages of `count` entries over one file, and commits them as the first version. */
async function publishMany(
  { session, stores }: Connection,
  dataset: string,
  count: number,
  dir: string,
): Promise<void> {
  const store = await stores.writable();
  await using prepared = await prepareVersion({ sources: await tinyShard(dir, dataset, 1, 64) });
  const [shard] = prepared.shards;
  if (!shard) throw new Error("no shard");
  await uploadShard(store, shard);
  const put = async (kind: ObjectKind, bytes: Uint8Array): Promise<Digest> => {
    const digest = objectDigest(kind, bytes);
    await propose(session, makeCommand(session, randomUUID(), "page.put", { kind, digest }, bytes));
    return digest;
  };
  const entries = Array.from({ length: count }, (_, i): PageEntry => ({ ...shard.entry, name: `part-${i}.arrow` }));
  const manifest = [];
  for (const page of cutPages(entries)) {
    manifest.push({ page: await put("page", encodePage(page)), totals: pageTotals(page) });
  }
  const { treeHash, totals } = summarizeManifest(manifest);
  const fields = {
    schema: await put("schema", prepared.schema),
    classes: await put("classes", encodeClasses({})),
    ...{ splits: ["train"], splitRule: { kind: "none" as const } },
  };
  const pageCount = manifest.length;
  const root = computeRoot({ ...fields, pageCount, treeHash: formatDigest(treeHash), totals });
  const body = { ...fields, dataset, expectedHead: null, kept: 0, added: pageCount, root, message: "" };
  const pages = concatBytes(manifest.map(({ page }) => parseDigest(page)));
  await propose(session, makeCommand(session, randomUUID(), "version.commit", body, pages), { timeoutMs: 60_000 });
}

async function appendMs({ session, stores }: Connection, dataset: string, dir: string): Promise<number> {
  const store = await stores.writable();
  const took: number[] = [];
  for (let i = 0; i < RUNS; i++) {
    const folder = path.join(dir, `append-${dataset}-${i}`);
    await mkdir(folder);
    for (let n = 0; n < 10; n++) await tinyShard(folder, `new-${n}`, 10 * i + n + 2, 8);
    const startMs = performance.now();
    await publish(session, store, dataset, folder, { append: true });
    took.push(performance.now() - startMs);
  }
  return median(took);
}

/** In a process of its own, for its memory. */
async function openOnce(url: string, dataset: string): Promise<Opened> {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  const script = path.join(import.meta.dirname, "scale-client.ts");
  const { stdout } = await run(process.execPath, ["--import", tsx, script, url, dataset]);
  return JSON.parse(stdout) as Opened;
}

export async function benchScale(note: (line: string) => void): Promise<Figure[]> {
  await using dir = await tempDir("bench-scale");
  await using local = await startLocalGroup({ dir: path.join(dir.path, "group") });
  await local.waitForLeader();
  await using connection = await openConnection({ url: local.url });
  const measured: Record<string, { append: number; opened: Opened[] }> = {};
  for (const [dataset, count] of [
    ["few", FEW],
    ["many", MANY],
  ] as const) {
    note(`${count.toLocaleString("en")} shards: pages, commit`);
    await publishMany(connection, dataset, count, dir.path);
    note(`${dataset}: appends of ten, opens by rank 0 of 64`);
    const append = await appendMs(connection, dataset, dir.path);
    const opened: Opened[] = [];
    for (let i = 0; i < RUNS; i++) opened.push(await openOnce(local.url, dataset));
    measured[dataset] = { append, opened };
  }
  const [few, many] = [measured["few"], measured["many"]];
  if (!few || !many) throw new Error("nothing was measured");
  const beside = `${FEW} shards`;
  const of = (which: keyof Opened) => [
    median(many.opened.map((o) => o[which])),
    median(few.opened.map((o) => o[which])),
  ];
  const line = (figure: string, unit: string, [ours = 0, theirs = 0]: readonly number[]) =>
    latency(
      "scale",
      `${MANY.toLocaleString("en")} shards: ${figure}`,
      unit,
      ours,
      { name: beside, value: theirs },
      null,
    );
  return [
    line("append of ten", "ms", [many.append, few.append]),
    line("open", "ms", of("openMs")),
    line("first batch, rank 0 of 64", "ms", of("firstBatchMs")),
    line("memory of the process", "MiB", of("rssMiB")),
  ];
}
