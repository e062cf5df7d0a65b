/**
 * Owns a lock between processes of one machine: a file that only one can make.
 *
 * It saves work and never guards truth: whoever waits too long, or finds that the owner is gone, goes on without it.
 */
import { readFile, rm, stat, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { ownerState, tempName } from "../temp-files.ts";

const POLL_MS_MIN = 5;
const POLL_MS_MAX = 100;
/** In this process nobody polls: one after another, in order. */
const queues = new Map<string, Promise<unknown>>();

/** Runs `work` while this process holds the lock, or after `patienceMs` without it. */
export async function withFileLock<T>(path: string, patienceMs: number, work: () => Promise<T>): Promise<T> {
  const before = queues.get(path) ?? Promise.resolve();
  const mine = before.then(() => locked(path, patienceMs, work));
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

async function locked<T>(path: string, patienceMs: number, work: () => Promise<T>): Promise<T> {
  const held = await acquire(path, patienceMs);
  try {
    return await work();
  } finally {
    if (held) await rm(path, { force: true });
  }
}

async function acquire(path: string, patienceMs: number): Promise<boolean> {
  const untilMs = performance.now() + patienceMs;
  for (let pollMs = POLL_MS_MIN; ; pollMs = Math.min(POLL_MS_MAX, pollMs * 2)) {
    try {
      await writeFile(path, tempName(), { flag: "wx" });
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") return false;
    }
    if (performance.now() >= untilMs) return false;
    if (await isAbandoned(path, patienceMs)) await rm(path, { force: true });
    else await sleep(pollMs);
  }
}

async function isAbandoned(path: string, patienceMs: number): Promise<boolean> {
  try {
    const { mtimeMs } = await stat(path);
    if (Date.now() - mtimeMs > patienceMs) return true;
    const owner = await readFile(path, "utf8");
    return owner !== "" && ownerState(owner, mtimeMs) === "dead";
  } catch {
    return false; // released meanwhile
  }
}
