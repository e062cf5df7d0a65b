/**
 * Owns where an example finds its group: the one you run (`SHARDPACT_URL` or ./shardpact.json), else a local group of
 * three that lives as long as the example.
 */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { connect, type ConnectOptions, type Group } from "shardpact";
import { startLocalGroup } from "../../src/cli/embedded/local-group.ts";

/** How other processes reach the group: what they give to `connect`, and its NATS servers. */
export interface Reach {
  readonly options: Pick<ConnectOptions, "url" | "group" | "stores">;
  readonly servers: readonly string[];
}

export async function withGroup(use: (group: Group, scratchDir: string, reach: Reach) => Promise<void>): Promise<void> {
  const scratchDir = await mkdtemp(path.join(tmpdir(), "shardpact-example-"));
  const running = process.env["SHARDPACT_URL"] !== undefined || existsSync("shardpact.json");
  const local = running ? null : await startLocalGroup({ dir: path.join(scratchDir, "group") });
  try {
    if (local) await local.waitForLeader();
    const options = local === null ? {} : { url: local.url, group: local.group, stores: [] };
    const group = await connect(options);
    try {
      await use(group, scratchDir, { options, servers: local === null ? await runningServers() : [local.url] });
    } finally {
      await group.close();
    }
  } finally {
    await local?.close();
    await rm(scratchDir, { recursive: true, force: true });
  }
}

async function runningServers(): Promise<readonly string[]> {
  const settings =
    process.env["SHARDPACT_URL"] ?? (JSON.parse(await readFile("shardpact.json", "utf8")) as { url?: string }).url;
  return (settings ?? "nats://127.0.0.1:4222").split(",");
}
