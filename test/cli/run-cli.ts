/** Runs the command line in a child process, as a person would, without a terminal. */
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { MAIN, ROOT } from "../support/dist.ts";

/** What node runs for the command line of the sources: for tests that make no dist. */
export const SOURCE_MAIN = [
  "--import",
  pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href,
  path.join(ROOT, "src", "cli", "main.ts"),
];

export interface CliResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export async function startCli(
  argv: readonly string[],
  o: { readonly cwd: string; readonly env?: Readonly<Record<string, string>>; readonly main?: readonly string[] },
): Promise<CliResult> {
  const env = { ...process.env, SHARDPACT_URL: undefined, NO_COLOR: "1", ...o.env };
  const child = spawn(process.execPath, [...(o.main ?? [MAIN]), ...argv], {
    cwd: o.cwd,
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  return { code, stdout, stderr };
}
