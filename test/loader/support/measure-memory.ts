/**
 * Owns measuring what a loader does to the memory of a training process, in a process of its own.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { LoaderOptions } from "../../../src/loader/host-loader.ts";
import type { VersionData } from "./version.ts";

export interface MemoryReport {
  /** Resident before the loader was made: tfjs loaded, a small loader done. */
  readonly startBytes: number;
  /** The most that was resident while it ran. */
  readonly peakBytes: number;
  /** After each epoch. */
  readonly tensors: readonly number[];
  readonly files: readonly number[];
}

/** Epochs of a loader over `data`, every batch made into tensors and disposed. Needs the built package, and Linux. */
export async function measureMemory(
  data: VersionData,
  small: VersionData,
  options: LoaderOptions,
  epochs: number,
): Promise<MemoryReport> {
  const child = fork(join(import.meta.dirname, "memory-process.mjs"), {
    serialization: "advanced",
    execArgv: ["--expose-gc"],
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  let said = "";
  child.stderr?.on("data", (text: Buffer) => (said = (said + text.toString()).slice(-4000)));
  child.send({ data, small, options, epochs });
  let report: MemoryReport | null = null;
  child.once("message", (message) => (report = message as MemoryReport));
  await once(child, "exit");
  if (report === null) throw new Error(`the measured process ended without a report: ${said}`);
  return report;
}
