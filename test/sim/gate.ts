/**
 * Owns the gate of mutations: each bug of `mutations/` goes into a copy of the sources, and the simulator must find it.
 */
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { EngineName } from "./engines.ts";
import type { Mutation } from "./mutations/mutation.ts";

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const COPIED = ["src", "test/sim", "package.json", "tsconfig.json"];

/** One bug under one engine. */
export interface Suspect {
  readonly engine: EngineName;
  readonly mutation: Mutation;
}

export interface Catch extends Suspect {
  /** Null: not within its seeds. */
  readonly seed: number | null;
  readonly seconds: number;
  /** The violation, in one line. */
  readonly what: string;
}

/** What `--until-failure` prints. */
interface Found {
  readonly seed: number;
  readonly message: string;
}

/** Runs seeds from 0 on over a copy with the bug, until one fails. @throws Error when an edit does not fit the sources */
export async function tryMutation({ engine, mutation }: Suspect): Promise<Catch> {
  checkEdits(mutation);
  const folder = copySources();
  try {
    applyEdits(folder, mutation);
    const startMs = performance.now();
    const found = await runUntilFailure(folder, engine, mutation);
    const seconds = (performance.now() - startMs) / 1000;
    const what = found?.message.split("\n")[0] ?? "";
    return { engine, mutation, seed: found?.seed ?? null, seconds, what };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** All of them, some at a time; `onCatch` as each ends. */
export async function runGate(
  suspects: readonly Suspect[],
  parallel: number,
  onCatch: (result: Catch) => void,
): Promise<void> {
  const waiting = [...suspects];
  const worker = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) onCatch(await tryMutation(next));
  };
  await Promise.all(Array.from({ length: parallel }, worker));
}

/** @throws Error when an edit does not fit the sources as they are */
export function checkEdits({ name, edits }: Mutation): void {
  for (const { file, find } of edits) {
    const count = readFileSync(join(ROOT, file), "utf8").split(find).length - 1;
    if (count !== 1) throw new Error(`mutation '${name}': its text stands ${count} times in ${file}:\n${find}`);
  }
}

function applyEdits(folder: string, { edits }: Mutation): void {
  for (const { file, find, replace } of edits) {
    const path = join(folder, file);
    const text = readFileSync(path, "utf8");
    writeFileSync(
      path,
      text.replace(find, () => replace),
    );
  }
}

function copySources(): string {
  const folder = mkdtempSync(join(tmpdir(), "shardpact-mutation-"));
  for (const path of COPIED) cpSync(join(ROOT, path), join(folder, path), { recursive: true });
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
  return folder;
}

function runUntilFailure(
  folder: string,
  engine: EngineName,
  { seedsMax, faults, replicas, membership, ranks }: Mutation,
): Promise<Found | null> {
  const args = ["--import", "tsx", "test/sim/main.ts", "--engine", engine, "--until-failure", "--seeds", `${seedsMax}`];
  if (replicas !== undefined) args.push("--replicas", `${replicas}`);
  if (membership === true) args.push("--membership");
  if (ranks === true) args.push("--ranks");
  if (faults) args.push("--faults", faults.join(","));
  const child = spawn(process.execPath, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  let problems = "";
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (problems += chunk.toString()));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      const line = out.split("\n").find((text) => text.startsWith("{"));
      if (line !== undefined) resolve(JSON.parse(line) as Found);
      else if (code === 0) resolve(null);
      else reject(new Error(`the simulator ended with ${code}:\n${problems.slice(-2000)}`));
    });
  });
}
