/**
 * Owns where an example finds its group: the one you run (`SHARDPACT_URL` or ./shardpact.json), else a local group of
 * three that lives as long as the example.
 */
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { connect, type Group } from "shardpact";
import { startLocalGroup } from "../../src/cli/embedded/local-group.ts";

export async function withGroup(use: (group: Group, scratchDir: string) => Promise<void>): Promise<void> {
  const scratchDir = await mkdtemp(path.join(tmpdir(), "shardpact-example-"));
  const running = process.env["SHARDPACT_URL"] !== undefined || existsSync("shardpact.json");
  const local = running ? null : await startLocalGroup({ dir: path.join(scratchDir, "group") });
  try {
    if (local) await local.waitForLeader();
    const group = await connect(local === null ? {} : { url: local.url, group: local.group, stores: [] });
    try {
      await use(group, scratchDir);
    } finally {
      await group.close();
    }
  } finally {
    await local?.close();
    await rm(scratchDir, { recursive: true, force: true });
  }
}
