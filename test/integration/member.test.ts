/**
 * A real group changes its members while clients publish and open: what they are told stays true, and whatever fails
 * says that it may be tried again.
 */
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type LocalGroup, startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import { connect, isShardpactError, type Group } from "../../src/index.ts";
import { decodeApi, replicaStatus, SUBJECTS, type ReplicaStatus } from "../../src/model/api.ts";
import { connectNats } from "../../src/transport/nats.ts";
import type { Transport } from "../../src/transport/port.ts";
import { startCli } from "../cli/run-cli.ts";
import { sql, tinyShard } from "../support/group.ts";
import { tempDir, type TempDir } from "../support/temp-dir.ts";
import { waitFor } from "../support/wait-for.ts";

let dir: TempDir;
let local: LocalGroup;
let asking: Transport;
let traffic: Traffic;

beforeAll(async () => {
  dir = await tempDir("member");
  local = await startLocalGroup({ dir: path.join(dir.path, "group") });
  await local.waitForLeader();
  asking = await connectNats({ servers: [local.url], name: "test", timeoutMs: 5000 });
  await using group = await connect({ url: local.url, onNotice: () => undefined });
  await group.publish("flow", await tinyShard(path.join(dir.path, "flow"), "s0", 0));
  await (await group.open("flow")).lock(path.join(dir.path, "first.lock"));
  traffic = await startTraffic();
}, 120_000);
afterAll(async () => {
  await traffic?.stop();
  await asking?.close();
  await local?.close();
  await dir?.remove();
});

interface Traffic {
  readonly acknowledged: readonly number[];
  opened(): number;
  readonly failures: readonly unknown[];
  /** Until this many more publishes and opens went through. */
  more(count: number): Promise<void>;
  stop(): Promise<void>;
}

/** One client publishes version after version, another opens the newest; both go on after a failure. */
async function startTraffic(): Promise<Traffic> {
  const client = () => connect({ url: local.url, onNotice: () => undefined });
  const [publisher, reader] = await Promise.all([client(), client()]);
  const acknowledged: number[] = [];
  const failures: unknown[] = [];
  let opened = 0;
  let going = true;
  const round = async (work: () => Promise<void>): Promise<void> => {
    while (going) await work().catch((error: unknown) => void failures.push(error));
  };
  let published = 0;
  const publishing = round(async () => {
    published += 1;
    const file = await tinyShard(path.join(dir.path, "flow"), `s${published}`, published);
    const { version } = await publisher.publish("flow", file, { timeoutMs: 30_000 });
    acknowledged.push(version);
  });
  const opening = round(async () => {
    if (acknowledged.length === 0) return void (await new Promise((resolve) => setTimeout(resolve, 20)));
    const least = acknowledged.at(-1) ?? 0;
    const { version } = await reader.open("flow", { timeoutMs: 30_000 });
    // Linearizable: never older than what was acknowledged before the question.
    if (version < least) failures.push(new Error(`opened v${version} after v${least} was acknowledged`));
    opened += 1;
  });
  return {
    acknowledged,
    opened: () => opened,
    failures,
    async more(count) {
      const from = [acknowledged.length, opened] as const;
      const done = (): boolean => acknowledged.length >= from[0] + count && opened >= from[1] + count;
      await waitFor(() => (done() ? true : null), { timeoutMs: 60_000, what: `${count} more publishes and opens` });
    },
    async stop() {
      going = false;
      await Promise.all([publishing, opening]);
      await Promise.all([publisher.close(), reader.close()]);
    },
  };
}

async function status(id: string): Promise<ReplicaStatus> {
  const reply = await asking.request(SUBJECTS.api(local.group, id, "status"), new Uint8Array(0), { timeoutMs: 2000 });
  return decodeApi(replicaStatus, reply);
}

async function cli(...argv: string[]): Promise<Record<string, unknown>> {
  const groupDir = path.join(dir.path, "group");
  const withDir = argv[1] === "list" ? [] : ["--dir", groupDir];
  const result = await startCli([...argv, ...withDir, "--url", local.url, "--timeout", "60", "--json"], {
    cwd: dir.path,
  });
  expect(result, argv.join(" ")).toMatchObject({ code: 0 });
  return JSON.parse(result.stdout) as Record<string, unknown>;
}

const replica = (id: string) => local.replicas.find((r) => r.id === id)!;
const ids = (configuration: unknown): string => {
  const { voters } = configuration as { voters: { id: string }[] };
  return voters.map(({ id }) => id).join(" ");
};

/** All of these have applied the same, and it holds what was acknowledged. */
async function sameEverywhere(members: readonly string[]): Promise<void> {
  await traffic.more(1);
  const last = traffic.acknowledged.at(-1) ?? 0;
  for (const id of members) {
    await waitFor(
      async () => {
        const rows = await sql(
          replica(id).postgresUrl,
          "select count(*)::int as n, max(version)::int as last from shardpact.versions where dataset = 'flow'",
        );
        return Number(rows[0]?.["last"]) >= last && rows[0]?.["n"] === rows[0]?.["last"] ? true : null;
      },
      { timeoutMs: 30_000, what: `${id} to hold v${last}` },
    );
  }
  const failed = traffic.failures.filter((error) => !isShardpactError(error) || !error.retryable);
  expect(failed).toEqual([]);
}

