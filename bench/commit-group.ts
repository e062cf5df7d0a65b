/**
 * Owns the group that commits are measured on: three replica processes, each with a Postgres server of its own, one
 * nats-server, and the client in another process; all of it the compiled package with its defaults.
 */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { LocalGroup, LocalGroupOptions } from "../src/cli/embedded/local-group.ts";
import { buildPackage, built, scriptCommand } from "./built.ts";
import type { PutFigures } from "./etcd.ts";

export interface CommitFigures extends PutFigures {
  readonly commits: number;
  /** CPU time of the client process while it measured. */
  readonly cpuMs: number;
}

/** The caller closes. */
export async function startGroup(options: LocalGroupOptions): Promise<LocalGroup> {
  await buildPackage();
  const { startLocalGroup } =
    await built<typeof import("../src/cli/embedded/local-group.ts")>("cli/embedded/local-group.ts");
  const group = await startLocalGroup(options);
  await group.waitForLeader();
  return group;
}

/** Runs the client at each count; `onMeasuring` is called when it has warmed up, `onMeasured` with what it measured. */
export async function runClient(
  url: string,
  counts: readonly number[],
  secondsEach: number,
  on: { measuring?(): void; measured(figures: CommitFigures): void },
): Promise<void> {
  const { file, args } = scriptCommand("commit-client.ts");
  const child = spawn(file, [...args, url, counts.join(","), String(secondsEach)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  for await (const line of createInterface({ input: child.stdout })) {
    const said = JSON.parse(line) as CommitFigures | { readonly measuring: number };
    if ("measuring" in said) on.measuring?.();
    else on.measured(said);
  }
  const code = await ended;
  if (code !== 0) throw new Error(`the client of the commit bench ended with ${code}`);
}
