/**
 * What publishing 1 GB costs beside `b3sum` of the same files in as many threads, from the page cache: all but the copy (scan, hash,
 * pages, commit), of it and of eight times as much, and the whole of it into an empty store, beside `b3sum` and then `cp` and `sync`.
 * And, as a bench of its own (`files`), what it costs to publish many small files: 50,000, or PUBLISH_FILES in the environment, beside 2,000.
 */
import { execFile } from "node:child_process";
import { link, mkdir, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { startLocalGroup } from "../src/cli/embedded/local-group.ts";
import { tempDir } from "../test/support/temp-dir.ts";
import { buildPackage, scriptCommand } from "./built.ts";
import { makeFloatData } from "./float-data.ts";
import { alternate, type Measured, type Run, shellRun } from "./peers.ts";
import { type Figure, latency, rate } from "./report.ts";
import { floatShard } from "./scale-data.ts";

const RUNS = 5;
const MEGABYTES = 1_074;
const FILES = Number(process.env["PUBLISH_FILES"] ?? 50_000);
const FEW_FILES = 2_000;
/** The larger input: each file under so many names. What is read is as much, and lies in the page cache once. */
const TIMES = 8;
const UNIT = "bytes/s";
const run = promisify(execFile);

export interface Published extends Run {
  readonly peakRssMiB: number;
}

/** In a process of its own: its CPU time and memory. Connecting is not in the time. */
async function publishOnce(url: string, dataset: string, folder: string, copy: "copy" | "none"): Promise<Published> {
  const { file, args } = scriptCommand("publish-client.ts");
  const { stdout } = await run(file, [...args, url, dataset, folder, copy]);
  return JSON.parse(stdout) as Published;
}

/** The files in a folder, and under `TIMES` names each in another. */
async function makeFolders(files: readonly string[], dir: string): Promise<{ folder: string; large: string }> {
  const [folder, large] = [path.join(dir, "files"), path.join(dir, "large")];
  for (const made of [folder, large]) await mkdir(made);
  for (const [i, file] of files.entries()) {
    const name = `${String(i).padStart(3, "0")}.arrow`;
    await run("cp", [file, path.join(folder, name)]);
    for (let k = 0; k < TIMES; k++) await link(path.join(folder, name), path.join(large, `${k}-${name}`));
  }
  return { folder, large };
}

async function beside(url: string, note: (line: string) => void): Promise<Figure[]> {
  await using data = await makeFloatData(64, MEGABYTES);
  await using dir = await tempDir("bench-publish");
  const { folder, large } = await makeFolders(data.files, dir.path);
  const { bytes } = data;
  const name = `b3sum --num-threads ${availableParallelism()}`;
  let runs = 0;
  const found = await alternate(RUNS, {
    hashed: () => publishOnce(url, `hashed-${runs++}`, folder, "none"),
    b3sum: () => shellRun(`${name} "$1"/* > /dev/null`, [folder], bytes),
    largeHashed: () => publishOnce(url, `large-${runs++}`, large, "none"),
    largeB3sum: () => shellRun(`${name} "$1"/* > /dev/null`, [large], TIMES * bytes),
    whole: () => publishOnce(url, `whole-${runs++}`, folder, "copy"),
    copied: async () => {
      const copy = path.join(dir.path, "copy");
      const line = `${name} "$1"/* > /dev/null && cp -r "$1" "$2" && sync "$2"/*`;
      const copied = await shellRun(line, [folder, copy], bytes);
      await rm(copy, { recursive: true });
      return copied;
    },
  });
  for (const [what, { cpuNs }] of Object.entries(found)) note(`${what}: ${(cpuNs * 1000).toFixed(0)} CPU µs a MB`);
  const { hashed, b3sum, largeHashed, largeB3sum, whole, copied } = found;
  const further = (all: Measured, first: Measured): number => (all.cpuNs * TIMES - first.cpuNs) / (TIMES - 1);
  const cpu = (value: number) => ({ name: `${name}, CPU`, value });
  const largeOf = `${((TIMES * bytes) / 1e9).toFixed(1)} GB`;
  return [
    rate("publish", "scan, hash, pages, commit", UNIT, hashed.rate, { name, value: b3sum.rate }, 0.8),
    latency("publish", "the same, CPU", "ns/byte", hashed.cpuNs, cpu(b3sum.cpuNs), 0.8),
    rate("publish", `the same of ${largeOf}`, UNIT, largeHashed.rate, { name, value: largeB3sum.rate }, 0.8),
    latency("publish", `the same of ${largeOf}, CPU`, "ns/byte", largeHashed.cpuNs, cpu(largeB3sum.cpuNs), 0.8),
    latency(
      "publish",
      "the same, CPU of each further byte",
      "ns/byte",
      further(largeHashed, hashed),
      cpu(further(largeB3sum, b3sum)),
      0.8,
    ),
    rate(
      "publish",
      "with the copy into the store",
      UNIT,
      whole.rate,
      { name: `${name}; cp; sync`, value: copied.rate },
      null,
    ),
    latency(
      "publish",
      "with the copy, CPU",
      "ns/byte",
      whole.cpuNs,
      { name: `${name}; cp; sync, CPU`, value: copied.cpuNs },
      null,
    ),
  ];
}

async function makeSmallFiles(folder: string, count: number): Promise<void> {
  await mkdir(folder);
  for (let i = 0; i < count; i++)
    await writeFile(path.join(folder, `${String(i).padStart(7, "0")}.arrow`), floatShard(8, 4, i));
}

/** Small files in one process, many more in another: what grows. */
async function small(url: string, note: (line: string) => void): Promise<Figure[]> {
  await using dir = await tempDir("bench-publish-small");
  const measured: Published[] = [];
  for (const count of [FEW_FILES, FILES]) {
    const folder = path.join(dir.path, String(count));
    await makeSmallFiles(folder, count);
    const published = await publishOnce(url, `small-${count}`, folder, "copy");
    const { ms, cpuMs = 0, peakRssMiB } = published;
    note(
      `${count} files: ${(ms / 1000).toFixed(1)} s, CPU ${(cpuMs / 1000).toFixed(1)} s, ${peakRssMiB.toFixed(0)} MiB at most`,
    );
    measured.push(published);
  }
  const [few, many] = measured;
  if (!few || !many) throw new Error("nothing was measured");
  const name = `${FEW_FILES.toLocaleString("en")} files`;
  const what = `${FILES.toLocaleString("en")} small files`;
  const each = (published: Published, count: number): number => published.ms / count;
  return [
    latency("files", `${what}: each`, "ms", each(many, FILES), { name, value: each(few, FEW_FILES) }, null),
    latency("files", `${what}: memory at most`, "MiB", many.peakRssMiB, { name, value: few.peakRssMiB }, null),
  ];
}

async function inGroup(bench: (url: string) => Promise<Figure[]>): Promise<Figure[]> {
  await buildPackage();
  await using dir = await tempDir("bench-publish-group");
  await using local = await startLocalGroup({ dir: dir.path });
  await local.waitForLeader();
  return await bench(local.url);
}

export const benchPublish = (note: (line: string) => void): Promise<Figure[]> => inGroup((url) => beside(url, note));
export const benchFiles = (note: (line: string) => void): Promise<Figure[]> => inGroup((url) => small(url, note));
