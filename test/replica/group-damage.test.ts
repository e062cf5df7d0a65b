import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import {
  type MemoryDisk,
  createMemoryDisk,
  damageMemoryPromises,
  damageMemoryRecord,
} from "../../src/storage/memory/disk.ts";
import { isIntactRecord } from "../../src/storage/memory/log-boot.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import { createMemoryBus } from "../../src/transport/memory.ts";
import { waitFor } from "../support/wait-for.ts";
import { type Cluster, openCluster, putCommand } from "./cluster.ts";

interface Group extends Cluster {
  disk(id: string): MemoryDisk;
  followers(): Promise<readonly [string, string]>;
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
  const disk = (id: string): MemoryDisk => {
    const found = disks.get(id);
    if (!found) throw new Error(`${id} has no disk`);
    return found;
  };
  const followers = async (): Promise<readonly [string, string]> => {
    const leader = await cluster.leader();
    const [one = "", two = ""] = cluster.ids.filter((id) => id !== leader);
    return [one, two];
  };
  return { ...cluster, disk, followers };
}

async function proposeMany(group: Group, count: number, name = "x"): Promise<void> {
  const replies = await Promise.all(Array.from({ length: count }, (_, i) => group.propose(putCommand(`${name}${i}`))));
  for (const reply of replies) expect(reply).toMatchObject({ ok: true });
}

const becomes = (group: Group, id: string, wanted: string) =>
  waitFor(
    () => {
      const { state, reason } = group.replica(id).status();
      return state === wanted ? { reason } : null;
    },
    { timeoutMs: 15_000, what: `${id} to be ${wanted}` },
  );

/** All of `ids` acknowledge six more entries and then lose their applies of them, as a crash of Postgres takes what was not flushed. */
async function stopUnapplied(group: Group, ids: readonly string[]): Promise<number[]> {
  await group.agreed();
  const applied = ids.map((id) => {
    const { applied: state, rows, ledger, outcomes } = group.disk(id);
    return structuredClone({ state, rows, ledger, outcomes });
  });
  await proposeMany(group, 6, "unapplied ");
  await group.agreed();
  for (const [i, id] of ids.entries()) {
    await group.kill(id);
    const [disk, before] = [group.disk(id), applied[i]];
    if (!before) continue;
    disk.applied = before.state;
    disk.ledger.length = before.ledger.length;
    refill(disk.outcomes, before.outcomes);
    for (const [table, rows] of disk.rows) refill(rows, before.rows.get(table) ?? new Map());
    disk.unflushed.length = 0;
  }
  const from = applied[0]?.state.index ?? 0;
  const last = group.disk(ids[0] ?? "").state?.lastIndex ?? 0;
  return Array.from({ length: last - from }, (_, i) => from + 1 + i);
}

function refill<K, V>(map: Map<K, V>, from: ReadonlyMap<K, V>): void {
  map.clear();
  for (const [key, value] of from) map.set(key, value);
}

function damage(disk: MemoryDisk, indexes: readonly number[], how: "flip" | "drop" = "drop"): void {
  for (const index of indexes) {
    if (how === "flip") damageMemoryRecord(disk, index);
    else disk.log.delete(index);
  }
}

/** A replica comes to hold the rows, ledger and applied state of the leader. */
async function sameTables(group: Group, id: string): Promise<void> {
  const { own, other } = await waitFor(
    async () => {
      const [mine, theirs] = [group.disk(id), group.disk(await group.leader())];
      return mine.applied.chain === theirs.applied.chain ? { own: mine, other: theirs } : null;
    },
    { timeoutMs: 15_000, what: `${id} to have applied what the leader has` },
  );
  expect(own.applied).toEqual(other.applied);
  // Under Multi-Paxos the ballot is the one in which this replica holds the entry.
  const chosen = ({ ledger }: MemoryDisk) => ledger.map(({ epoch: _, ...row }) => row);
  expect(chosen(own)).toEqual(chosen(other));
  expect(own.rows).toEqual(other.rows);
}

const statesOf = (group: Group, id: string) =>
  (group.events.get(id) ?? []).flatMap((event) =>
    event.kind === "state" ? [`${event.state} ${event.reason ?? ""}`] : [],
  );

