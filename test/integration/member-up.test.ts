/**
 * `shardpact up` and the members: the lead is handed over, a fourth replica joins while the group runs, and is there again
 * at the next start.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePort } from "../../src/cli/embedded/ports.ts";
import { startCli } from "../cli/run-cli.ts";
import { MAIN } from "../support/dist.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { waitFor } from "../support/wait-for.ts";

let dir: TempDir;
beforeAll(async () => {
  dir = await tempDir("member-up");
});
const started: ChildProcess[] = [];
afterAll(async () => {
  for (const child of started) child.kill("SIGKILL"); // their children end with them
  await dir.remove();
});

interface Up {
  readonly child: ChildProcess;
  until(text: string): Promise<void>;
}

function startUp(port: number): Up {
  const args = [MAIN, "up", "--port", String(port)];
  const child = spawn(process.execPath, args, { cwd: dir.path, stdio: "pipe" });
  started.push(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
  return {
    child,
    async until(text) {
      const ended = (): boolean => child.exitCode !== null;
      await waitFor(() => (output.includes(text) || ended() ? true : null), { timeoutMs: 90_000, what: text });
      expect(output).toContain(text);
    },
  };
}

async function stop({ child }: Up): Promise<void> {
  const exited = once(child, "exit");
  child.kill("SIGINT");
  expect(await exited).toEqual([0, null]);
}

/** As a person in that folder: shardpact.json names the group, .shardpact holds its keys. */
async function cli(...argv: string[]): Promise<Record<string, unknown>> {
  const result = await startCli([...argv, "--json"], { cwd: dir.path });
  expect(result, argv.join(" ")).toMatchObject({ code: 0 });
  return JSON.parse(result.stdout) as Record<string, unknown>;
}

test("transfer, add, promote below up; then the same four again", async () => {
  const port = await freePort();
  const first = startUp(port);
  await first.until("Ctrl-C stops");
  const { leader } = await cli("status");
  const to = leader === "r2" ? "r3" : "r2";
  expect(await cli("transfer", to)).toMatchObject({ from: leader, to });
  expect((await cli("member", "list"))["members"]).toMatchObject([{ id: "r1" }, { id: "r2" }, { id: "r3" }]);
  const added = await cli("member", "add", "r4");
  expect(added["configuration"]).toMatchObject({ learners: [{ id: "r4" }] });
  await first.until("replica r4 joins");
  const promoted = await cli("member", "promote", "r4");
  expect(promoted["configuration"]).toMatchObject({ voters: [{ id: "r1" }, { id: "r2" }, { id: "r3" }, { id: "r4" }] });
  const twice = await startCli(["member", "promote", "r4"], { cwd: dir.path });
  expect(twice).toMatchObject({ code: 2, stderr: expect.stringContaining("'r4' is no learner") as string });
  await stop(first);

  const again = startUp(port);
  await again.until("Ctrl-C stops");
  await waitFor(
    async () => {
      const { replicas } = await cli("status");
      return (replicas as { state: string }[]).filter(({ state }) => state === "running").length === 4 ? true : null;
    },
    { timeoutMs: 30_000, what: "four replicas to run" },
  );
  await stop(again);
});
