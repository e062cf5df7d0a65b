/**
 * A real group whose logs are kept short: a replica that was away too long gets a snapshot over NATS, whoever is killed
 * on the way, and the group commits meanwhile.
 */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { LocalReplica } from "../../src/cli/embedded/local-replica.ts";
import { type LocalGroup, startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import { connect, type Group } from "../../src/index.ts";
import { sql, tinyShard, waitForAgreement } from "../support/group.ts";
import { waitFor } from "../support/wait-for.ts";

/** Ledger rows that a replica misses while it is away. */
const ROWS = 3_000;

describe.each(["raft", "paxos"] as const)("a log that is kept short (%s)", (engine) => {
  let dir: string;
  let local: LocalGroup;
  let group: Group;
  let tags = 0;

  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), "shardpact-snapshots-"));
    local = await startLocalGroup({
      dir: path.join(dir, "group"),
      engine,
      log: { keepEntries: 50, compactEntries: 20 },
    });
    await local.waitForLeader();
    group = await connect(local.url);
    await group.publish("d", await tinyShard(dir, "d", 1));
  });
  afterAll(async () => {
    await group?.close();
    await local?.close();
    await rm(dir, { recursive: true, force: true });
  });

  async function commit(count: number): Promise<void> {
    for (let left = count; left > 0; left -= 250) {
      const some = Array.from({ length: Math.min(left, 250) }, () => `t${(tags += 1)}`);
      await Promise.all(some.map((name) => group.tag("d", name, 1, { timeoutMs: 60_000 })));
    }
  }

  const firstIndex = async (replica: LocalReplica): Promise<number> => {
    const [row] = await sql(replica.postgresUrl, "select first_index::int as first from shardpact.replica_state");
    return Number(row?.["first"]);
  };
  const lastIndex = async (replica: LocalReplica): Promise<number> => {
    const [row] = await sql(replica.postgresUrl, "select last_index::int as last from shardpact.replica_state");
    return Number(row?.["last"]);
  };
  /** Since its last start. */
  const said = (replica: LocalReplica, text: string): Promise<true> =>
    waitFor(
      async () => {
        const log = await readFile(replica.logFile, "utf8");
        return log.lastIndexOf(text) > log.lastIndexOf("is starting") ? true : null;
      },
      { timeoutMs: 60_000, what: `${replica.id} to say '${text}'`, everyMs: 5 },
    );

  /** A follower that is stopped until the others' logs begin after its end. */
  async function leaveBehind(): Promise<LocalReplica> {
    const leader = await local.waitForLeader();
    const away = local.replicas.find(({ id }) => id !== leader) as LocalReplica;
    await away.stop();
    const last = await lastIndex(away);
    await commit(ROWS);
    const others = local.replicas.filter((replica) => replica !== away);
    await waitFor(
      async () => ((await Promise.all(others.map(firstIndex))).every((first) => first > last + 1) ? true : null),
      { timeoutMs: 60_000, what: "compaction" },
    );
    return away;
  }

  test("a replica that was away too long is brought back; logs stay short, commits go on", async () => {
    const away = await leaveBehind();
    const restarted = away.restart();
    await commit(100);
    await restarted;
    await said(away, "was installed, from");
    await waitForAgreement(local, 60_000);
    for (const replica of local.replicas) {
      const [row] = await sql(replica.postgresUrl, "select count(*)::int as rows from shardpact.log");
      expect(Number(row?.["rows"])).toBeLessThan(ROWS / 2);
      const [ledger] = await sql(replica.postgresUrl, "select count(*)::int as rows from shardpact.ledger");
      expect(Number(ledger?.["rows"])).toBeGreaterThan(ROWS);
    }
    // It counts: its vote and its disk are needed now.
    const leader = await local.waitForLeader();
    const third = local.replicas.find(({ id }) => id !== leader && id !== away.id) as LocalReplica;
    await third.kill("SIGKILL");
    await commit(20);
    await third.restart();
    await waitForAgreement(local, 60_000);
    // What is received is removed; what was sent stays for the next one, once.
    for (const { configFile } of local.replicas) {
      const files = await readdir(path.join(path.dirname(configFile), "snapshots"));
      expect(files.filter((name) => name.startsWith("received"))).toEqual([]);
      expect(files.length).toBeLessThanOrEqual(1);
    }
  }, 240_000);

  test("the receiver is killed in the transfer, and again in the install", async () => {
    const away = await leaveBehind();
    await away.restart();
    await said(away, "is being received from");
    await away.kill("SIGKILL");
    await away.restart();
    await said(away, "is being installed, from");
    await away.kill("SIGKILL");
    await away.restart();
    await commit(50);
    await waitForAgreement(local, 60_000);
  }, 240_000);

  test("the sender is killed in the transfer", async () => {
    const away = await leaveBehind();
    await away.restart();
    const leader = await local.waitForLeader();
    const sender = local.replicas.find(({ id }) => id === leader) as LocalReplica;
    await said(away, "is being received from");
    await sender.kill("SIGKILL");
    await commit(50);
    await sender.restart();
    await waitForAgreement(local, 60_000);
  }, 240_000);
});