describe.each(["raft", "paxos"] as const)("damage of a replica's log on %s", (engine) => {
  test.each(["flip", "drop"] as const)(
    "a log that is damaged (%s) is given back, and the replica votes again",
    async (how) => {
      const group = await openGroup(engine);
      await proposeMany(group, 12);
      const [id, other] = await group.followers();
      const open = await stopUnapplied(group, [id]);
      expect(open.length).toBeGreaterThan(1);
      const at = open[Math.floor(open.length / 2)] ?? 0;
      damage(group.disk(id), [at], how);
      const seen = group.events.get(id)?.length ?? 0;
      await group.start(id);
      await becomes(group, id, "running");
      const said = statesOf(group, id)
        .slice(seen === 0 ? 0 : -2)
        .join("\n");
      expect(said).toContain(`non_voting the log is certain up to ${at - 1}, acknowledged was up to ${open.at(-1)}`);
      expect(said).toContain(`damaged or missing: ${at}`);
      // Its vote counts: without it there is no majority.
      await group.kill(other);
      await proposeMany(group, 3, "with it");
      expect(new Set(await group.agreed()).size).toBe(1);
      expect([...group.disk(id).log.values()].every(isIntactRecord)).toBe(true);
      expect(group.disk(id).state?.promisedLast).toBeNull();
    },
  );

  test("while it is damaged it does not count: with one more replica gone the group waits, and goes on by itself", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 12);
    const [id, other] = await group.followers();
    const open = await stopUnapplied(group, [id]);
    await group.kill(other);
    damage(group.disk(id), open.slice(0, 2));
    await group.start(id);
    await sleep(600);
    expect(group.running().every((replica) => replica.status().role !== "leader")).toBe(true);
    expect(group.replica(id).status().state).toBe("non_voting");
    await group.start(other);
    await becomes(group, id, "running");
    await proposeMany(group, 3, "on");
    expect(new Set(await group.agreed()).size).toBe(1);
  });

  test("a damaged majority stops, and each says what it misses and up to where it is certain", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 12);
    const [one = "", two = "", three = ""] = group.ids;
    const [first = 0] = await stopUnapplied(group, [one, two]);
    await group.kill(three);
    for (const id of [one, two]) damage(group.disk(id), [first], "flip");
    await Promise.all(group.ids.map((id) => group.start(id)));
    await sleep(800);
    for (const id of [one, two]) {
      const { state, reason, role } = group.replica(id).status();
      expect({ state, role }).toEqual({ state: "non_voting", role: "follower" });
      expect(reason).toContain(`certain up to ${first - 1}`);
      expect(reason).toContain(`damaged or missing: ${first}`);
    }
    expect(group.replica(three).status().role).not.toBe("leader");
  });

  test("applied entries are taken from the own ledger, at the start and when a follower needs them", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 30);
    await group.agreed();
    const [id] = await group.followers();
    await group.kill(id);
    const behind = group.disk(id).state?.lastIndex ?? 0;
    await proposeMany(group, 30, "later");
    await group.agreed(); // what is not applied yet would be read, and remembered, by whoever leads next
    // Nobody holds them in memory after a restart: whoever leads reads them from its log.
    const others = group.ids.filter((other) => other !== id);
    for (const other of others) await group.kill(other);
    damage(group.disk(others[0] ?? ""), [2, 3]);
    await Promise.all(others.map((other) => group.start(other)));
    await group.leader();
    for (const other of others) damage(group.disk(other), [behind + 3], "flip");
    await group.start(id);
    const chains = await group.agreed();
    expect(new Set(chains).size).toBe(1);
    for (const other of others) await becomes(group, other, "running");
    // Whoever led when the sleeper came back had to read them; who leads by now need not have.
    expect(others.some((other) => [...group.disk(other).log.values()].every(isIntactRecord))).toBe(true);
    expect(group.disk(others[0] ?? "").log.has(2)).toBe(true);
  });

  test("a replica whose term and vote are damaged never votes again, and follows on", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 5);
    await group.agreed();
    const [id] = await group.followers();
    await group.kill(id);
    damageMemoryPromises(group.disk(id));
    await group.start(id);
    expect((await becomes(group, id, "non_voting")).reason).toMatch(/lost promises.*term, its vote/);
    await proposeMany(group, 5, "on");
    expect(new Set(await group.agreed()).size).toBe(1);
    expect(group.replica(id).status().state).toBe("non_voting");
  });
});

describe.each(["raft", "paxos"] as const)("damage of a replica's tables on %s", (engine) => {
  test("tables that came to other rows than a majority's are taken anew, and the replica votes again", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 10);
    await group.agreed();
    const [id, other] = await group.followers();
    // As if an apply had come to other rows, once: nothing that it stores contradicts itself.
    const disk = group.disk(id);
    disk.applied = { ...disk.applied, stateDigest: "ab".repeat(32) };
    for (let i = 0; i < 11; i++) await proposeMany(group, 100, `more ${i} `);
    await waitFor(() => (statesOf(group, id).some((s) => s.includes("came to other rows")) ? true : null), {
      timeoutMs: 10_000,
      what: `${id} to find that its tables differ`,
    });
    await becomes(group, id, "running");
    await sameTables(group, id);
    await group.kill(other);
    await proposeMany(group, 3, "with it");
    for (const left of group.running()) expect(left.status().state).toBe("running");
  });

  test.each([
    [
      "the applied state",
      (disk: MemoryDisk): void => {
        disk.applied = { ...disk.applied, index: disk.applied.index - 2 };
      },
    ],
    ["a row of the ledger that is gone", (disk: MemoryDisk): void => void disk.ledger.splice(3, 1)],
    [
      "an entry in log and ledger",
      (disk: MemoryDisk): void => {
        disk.log.delete(4);
        const row = disk.ledger[3];
        if (row) disk.ledger[3] = { ...row, payload: Uint8Array.of(...row.payload, 1) };
      },
    ],
  ] as const)("%s: found at the start, taken anew", async (_what, hurt) => {
    const group = await openGroup(engine);
    await proposeMany(group, 10);
    await group.agreed();
    const [id] = await group.followers();
    await group.kill(id);
    hurt(group.disk(id));
    await group.start(id);
    await becomes(group, id, "running");
    expect(statesOf(group, id).some((said) => said.startsWith("non_voting"))).toBe(true);
    await proposeMany(group, 3, "on");
    await sameTables(group, id);
  });

  test("without a leader that holds as much nothing is dropped", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 10);
    await group.agreed();
    const [id, other] = await group.followers();
    await group.kill(other);
    await group.kill(await group.leader());
    await group.kill(id);
    const rows = group.disk(id).ledger.length;
    group.disk(id).ledger.splice(3, 1);
    await group.start(id);
    await sleep(1_500);
    expect(group.replica(id).status().state).toBe("non_voting");
    expect(group.disk(id).ledger).toHaveLength(rows - 1);
  });
});
