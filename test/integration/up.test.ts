/**
 * `shardpact up` as a person runs it: a group that answers, a settings file, Ctrl-C, nothing left behind; then again.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePort } from "../../src/cli/embedded/ports.ts";
import { SUBJECTS, decodeApi, discoverReply } from "../../src/model/api.ts";
import { connectNats } from "../../src/transport/nats.ts";
import { MAIN } from "../support/dist.ts";
import { ENGINE } from "../support/engine.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { waitFor } from "../support/wait-for.ts";

let dir: TempDir;
beforeAll(async () => {
  dir = await tempDir("up");
});
const started: ChildProcess[] = [];
afterAll(async () => {
  // Their children end with them.
  for (const child of started) child.kill("SIGKILL");
  await dir.remove();
});

interface Up {
  readonly child: ChildProcess;
  output(): string;
}

function startUp(args: readonly string[]): Up {
  const child = spawn(process.execPath, [MAIN, "up", "--engine", ENGINE, ...args], {
    cwd: dir.path,
    stdio: "pipe",
  });
  started.push(child);
  let text = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
  return { child, output: () => text };
}

async function untilUp({ child, output }: Up): Promise<void> {
  const what = "the group to be up";
  await waitFor(() => (output().includes("Ctrl-C stops") || child.exitCode !== null ? true : null), {
    timeoutMs: 60_000,
    what,
  });
  expect(output()).toContain("is up");
}

async function interrupt({ child }: Up): Promise<void> {
  const exited = once(child, "exit");
  child.kill("SIGINT");
  expect(await exited).toEqual([0, null]);
}

async function discoverAll(url: string): Promise<Map<string, string>> {
  await using client = await connectNats({ servers: [url], name: "test", timeoutMs: 5_000 });
  const found = new Map<string, string>();
  const inbox = client.inbox();
  client.subscribe(inbox, ({ data }) => {
    const { replica, groupId } = decodeApi(discoverReply, data);
    found.set(replica, groupId);
  });
  client.publish(SUBJECTS.discover, new Uint8Array(0), inbox);
  // `await`: the client must live until then.
  return await waitFor(() => (found.size === 3 ? found : null), { timeoutMs: 5_000, what: "three replicas to answer" });
}

test("starts, tells how to connect, stops cleanly, and is the same group the next time", async () => {
  const port = await freePort();
  const url = `nats://127.0.0.1:${port}`;
  const first = startUp(["--port", String(port)]);
  await untilUp(first);
  const settings = JSON.parse(await readFile(join(dir.path, "shardpact.json"), "utf8")) as Record<string, unknown>;
  expect(settings).toMatchObject({ url, group: "local", stores: [expect.stringMatching(/^file:\/\//)] });
  const group = await discoverAll(url);

  const second = startUp(["--port", String(port), "--dir", "other"]);
  const [code] = (await once(second.child, "exit")) as [number | null];
  expect(code).not.toBe(0);
  expect(second.output()).toContain(`port ${port} is taken`);

  await interrupt(first);
  expect(await processesUsing(dir.path)).toEqual([]);

  const again = startUp(["--port", String(port)]);
  await untilUp(again);
  expect(await discoverAll(url)).toEqual(group);
  await interrupt(again);
});

/** Processes that name this folder in their command line: servers and replicas that were left behind. */
async function processesUsing(folder: string): Promise<string[]> {
  if (process.platform !== "linux") return [];
  const found: string[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (command.includes(folder)) found.push(command.replaceAll("\0", " "));
  }
  return found;
}
