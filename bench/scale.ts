/**
 * What a million shards cost: the commit of an append of ten, and `open` with the first batch of rank 0 of 64, beside the same on
 * a dataset of a thousand; and what a replica keeps: its memory, its database, a snapshot of it. Entries stand over few files:
 * what grows is the manifest.
 * SCALE_SHARDS in the environment: fewer, for a try.
 */
import { execFile } from "node:child_process";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { startLocalGroup } from "../src/cli/embedded/local-group.ts";
import { publish } from "../src/client/publish.ts";
import { type Connection, openConnection } from "../src/connect.ts";
import { tempDir } from "../test/support/temp-dir.ts";
import { buildPackage, scriptCommand } from "./built.ts";
import { measureKept, type Kept } from "./scale-kept.ts";
import { type Figure, latency, median } from "./report.ts";
import { makeFiles, publishManifest, writeFloats } from "./scale-data.ts";

const MANY = Number(process.env["SCALE_SHARDS"] ?? 1_000_000);
const FEW = 1_000;
const RUNS = 7;
const run = promisify(execFile);

interface Opened {
  readonly openMs: number;
  readonly openCpuMs: number;
  readonly openRssMiB: number;
  readonly firstBatchMs: number;
  readonly firstBatchCpuMs: number;
  readonly rssMiB: number;
}

async function append(
  { session, stores }: Connection,
  dataset: string,
  folder: string,
): Promise<{ ms: number; cpuMs: number }> {
  const store = await stores.writable();
  const startMs = performance.now();
  const before = process.cpuUsage();
  await publish(session, store, dataset, folder, { append: true });
  const { user, system } = process.cpuUsage(before);
  return { ms: performance.now() - startMs, cpuMs: (user + system) / 1000 };
}

/** In a process of its own, for its memory. */
async function openOnce(url: string, dataset: string): Promise<Opened> {
  const { file, args } = scriptCommand("scale-client.ts");
  const { stdout } = await run(file, [...args, url, dataset]);
  return JSON.parse(stdout) as Opened;
}

export async function benchScale(note: (line: string) => void): Promise<Figure[]> {
  await buildPackage();
  await using dir = await tempDir("bench-scale");
  await using local = await startLocalGroup({ dir: path.join(dir.path, "group") });
  await local.waitForLeader();
  await using connection = await openConnection({ url: local.url });
  await using files = await makeFiles(connection, dir.path);
  const datasets = { few: FEW, many: MANY };
  const kept: Kept[] = [];
  for (const [dataset, count] of Object.entries(datasets)) {
    const startMs = performance.now();
    await publishManifest(connection, dataset, count, files);
    const seconds = (performance.now() - startMs) / 1000;
    note(`${count.toLocaleString("en")} shards: pages and commit in ${seconds.toFixed(1)} s`);
    kept.push(await measureKept(local, path.join(dir.path, `${dataset}.snapshot`)));
  }
  const [keptFew, keptMany] = kept;
  const appends: Record<string, { ms: number; cpuMs: number }[]> = { few: [], many: [] };
  const opens: Record<string, Opened[]> = { few: [], many: [] };
  // In turns, so that a noisy minute falls on both; the first of each warms up.
  for (let i = 0; i <= RUNS; i++) {
    for (const dataset of Object.keys(datasets)) {
      const folder = path.join(dir.path, `append-${dataset}-${i}`);
      await mkdir(folder);
      for (let n = 0; n < 10; n++) await writeFloats(path.join(folder, `${n}.arrow`), 2_000 + 10 * i + n);
      const took = await append(connection, dataset, folder);
      const opened = await openOnce(local.url, dataset);
      if (i === 0) continue;
      appends[dataset]?.push(took);
      opens[dataset]?.push(opened);
    }
  }
  const line = (figure: string, unit: string, values: (dataset: string) => readonly number[]): Figure => {
    const theirs = { name: `${FEW.toLocaleString("en")} shards`, value: median(values("few")) };
    const name = `${MANY.toLocaleString("en")} shards: ${figure}`;
    return latency("scale", name, unit, median(values("many")), theirs, null);
  };
  const whatIsKept = (figure: string, unit: string, of: keyof Kept): Figure =>
    line(figure, unit, (dataset) => [(dataset === "few" ? keptFew : keptMany)?.[of] ?? NaN]);
  const of = (figure: keyof Opened) => (dataset: string) => (opens[dataset] ?? []).map((o) => o[figure]);
  return [
    line("append of ten", "ms", (dataset) => (appends[dataset] ?? []).map(({ ms }) => ms)),
    line("append of ten, CPU of the client", "ms", (dataset) => (appends[dataset] ?? []).map(({ cpuMs }) => cpuMs)),
    line("open", "ms", of("openMs")),
    line("open, CPU of the client", "ms", of("openCpuMs")),
    line("memory after open", "MiB", of("openRssMiB")),
    line("first batch, rank 0 of 64", "ms", of("firstBatchMs")),
    line("first batch, CPU of the client", "ms", of("firstBatchCpuMs")),
    line("memory after the first batch", "MiB", of("rssMiB")),
    whatIsKept("a replica's memory", "MiB", "replicaMiB"),
    whatIsKept("a replica's memory, started again", "MiB", "restartedMiB"),
    whatIsKept("a replica's database", "MiB", "databaseMiB"),
    whatIsKept("a snapshot", "MiB", "snapshotMiB"),
  ];
}
