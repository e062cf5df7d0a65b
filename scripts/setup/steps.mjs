/**
 * Owns how set-up steps run and report: one line a step with its time, the way out under a failure.
 */
import { spawn } from "node:child_process";
import { accessSync, constants, mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Set-up keeps downloads and builds here; `src/cli/embedded/nats.ts` looks in the same place. */
export const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "shardpact");

/**
 * Runs all steps, also after one failed, so that a reader sees everything that is missing at once.
 * A step returns its one-line outcome, or throws an Error whose further lines say what to do.
 */
export async function runSteps(steps) {
  let failed = 0;
  for (const { name, run } of steps) {
    const startedAt = performance.now();
    const took = () => `${((performance.now() - startedAt) / 1000).toFixed(1)} s`;
    try {
      const outcome = await run((line) => note(name, line));
      console.log(`setup: ${name.padEnd(12)} ok      ${took().padStart(7)}  ${outcome}`);
    } catch (error) {
      failed += 1;
      const [first, ...rest] = String(error?.message ?? error).split("\n");
      console.error(`setup: ${name.padEnd(12)} FAILED  ${took().padStart(7)}  ${first}`);
      for (const line of rest) console.error(`         ${line}`);
    }
  }
  return failed === 0;
}

function note(name, line) {
  console.log(`setup: ${name.padEnd(12)} ...              ${line}`);
}

/**
 * Runs a command to its end. Resolves with exit code (null when it could not be started or ran out of time) and output.
 */
export function run(command, args, { cwd, env, timeoutMs = 600_000 } = {}) {
  return new Promise((resolve) => {
    let output = "";
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
    const collect = (chunk) => (output = (output + chunk).slice(-20_000));
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    child.on("error", (error) => resolve({ code: null, output: error.message }));
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ code, output });
    });
  });
}

/** Absolute path of a program on PATH, or null. */
export function which(name, more = []) {
  for (const dir of [...(process.env.PATH ?? "").split(delimiter), ...more]) {
    if (dir === "") continue;
    const path = join(dir, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {}
  }
  return null;
}

export function ensureDir(path) {
  mkdirSync(path, { recursive: true });
  return path;
}

/** The last lines of a command's output: enough to see why it failed. */
export function tail(output, lines = 6) {
  return output.trim().split("\n").slice(-lines).join("\n");
}
