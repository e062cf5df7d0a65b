/**
 * Owns the loader bench's peers outside of Node: Python's loaders in an environment of their own, made once in the cache
 * folder, and `b3sum`. A peer that can't be had is named and left out.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { median } from "./report.ts";

const run = promisify(execFile);
const CACHE = join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "shardpact");
/** Environments apart: their packages want different versions of one another. */
const ENVIRONMENTS: Readonly<
  Record<string, { readonly packages: readonly string[]; readonly peers: readonly string[] }>
> = {
  "bench-datasets": { packages: ["datasets==5.2.*", "numpy", "pyarrow"], peers: ["hugging_face"] },
  "bench-torch": {
    packages: ["torch", "mosaicml-streaming==0.13.*", "numpy", "pyarrow", "pillow"],
    peers: ["torch_loaders", "mosaic"],
  },
};
/** As above, for pictures. */
const IMAGE_ENVIRONMENTS: typeof ENVIRONMENTS = {
  "bench-pictures": { packages: ["datasets==5.2.*", "numpy", "pyarrow", "pillow"], peers: ["hugging_face"] },
  "bench-torch": { packages: ENVIRONMENTS["bench-torch"]?.packages ?? [], peers: ["torch_loaders", "mosaic"] },
};

export interface Peer {
  readonly name: string;
  /** Samples per second, and CPU seconds per million samples. */
  readonly rate: number;
  readonly cpu: number;
}

async function environment(name: string, packages: readonly string[], note: (line: string) => void): Promise<string> {
  const place = join(CACHE, name);
  const binary = join(place, "bin", "python");
  if (existsSync(join(place, "made"))) return binary;
  note(`making the Python environment ${name}, once`);
  await mkdir(CACHE, { recursive: true });
  await run("python3", ["-m", "venv", place]);
  await run(binary, ["-m", "pip", "install", "-q", ...packages], { timeout: 1_800_000 });
  await writeFile(join(place, "made"), "");
  return binary;
}

/** What Python's loaders reach over the rows of one Arrow file, median of `runs`. Those that can't be had are noted. */
export async function pythonPeers(
  file: string,
  column: string,
  batchRows: number,
  runs: number,
  note: (line: string) => void,
): Promise<readonly Peer[]> {
  const script = fileURLToPath(new URL("./peers.py", import.meta.url));
  const found: Peer[] = [];
  for (const [name, { packages, peers }] of Object.entries(ENVIRONMENTS)) {
    try {
      const binary = await environment(name, packages, note);
      const args = [script, file, column, String(batchRows), String(runs), ...peers];
      const { stdout } = await run(binary, args, { timeout: 600_000 });
      const lines = stdout.split("\n").filter((line) => line.startsWith("{"));
      found.push(...lines.map((line) => JSON.parse(line) as Peer));
    } catch (error) {
      note(`without ${peers.join(", ")}: ${error instanceof Error ? error.message.split("\n")[0] : String(error)}`);
    }
  }
  return found;
}

/** What Python's loaders reach over a folder of JPEG files; CPU microseconds an image. Those that can't be had are noted. */
export async function imagePeers(
  folder: string,
  batchRows: number,
  runs: number,
  note: (line: string) => void,
): Promise<readonly Peer[]> {
  const script = fileURLToPath(new URL("./peers_images.py", import.meta.url));
  const found: Peer[] = [];
  for (const [name, { packages, peers }] of Object.entries(IMAGE_ENVIRONMENTS)) {
    try {
      const binary = await environment(name, packages, note);
      const { stdout } = await run(binary, [script, folder, String(batchRows), String(runs), ...peers], {
        timeout: 600_000,
      });
      const lines = stdout.split("\n").filter((line) => line.startsWith("{"));
      found.push(...lines.map((line) => JSON.parse(line) as Peer));
    } catch (error) {
      note(`without ${peers.join(", ")}: ${error instanceof Error ? error.message.split("\n")[0] : String(error)}`);
    }
  }
  return found;
}

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc") as () => void;

/** One run: how much, in which time; CPU time is that of this process unless it is said. */
export interface Run {
  readonly amount: number;
  readonly ms: number;
  readonly cpuMs?: number;
}

/** Times `work`, which says how much it did. */
export async function timed(work: () => Promise<number>): Promise<Run> {
  const startedMs = performance.now();
  const amount = await work();
  return { amount, ms: performance.now() - startedMs };
}

/** Times a line of bash over `amount` of something, its start included; `args` are $1, $2, …. @throws when it fails */
export async function shellRun(line: string, args: readonly string[], amount: number): Promise<Run> {
  const { stderr } = await run("bash", ["-c", `TIMEFORMAT='%R %U %S'; time { ${line}; }`, "bench", ...args]);
  const [real = 0, user = 0, system = 0] = stderr.trim().split(" ").map(Number);
  return { amount, ms: real * 1000, cpuMs: (user + system) * 1000 };
}

/** `b3sum --num-threads 1` over files, its start included; null when it is not installed. */
export async function b3sum(files: readonly string[], bytes: number): Promise<Run | null> {
  return shellRun('b3sum --num-threads 1 "$@" > /dev/null', files, bytes).catch(() => null);
}

/** Medians: amount a second, and CPU nanoseconds for one of it. */
export interface Measured {
  readonly rate: number;
  readonly cpuNs: number;
}

/** Alternating runs of several things, so that a noisy minute falls on all of them: medians by name. */
export async function alternate<T extends string>(
  runs: number,
  what: Readonly<Record<T, () => Promise<Run>>>,
): Promise<Record<T, Measured>> {
  const entries = Object.entries(what) as [T, () => Promise<Run>][];
  const found = new Map<T, { rate: number; cpuNs: number }[]>(entries.map(([name]) => [name, []]));
  for (let i = 0; i <= runs; i++) {
    for (const [name, measure] of entries) {
      collectGarbage(); // so that nobody pays for what another left
      const before = process.cpuUsage();
      const { amount, ms, cpuMs } = await measure();
      const { user, system } = process.cpuUsage(before);
      const value = { rate: amount / (ms / 1000), cpuNs: ((cpuMs ?? (user + system) / 1000) * 1e6) / amount };
      if (i > 0) found.get(name)?.push(value); // the first round warms up
    }
  }
  const medians = entries.map(([name]) => {
    const all = found.get(name) ?? [];
    return [name, { rate: median(all.map((v) => v.rate)), cpuNs: median(all.map((v) => v.cpuNs)) }];
  });
  return Object.fromEntries(medians) as Record<T, Measured>;
}
