/** Runs the command line in a child process, as a person would, without a terminal. */
import { spawn } from "node:child_process";
import { MAIN } from "../support/dist.ts";

export interface CliResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export async function startCli(
  argv: readonly string[],
  o: { readonly cwd: string; readonly env?: Readonly<Record<string, string>> },
): Promise<CliResult> {
  const env = { ...process.env, SHARDPACT_URL: undefined, NO_COLOR: "1", ...o.env };
  const child = spawn(process.execPath, [MAIN, ...argv], {
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
