/**
 * Other versions of Node, from npm's packages of its binaries, kept in the cache folder that set-up uses.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const CACHE = join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "shardpact", "node");
const OS = { linux: "linux", darwin: "darwin" } as const;

/** Path of the binary of this exact version; fetched with npm the first time. */
export async function nodeBinary(version: string): Promise<string> {
  const os = OS[process.platform as keyof typeof OS];
  if (os === undefined) throw new Error(`npm has no Node binaries for ${process.platform}`);
  const name = `node-${os}-${process.arch}`;
  const goal = join(CACHE, version);
  const binary = join(goal, "node_modules", name, "bin", "node");
  if (existsSync(binary)) return binary;
  await mkdir(CACHE, { recursive: true });
  const fresh = await mkdtemp(join(CACHE, "new-"));
  await writeFile(join(fresh, "package.json"), '{ "private": true }\n');
  await promisify(execFile)("npm", ["install", "--no-save", "--ignore-scripts", `${name}@${version}`], { cwd: fresh });
  await rename(fresh, goal).catch(async (error: unknown) => {
    // Somebody else was first.
    await rm(fresh, { recursive: true, force: true });
    if (!existsSync(binary)) throw error;
  });
  return binary;
}
