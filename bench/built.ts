/**
 * Owns how a bench reaches what is measured: the compiled package, as it is shipped. Sources that a loader transforms
 * at run time cost a process more than they would anywhere else.
 */
import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";

const ROOT = path.dirname(import.meta.dirname);

/** Makes dist anew when a source is newer. */
export async function buildPackage(): Promise<void> {
  await promisify(execFile)(process.execPath, [path.join(ROOT, "scripts", "build.mjs")], { cwd: ROOT });
}

/** A module of dist by its path in src; `M` is `typeof import("../src/…")`. */
export async function built<M>(source: string): Promise<M> {
  const file = path.join(ROOT, "dist", source.replace(/\.ts$/, ".js"));
  return (await import(pathToFileURL(file).href)) as M;
}

/** The command that runs a script of this folder in a process of its own. */
export function scriptCommand(script: string): { readonly file: string; readonly args: readonly string[] } {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  return { file: process.execPath, args: ["--import", tsx, path.join(import.meta.dirname, script)] };
}
