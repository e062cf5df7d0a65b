/**
 * A real group (three replica processes, nats-server, three Postgres servers) loses parts: what was acknowledged stays,
 * once, in the same order everywhere.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type LocalGroup, startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import { connect } from "../../src/index.ts";
import { ENGINE } from "../support/engine.ts";
import { appliedPoints, sql, tinyShard, waitForAgreement } from "../support/group.ts";
import { waitFor } from "../support/wait-for.ts";

let dir: string;
let local: LocalGroup;

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), "shardpact-faults-"));
  local = await startLocalGroup({ dir: path.join(dir, "group"), engine: ENGINE });
  await local.waitForLeader();
});
afterAll(async () => {
  await local?.close();
  await rm(dir, { recursive: true, force: true });
});

const replica = (id: string) => local.replicas.find((r) => r.id === id)!;

describe("what was acknowledged stays", () => {
  test("leader killed with SIGKILL in the middle of 200 publishes from 4 clients", async () => {
    const clients = await Promise.all([0, 1, 2, 3].map(() => connect(local.url)));
    const acknowledged: string[] = [];
    const publishing = clients.map(async (group, client) => {
      for (let n = 1; n <= 50; n++) {
        const file = await tinyShard(path.join(dir, `c${client}`), `s${n}`, client * 100 + n);
        const info = await group.publish(`kill-${client}`, file, { timeoutMs: 60_000 });
        acknowledged.push(`kill-${client} v${info.version} ${info.root}`);
      }
    });
    await waitFor(() => Promise.resolve(acknowledged.length >= 60 ? true : null), {
      timeoutMs: 60_000,
      what: "60 publishes",
    });
    const leader = await local.waitForLeader();
    await replica(leader).kill("SIGKILL");
    await Promise.all(publishing);
    await replica(leader).restart();
    await waitForAgreement(local);
    expect(acknowledged).toHaveLength(200);
    for (const { postgresUrl } of local.replicas) {
      const rows = await sql(
        postgresUrl,
        "select dataset || ' v' || version || ' ' || root as line from shardpact.v_versions where dataset like 'kill-%'",
      );
      const lines = rows.map((row) => String(row["line"]));
      expect(lines.toSorted()).toEqual(acknowledged.toSorted());
    }
    await Promise.all(clients.map((group) => group.close()));
  });

  test("a follower that slept through 500 commits catches up", async () => {
    const leader = await local.waitForLeader();
    const follower = local.replicas.find((r) => r.id !== leader)!;
    await using group = await connect(local.url);
    const { version } = await group.publish("sleep", await tinyShard(dir, "sleep", 1));
    await follower.stop();
    await Promise.all(
      Array.from({ length: 500 }, (_, i) => group.tag("sleep", `t${i}`, version, { timeoutMs: 60_000 })),
    );
    await follower.restart();
    const { index } = await waitForAgreement(local);
    expect(index).toBeGreaterThan(500);
  });

  test("nats-server killed and restarted in the middle", async () => {
    await using group = await connect(local.url);
    const { version } = await group.publish("nats", await tinyShard(dir, "nats", 1));
    const tagging = Promise.all(
      Array.from({ length: 100 }, (_, i) => group.tag("nats", `t${i}`, version, { timeoutMs: 60_000 })),
    );
    await local.nats.kill("SIGKILL");
    await local.nats.restart();
    await tagging;
    await waitForAgreement(local);
  });

  test("the Postgres of the leader killed: another leads, none lost, the old one comes back", async () => {
    await using group = await connect(local.url);
    const { version } = await group.publish("pgkill", await tinyShard(dir, "pgkill", 1));
    const leader = await local.waitForLeader();
    const at = local.replicas.findIndex((r) => r.id === leader);
    await local.postgres[at]!.kill("SIGKILL");
    await group.tag("pgkill", "after", version, { timeoutMs: 30_000 });
    expect(await local.waitForLeader()).not.toBe(leader);
    await local.postgres[at]!.restart();
    await waitForAgreement(local, 60_000);
  });

  test("two processes started with one replica id: one of them ends", async () => {
    const follower = local.replicas.find((r) => r.id)!;
    const twin = await local.startTwin(follower.id);
    const ended = await waitFor(() => Promise.resolve(follower.exited() ? "first" : twin.exited() ? "second" : null), {
      timeoutMs: 20_000,
      what: "one of the two to end",
    });
    await (ended === "first" ? twin : follower).stop();
    await follower.restart();
    await waitForAgreement(local);
    expect((await appliedPoints(local)).length).toBe(3);
  });
});
