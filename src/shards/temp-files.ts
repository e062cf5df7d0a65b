/**
 * Owns the names of files that are being written in folders which many processes share, so that what a dead process left
 * can be told from what a living one is writing.
 */
import { randomBytes } from "node:crypto";
import { opendir, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

/** Names this process, or this worker thread of it: host, process id, and at random. */
const PROCESS_TOKEN = `${hostname().replaceAll(/[^a-zA-Z0-9-]/g, "-")}.${process.pid}.${randomBytes(6).toString("hex")}`;
/** A process of another host can't be asked whether it lives: then only time tells. */
const STALE_AFTER_MS = 24 * 3_600_000;

/** A name that nobody else uses. */
export function tempName(): string {
  return `${PROCESS_TOKEN}.${randomBytes(6).toString("hex")}`;
}

/** Removes what dead processes left in `folder`. */
export async function removeStaleTemps(folder: string): Promise<void> {
  for await (const entry of await opendir(folder)) {
    const path = join(folder, entry.name);
    if (await isStale(path, entry.name)) await rm(path, { force: true, recursive: true });
  }
}

async function isStale(path: string, name: string): Promise<boolean> {
  const info = await stat(path).catch(() => null);
  if (!info) return false;
  const owner = ownerState(name, info.mtimeMs);
  return owner === "dead" || (owner === "elsewhere" && Date.now() - info.mtimeMs > STALE_AFTER_MS);
}

/** What has become of the process whose token begins `name`, by what it last wrote. */
export function ownerState(name: string, mtimeMs: number): "alive" | "dead" | "elsewhere" {
  const [host, pid] = name.split(".");
  const [ownHost, ownPid] = PROCESS_TOKEN.split(".");
  if (host !== ownHost) return "elsewhere";
  // Of this pid: written by this process (by a worker thread of it, perhaps), or in another life of that pid.
  if (pid === ownPid) return mtimeMs < Date.now() - process.uptime() * 1000 ? "dead" : "alive";
  return isAlive(Number(pid)) ? "alive" : "dead";
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}
