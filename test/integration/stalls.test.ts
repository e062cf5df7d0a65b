/**
 * Parts that stand still in a real group: a leader's database, a leader's process, a follower.
 */
import { readFile } from "node:fs/promises";
import path from "node:path";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type LocalGroup, startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import { connect, type Group } from "../../src/index.ts";
import { tinyShard, waitForAgreement } from "../support/group.ts";
import { tempDir, type TempDir } from "../support/temp-dir.ts";
import { waitFor } from "../support/wait-for.ts";

let dir: TempDir;
let local: LocalGroup;
let group: Group;
let version: number;

beforeAll(async () => {
  dir = await tempDir("stalls");
  local = await startLocalGroup({ dir: path.join(dir.path, "group") });
  await local.waitForLeader();
  group = await connect({ url: local.url, onNotice: () => undefined });
  ({ version } = await group.publish("still", await tinyShard(dir.path, "still", 1)));
}, 120_000);
afterAll(async () => {
  await group?.close();
  await local?.close();
  await dir?.remove();
});

const replica = (id: string) => local.replicas.find((r) => r.id === id)!;
const another = (than: string) =>
  waitFor(
    async () => {
      const leader = await local.waitForLeader(1_000);
      return leader === than ? null : leader;
    },
    { timeoutMs: 20_000, what: `another leader than ${than}` },
  );

test("a leader whose database stands still gives up and says why; another commits meanwhile", async () => {
  const leader = await local.waitForLeader();
  const client = new pg.Client({ connectionString: replica(leader).postgresUrl });
  await client.connect();
  // Every append updates this table's row: it waits for this lock like for a disk that hangs.
  await client.query("BEGIN");
  await client.query("LOCK TABLE shardpact.replica_state IN ACCESS EXCLUSIVE MODE");
  const tagging = group.tag("still", "hangs", version, { timeoutMs: 60_000 });
  await another(leader);
  await tagging;
  await group.tag("still", "meanwhile", version, { timeoutMs: 60_000 });
  expect(await readFile(replica(leader).logFile, "utf8")).toMatch(/gives up the lead: a log write has not returned/);
  await client.query("ROLLBACK");
  await client.end();
  await waitForAgreement(local);
});

test("a leader's process that stands still is replaced; when it goes on it follows, and nothing is lost", async () => {
  const leader = await local.waitForLeader();
  await replica(leader).kill("SIGSTOP");
  await another(leader);
  await group.tag("still", "without", version, { timeoutMs: 60_000 });
  await replica(leader).kill("SIGCONT");
  await group.tag("still", "with", version, { timeoutMs: 60_000 });
  await waitForAgreement(local);
});

test("a follower that stands still costs the others no commits", async () => {
  const leader = await local.waitForLeader();
  const follower = local.replicas.find((r) => r.id !== leader)!;
  let tags = 0;
  async function perSecond(): Promise<number> {
    const startMs = performance.now();
    const from = tags;
    const tagger = async (): Promise<void> => {
      while (performance.now() - startMs < 2_000)
        await group.tag("still", `t${tags++}`, version, { timeoutMs: 60_000 });
    };
    await Promise.all([0, 1, 2, 3].map(tagger));
    return ((tags - from) * 1000) / (performance.now() - startMs);
  }
  await perSecond();
  const rates = { all: 0, two: 0 };
  // In turns, and the best of each: what else the machine does hits both.
  for (let round = 0; round < 3; round++) {
    rates.all = Math.max(rates.all, await perSecond());
    await follower.kill("SIGSTOP");
    rates.two = Math.max(rates.two, await perSecond());
    await follower.kill("SIGCONT");
    await waitForAgreement(local);
  }
  expect(rates.two).toBeGreaterThan(0.7 * rates.all);
});
