/**
 * What publishing 1 GB costs beside `b3sum` of the same files in as many threads, from the page cache: all but the copy (scan, hash,
 * pages, commit), and the whole of it into an empty store, beside `b3sum` and then `cp` and `sync`. And, as a bench of its own
 * (`files`), what it costs to publish many small files: 50,000, or PUBLISH_FILES in the environment, beside 2,000.
 */
import { execFile } from "node:child_process";
import { mkdir, stat, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { startLocalGroup } from "../src/cli/embedded/local-group.ts";
import { tempDir } from "../test/support/temp-dir.ts";
import { buildPackage, scriptCommand } from "./built.ts";
import { makeFloatData } from "./float-data.ts";
import { alternate, type Run, shellRun } from "./peers.ts";
import { type Figure, latency, rate } from "./report.ts";
import { floatShard } from "./scale-data.ts";

const RUNS = 5;
const MEGABYTES = 1_074;
const FILES = Number(process.env["PUBLISH_FILES"] ?? 50_000);
const FEW_FILES = 2_000;
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

async function beside(url: string, note: (line: string) => void): Promise<Figure[]> {
  await using data = await makeFloatData(64, MEGABYTES);
  await using dir = await tempDir("bench-publish");
  const [folder, half] = [path.join(dir.path, "files"), path.join(dir.path, "half")];
  let halfBytes = 0;
  for (const [i, file] of data.files.entries()) {
    const name = `${String(i).padStart(3, "0")}.arrow`;
    const isHalf = i % 2 === 0;
    for (const into of isHalf ? [folder, half] : [folder]) {
      await mkdir(into, { recursive: true });
      await run("cp", [file, path.join(into, name)]);
    }
    if (isHalf) halfBytes += (await stat(file)).size;
  }
  const bytes = data.bytes;
  const threads = availableParallelism();
  let runs = 0;
  const copies = (): string => path.join(dir.path, `copy-${runs++}`);
  const found = await alternate(RUNS, {
    hashed: () => publishOnce(url, `hashed-${runs++}`, folder, "none"),
    half: () => publishOnce(url, `half-${runs++}`, half, "none"),
    b3sum: () => shellRun(`b3sum --num-threads ${threads} "$1"/* > /dev/null`, [folder], bytes),
    whole: () => publishOnce(url, `whole-${runs++}`, folder, "copy"),
    copied: () =>
      shellRun(
        `b3sum --num-threads ${threads} "$1"/* > /dev/null && cp -r "$1" "$2" && sync "$2"/*`,
        [folder, copies()],
        bytes,
      ),
  });
  for (const [name, { cpuNs }] of Object.entries(found)) note(`${name}: ${(cpuNs * 1000).toFixed(0)} CPU µs a MB`);
  const { hashed, half: ofHalf, b3sum, whole, copied } = found;
  const furtherNs = (hashed.cpuNs * bytes - ofHalf.cpuNs * halfBytes) / (bytes - halfBytes);
  const name = `b3sum --num-threads ${threads}`;
  const cpu = { name: `${name}, CPU`, value: b3sum.cpuNs };
  return [
    rate("publish", "scan, hash, pages, commit", UNIT, hashed.rate, { name, value: b3sum.rate }, 0.8),
    latency("publish", "the same, CPU", "ns/byte", hashed.cpuNs, cpu, 0.8),
    latency("publish", "the same, CPU of each further byte", "ns/byte", furtherNs, cpu, 0.8),
    rate(
      "publish",
      "with the copy into the store",
      UNIT,
      whole.rate,
      { name: `${name}; cp; sync`, value: copied.rate },
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
    note(`${count} files: ${(published.ms / 1000).toFixed(1)} s, ${published.peakRssMiB.toFixed(0)} MiB at most`);
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
