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
import { median } from "./report.ts";

const run = promisify(execFile);
const CACHE = join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "shardpact");
/** Environments apart: their packages want different versions of one another. */
const ENVIRONMENTS: Readonly<
  Record<string, { readonly packages: readonly string[]; readonly peers: readonly string[] }>
> = {
  "bench-datasets": { packages: ["datasets==5.2.*", "numpy", "pyarrow"], peers: ["hugging_face"] },
  "bench-torch": {
    packages: ["torch", "mosaicml-streaming==0.13.*", "numpy", "pyarrow"],
    peers: ["torch_loaders", "mosaic"],
  },
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

/** Bytes per second of `b3sum --num-threads 1` over files, its start included; null when it is not installed. */
export async function b3sumRate(files: readonly string[], bytes: number): Promise<number | null> {
  const startedMs = performance.now();
  try {
    await run("b3sum", ["--num-threads", "1", ...files]);
  } catch {
    return null;
  }
  return bytes / ((performance.now() - startedMs) / 1000);
}

/** Alternating runs of several things, so that a noisy minute falls on all of them: medians by name. */
export async function alternate<T extends string>(
  runs: number,
  what: Readonly<Record<T, () => Promise<number>>>,
): Promise<Record<T, number>> {
  const values = new Map<T, number[]>();
  const entries = Object.entries(what) as [T, () => Promise<number>][];
  for (let i = 0; i <= runs; i++) {
    for (const [name, measure] of entries) {
      const value = await measure();
      if (i > 0) values.set(name, [...(values.get(name) ?? []), value]); // the first round warms up
    }
  }
  return Object.fromEntries(entries.map(([name]) => [name, median(values.get(name) ?? [])])) as Record<T, number>;
}
