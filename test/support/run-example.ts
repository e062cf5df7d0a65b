/**
 * Runs an example as a user would, in a process of its own.
 */
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { ON_DIST, ROOT } from "./dist.ts";

const run = promisify(execFile);
const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
const backend = pathToFileURL(path.join(ROOT, "scripts/tfjs-backend.mjs")).href;

export const EXAMPLES = path.join(ROOT, "examples");
/** What node needs to run an example, and the TensorFlow that set-up could make. */
export const NODE_ARGS = [...ON_DIST, "--import", backend];
/** The same from the sources, with all that it starts: replicas, threads. */
export const SOURCE_NODE_ARGS = ["--import", tsx, "--import", backend];

/** Resolves with what it printed. Without SHARDPACT_URL in `more` it starts a group of its own. */
export async function runExample(
  name: string,
  argv: readonly string[] = [],
  more: Readonly<Record<string, string>> = {},
  nodeArgs: readonly string[] = NODE_ARGS,
): Promise<string> {
  const { SHARDPACT_URL: _, ...env } = process.env;
  const args = [...nodeArgs, path.join(EXAMPLES, name), ...argv];
  const options = { env: { ...env, ...more }, maxBuffer: 16 * 1024 * 1024 };
  const { stdout } = await run(process.execPath, args, options).catch((error: unknown) => {
    // Without the child's stack lines: the runner would take them for its own and look for their sources.
    const { stdout: out, stderr } = error as { stdout: string; stderr: string };
    const lines = `${out}\n${stderr}`.split("\n").filter((line) => !/^\s+at /.test(line));
    throw new Error(`${name} failed:\n${lines.slice(-20).join("\n")}`);
  });
  return stdout;
}
