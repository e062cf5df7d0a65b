import { afterEach, describe, expect, test } from "vitest";
import {
  type ReadConsistency,
  type ReadReply,
  SUBJECTS,
  decodeApi,
  encodeApi,
  readReply,
} from "../../src/model/api.ts";
import { type MemoryDisk, createMemoryDisk } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import { type MemoryBus, createMemoryBus } from "../../src/transport/memory.ts";
import { type Cluster, openCluster, putCommand } from "./cluster.ts";

interface Group extends Cluster {
  readonly bus: MemoryBus;
}
let open: Cluster | null = null;
afterEach(async () => {
  await open?.close();
  open = null;
});

async function openGroup(engine: "raft" | "paxos"): Promise<Group> {
  const bus = createMemoryBus();
  const disks = new Map<string, MemoryDisk>();
  const cluster = await openCluster({
    connect: async (name) => bus.connect(name),
    openStores: async (identity) => {
      const disk = disks.get(identity.replica) ?? createMemoryDisk(`database of ${identity.replica}`);
      disks.set(identity.replica, disk);
      return openMemoryStores(disk, identity);
    },
    timing: { tickMs: 5, heartbeatTicks: 4, electionTicksMin: 30, electionTicksMax: 60 },
    engine,
  });
  open = cluster;
  await Promise.all(cluster.ids.map((id) => cluster.start(id)));
  return { ...cluster, bus };
}

async function outcome(group: Cluster, id: string, commandId: string, consistency: ReadConsistency, waitMs = 2000) {
  const query = { kind: "outcome" as const, commandId };
  const request = encodeApi({ query, asOf: null, minIndex: 0, waitMs, consistency });
  const subject = SUBJECTS.api(group.genesis.name, id, "read");
  return decodeApi(readReply, await group.client.request(subject, request, { timeoutMs: 5000 }));
}

const rowsOf = (reply: ReadReply): readonly unknown[] =>
  reply.ok ? (reply.answer as { rows: readonly unknown[] }).rows : [];

describe.each(["raft", "paxos"] as const)("reads of a group on %s", (engine) => {
  test("linearizable: any replica has what was acknowledged a moment ago", async () => {
    const group = await openGroup(engine);
    await group.leader();
    for (let i = 0; i < 20; i++) {
      const commandId = i.toString(16).padStart(32, "0");
      expect(await group.propose(putCommand(`x${i}`, commandId))).toMatchObject({ ok: true });
      const replies = await Promise.all(group.ids.map((id) => outcome(group, id, commandId, { kind: "linearizable" })));
      for (const reply of replies) expect(rowsOf(reply)).toHaveLength(1);
    }
  });

  test("a replica that is cut off answers no linearizable read, and a bounded one only within its bound", async () => {
    const group = await openGroup(engine);
    const leader = await group.leader();
    const cut = group.ids.find((id) => id !== leader) ?? "";
    const commandId = "a".repeat(32);
    await group.propose(putCommand("before", commandId));
    const fresh = await outcome(group, cut, commandId, { kind: "bounded", ageMsMax: 60_000 });
    expect(rowsOf(fresh)).toHaveLength(1);
    for (const id of group.ids) {
      group.bus.cut(id, cut);
      group.bus.cut(cut, id);
    }
    await group.propose(putCommand("after", "b".repeat(32)));
    expect(await outcome(group, cut, commandId, { kind: "linearizable" }, 100)).toMatchObject({
      ok: false,
      error: { code: "unavailable" },
    });
    const bounded = await outcome(group, cut, commandId, { kind: "bounded", ageMsMax: 60_000 });
    expect(bounded).toMatchObject({ ok: true, ageMs: expect.any(Number) as number });
    expect(bounded.ok && (bounded.ageMs ?? 0)).toBeGreaterThanOrEqual(100);
    expect(await outcome(group, cut, commandId, { kind: "bounded", ageMsMax: 50 }, 100)).toMatchObject({
      ok: false,
      error: { code: "unavailable", message: expect.stringContaining("too stale") as string },
    });
    expect(await outcome(group, cut, "b".repeat(32), { kind: "any" })).toMatchObject({ ok: true, ageMs: null });
    group.bus.heal();
    expect(rowsOf(await outcome(group, cut, "b".repeat(32), { kind: "linearizable" }, 4000))).toHaveLength(1);
  });

  test("a leader that was cut off and does not know it yet answers no linearizable read", async () => {
    const group = await openGroup(engine);
    const old = await group.leader();
    await group.propose(putCommand("before"));
    for (const id of group.ids.filter((other) => other !== old)) {
      group.bus.cut(id, old);
      group.bus.cut(old, id);
    }
    // It still leads, as far as it knows: for less than an election timeout.
    expect(group.replica(old).status().role).toBe("leader");
    expect(await outcome(group, old, "c".repeat(32), { kind: "linearizable" }, 120)).toMatchObject({
      ok: false,
      error: { code: "unavailable" },
    });
  });
});
