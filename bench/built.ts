/**
 * Owns how a bench reaches what is measured: the compiled package, as it is shipped. Sources that a loader transforms
 * at run time cost a process more than they would anywhere else.
 */
import { execFile, fork, type ChildProcess } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import type { ConfirmedVersion } from "../src/client/types.ts";
import type { VersionData } from "../test/loader/support/version.ts";

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

/** A version over a folder, for a process that was sent `data`. */
export async function builtVersion({ manifest, pages, store, ...facts }: VersionData): Promise<ConfirmedVersion> {
  const { openDirectoryStore } =
    await built<typeof import("../src/shards/directory-store.ts")>("shards/directory-store.ts");
  return {
    ...facts,
    dataset: "things",
    version: 1,
    index: 7,
    stores: [await openDirectoryStore(store)],
    manifest: async () => manifest,
    page: async (position: number) => pages[position] ?? [],
    reconfirm: async () => facts.confirmation,
  } as Partial<ConfirmedVersion> as ConfirmedVersion;
}

/** Packages that are installed here, with their versions, for people. */
export async function versionsOf(...names: readonly string[]): Promise<string> {
  const named = names.map(async (name) => {
    const text = await readFile(path.join(ROOT, "node_modules", name, "package.json"), "utf8");
    return `${name} ${(JSON.parse(text) as { version: string }).version}`;
  });
  return (await Promise.all(named)).join(", ");
}

/** Runs a script of this folder in a process of its own, with a channel for messages. */
export function forkScript(script: string): ChildProcess {
  const { file, args } = scriptCommand(script);
  return fork(args.at(-1) as string, [], { execPath: file, execArgv: args.slice(0, -1), serialization: "advanced" });
}

/** The command that runs a script of this folder in a process of its own. */
export function scriptCommand(script: string): { readonly file: string; readonly args: readonly string[] } {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  return { file: process.execPath, args: ["--import", tsx, path.join(import.meta.dirname, script)] };
}
