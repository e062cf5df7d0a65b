/**
 * Owns a lock between processes of one machine: a file that only one can make.
 *
 * It saves work and never guards truth: whoever waits too long, or finds that the owner is gone, goes on without it.
 */
import { link, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ownerState, tempName } from "../temp-files.ts";

const POLL_MS_MIN = 5;
const POLL_MS_MAX = 100;
/** In this process nobody polls: one after another, in order. */
const queues = new Map<string, Promise<unknown>>();

/** A lock's file, and a folder of the same disk for what is not finished. */
export interface FileLock {
  readonly path: string;
  readonly scratch: string;
}

/** Runs `work` while this process holds the lock, or after `patienceMs` without it. */
export async function withFileLock<T>(lock: FileLock, patienceMs: number, work: () => Promise<T>): Promise<T> {
  const { path } = lock;
  const before = queues.get(path) ?? Promise.resolve();
  const mine = before.then(() => locked(lock, patienceMs, work));
  const settled = mine.then(
    () => undefined,
    () => undefined,
  );
  queues.set(path, settled);
  try {
    return await mine;
  } finally {
    if (queues.get(path) === settled) queues.delete(path);
  }
}

async function locked<T>(lock: FileLock, patienceMs: number, work: () => Promise<T>): Promise<T> {
  const held = await acquire(lock, patienceMs);
  try {
    return await work();
  } finally {
    if (held) await rm(lock.path, { force: true });
  }
}

async function acquire({ path, scratch }: FileLock, patienceMs: number): Promise<boolean> {
  const untilMs = performance.now() + patienceMs;
  for (let pollMs = POLL_MS_MIN; ; pollMs = Math.min(POLL_MS_MAX, pollMs * 2)) {
    const made = await make(path, scratch);
    if (made !== "taken") return made === "made";
    if (performance.now() >= untilMs) return false;
    if (await isAbandoned(path, patienceMs)) await rm(path, { force: true });
    else await sleep(pollMs);
  }
}

/** With its owner's name in it from the first moment: a process that is killed here leaves no lock that nobody can judge. */
async function make(path: string, scratch: string): Promise<"made" | "taken" | "failed"> {
  const name = tempName();
  const temp = join(scratch, name);
  try {
    await writeFile(temp, name);
    await link(temp, path);
    return "made";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EEXIST" ? "taken" : "failed";
  } finally {
    await rm(temp, { force: true });
  }
}

async function isAbandoned(path: string, patienceMs: number): Promise<boolean> {
  try {
    const { mtimeMs } = await stat(path);
    if (Date.now() - mtimeMs > patienceMs) return true;
    return ownerState(await readFile(path, "utf8"), mtimeMs) === "dead";
  } catch {
    return false; // released meanwhile
  }
}