describe("membership", () => {
  test("the lead goes to whom the operator names", async () => {
    const leader = await local.waitForLeader();
    const to = local.replicas.find((r) => r.id !== leader)!.id;
    expect(await cli("transfer", to)).toMatchObject({ from: leader, to });
    expect(await local.waitForLeader()).toBe(to);
    await traffic.more(3);
    const listed = await cli("member", "list");
    expect(listed["members"]).toMatchObject([{ id: "r1" }, { id: "r2" }, { id: "r3" }]);
  });

  test("r4 is added as a learner, catches up, votes", async () => {
    const added = await cli("member", "add", "r4");
    expect(added["configuration"]).toMatchObject({ learners: [{ id: "r4" }] });
    await local.join("r4");
    expect(ids((await cli("member", "promote", "r4"))["configuration"])).toBe("r1 r2 r3 r4");
    expect(await status("r4")).toMatchObject({ state: "running" });
    await sameEverywhere(["r1", "r2", "r3", "r4"]);
  });

  test("the leader is removed, hands over, and disturbs nobody when it is started again", async () => {
    const leader = await local.waitForLeader();
    const removed = await cli("member", "remove", leader);
    expect(ids(removed["configuration"])).not.toContain(leader);
    await waitFor(async () => ((await status(leader)).state === "removed" ? true : null), {
      timeoutMs: 20_000,
      what: `${leader} to say that it is out`,
    });
    const next = await local.waitForLeader();
    const { term } = await status(next);
    await replica(leader).kill("SIGKILL");
    await replica(leader).restart();
    // Several election timeouts.
    await new Promise((resolve) => setTimeout(resolve, 3000));
    expect((await status(next)).term).toBe(term);
    expect(await status(leader)).toMatchObject({ state: "removed", member: "none" });
    await sameEverywhere(["r1", "r2", "r3", "r4"].filter((id) => id !== leader));
    await replica(leader).stop();
  });

  test("a dead replica is replaced by a new one in one procedure", async () => {
    const leader = await local.waitForLeader();
    const members = ids((await status(leader)).configuration).split(" ");
    const dead = members.find((id) => id !== leader)!;
    await replica(dead).kill("SIGKILL");
    await cli("member", "add", "r5");
    await local.join("r5");
    const replaced = ids((await cli("member", "replace", dead, "r5"))["configuration"]).split(" ");
    expect(replaced.toSorted()).toEqual([...members.filter((id) => id !== dead), "r5"].toSorted());
    await sameEverywhere(replaced);
  });

  test("SIGKILL of the leader in the middle of a change: it is complete or never was, and can be asked for again", async () => {
    await cli("member", "add", "r6");
    await local.join("r6");
    const leader = await local.waitForLeader();
    const promoting = cli("member", "promote", "r6");
    await waitFor(
      async () => {
        const { configuration } = await status(leader);
        return configuration !== null && ids(configuration).includes("r6") ? true : null;
      },
      { timeoutMs: 30_000, everyMs: 1, what: "the change to begin" },
    );
    await replica(leader).kill("SIGKILL");
    expect(ids((await promoting)["configuration"]).split(" ")).toContain("r6");
    await replica(leader).restart();
    await sameEverywhere(ids((await status(await local.waitForLeader())).configuration).split(" "));
  });

  test("three become five, and go on without two", async () => {
    await cli("member", "add", "r7");
    await local.join("r7");
    const promoted = ids((await cli("member", "promote", "r7"))["configuration"]).split(" ");
    expect(promoted).toHaveLength(5);
    await sameEverywhere(promoted);
    const gone = promoted.slice(0, 2);
    await Promise.all(gone.map((id) => replica(id).kill("SIGKILL")));
    await sameEverywhere(promoted.slice(2));
    await Promise.all(gone.map((id) => replica(id).restart()));
    await sameEverywhere(promoted);
  });
});

describe("who looks now", () => {
  test("a client that comes only now opens what was published, though none of the first voters may be left", async () => {
    const least = traffic.acknowledged.at(-1) ?? 0;
    await using group: Group = await connect({ url: local.url, onNotice: () => undefined });
    expect((await group.open("flow")).version).toBeGreaterThanOrEqual(least);
    // A lock file from before the first change, and one of today.
    const old = await group.open({ lock: path.join(dir.path, "first.lock") });
    expect(old.version).toBe(1);
    const lock = await old.lock(path.join(dir.path, "today.lock"));
    expect(lock.group.configuration?.number).toBeGreaterThan(8);
    await using again: Group = await connect({ url: local.url, onNotice: () => undefined });
    expect((await again.open({ lock: path.join(dir.path, "today.lock") })).root).toBe(old.root);
  });

  test("SQL shows every configuration, who asked for it and who signed it", async () => {
    const rows = await sql(
      replica(await local.waitForLeader()).postgresUrl,
      "select * from shardpact.v_membership order by index",
    );
    expect(rows[0]).toMatchObject({ number: "0", change: null, voters: ["r1", "r2", "r3"], signed_by: [] });
    expect(rows.map((row) => Number(row["number"]))).toEqual(rows.map((_, i) => i));
    const added = rows.find((row) => row["change"] === "add_learner" && row["member"] === "r4");
    expect(added).toMatchObject({ learners: ["r4"], voters_outgoing: [] });
    const signers = added?.["signed_by"];
    expect(Array.isArray(signers) ? signers.length : 0).toBeGreaterThanOrEqual(2);
    expect(rows.some((row) => row["change"] === "replace" && row["replaced_by"] === "r5")).toBe(true);
  });
});
