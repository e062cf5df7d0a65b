import { afterEach, describe, expect, test } from "vitest";
import type { ReplicaEvent } from "../../src/replica/index.ts";
import { type MemoryDisk, createMemoryDisk } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import type { CatalogStore } from "../../src/storage/port.ts";
import { type BusFaults, type MemoryBus, createMemoryBus } from "../../src/transport/memory.ts";
import { waitFor } from "../support/wait-for.ts";
import { type Cluster, openCluster, putCommand } from "./cluster.ts";

const TIMING = { tickMs: 10, heartbeatTicks: 4, electionTicksMin: 30, electionTicksMax: 60 };
const LOG = { keepEntries: 10, compactEntries: 5 };

interface Group extends Cluster {
  readonly bus: MemoryBus;
  readonly disks: Map<string, MemoryDisk>;
  /** The next install of these ends in a lost database: without effect, or with it. */
  readonly faultyInstalls: Map<string, "before" | "after">;
}

let open: Group | null = null;
afterEach(async () => {
  await open?.close();
  open = null;
});

async function openGroup(engine: "raft" | "paxos"): Promise<Group> {
  const bus = createMemoryBus();
  const disks = new Map<string, MemoryDisk>();
  const faultyInstalls = new Map<string, "before" | "after">();
  const cluster = await openCluster({
    engine,
    connect: async (name) => bus.connect(name),
    openStores: async (identity) => {
      const disk = disks.get(identity.replica) ?? createMemoryDisk(`database of ${identity.replica}`);
      disks.set(identity.replica, disk);
      const stores = openMemoryStores(disk, identity);
      const catalog: CatalogStore = {
        ...stores.catalog,
        installSnapshot(...snapshot) {
          disk.failNext = faultyInstalls.get(identity.replica) ?? null;
          faultyInstalls.delete(identity.replica);
          return stores.catalog.installSnapshot(...snapshot);
        },
      };
      return { ...stores, catalog };
    },
    timing: TIMING,
    log: LOG,
  });
  open = { ...cluster, bus, disks, faultyInstalls };
  await Promise.all(cluster.ids.map((id) => cluster.start(id)));
  return open;
}

async function proposeMany(group: Cluster, count: number, name: string, bytes = 0): Promise<void> {
  const commands = Array.from({ length: count }, (_, i) => putCommand(`${name}${i}${"x".repeat(bytes)}`));
  for (const reply of await Promise.all(commands.map((command) => group.propose(command))))
    expect(reply).toMatchObject({ ok: true });
}

const baseOf = (group: Group, id: string): number => group.disks.get(id)?.state?.base.index ?? 0;
const follower = async (group: Group): Promise<string> => {
  const leader = await group.leader();
  return group.ids.find((id) => id !== leader) ?? "";
};

type SnapshotEvent = Extract<ReplicaEvent, { kind: "snapshot" }>;
const snapshotEvents = (group: Cluster, id: string): readonly SnapshotEvent[] =>
  (group.events.get(id) ?? []).filter((event) => event.kind === "snapshot");
const steps = (group: Cluster, id: string): readonly SnapshotEvent["step"][] =>
  snapshotEvents(group, id).map(({ step }) => step);
const reached = (group: Cluster, id: string, step: SnapshotEvent["step"]): Promise<true> =>
  waitFor(() => (steps(group, id).includes(step) ? true : null), {
    timeoutMs: 20_000,
    what: `${id}: ${step}`,
    everyMs: 2,
  });

/** Stops a follower until the others' logs begin after its end. */
async function leaveBehind(group: Group, { count = 40, bytes = 0 } = {}): Promise<string> {
  await proposeMany(group, 5, "first");
  await group.agreed();
  const id = await follower(group);
  await group.kill(id);
  const last = group.disks.get(id)?.state?.lastIndex ?? 0;
  await proposeMany(group, count, "while it was away", bytes);
  const others = group.ids.filter((other) => other !== id);
  await waitFor(() => (others.every((other) => baseOf(group, other) > last) ? true : null), {
    timeoutMs: 10_000,
    what: "compaction",
  });
  return id;
}

/** Snapshots' bytes travel slowly enough to be met on their way; `seen` counts them. */
function slowBulk(ms: number, seen: { count: number }): BusFaults {
  return {
    deliver(_from, _to, subject) {
      if (!subject.includes(".bulk.")) return [0];
      seen.count += 1;
      return [ms];
    },
  };
}

const same = async (group: Cluster): Promise<number> => new Set(await group.agreed()).size;

describe.each(["raft", "paxos"] as const)("snapshots in a group (%s)", (engine) => {
  test("every replica shortens its log by itself, to what is applied, and keeps a tail (I34)", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 60, "x");
    await group.agreed();
    const settled = (id: string): boolean => {
      const disk = group.disks.get(id);
      const kept = (disk?.applied.index ?? 0) - baseOf(group, id);
      expect(baseOf(group, id)).toBeLessThanOrEqual(disk?.applied.index ?? 0);
      return kept >= LOG.keepEntries && kept <= LOG.keepEntries + LOG.compactEntries;
    };
    await waitFor(() => (group.ids.every(settled) ? true : null), { timeoutMs: 5_000, what: "short logs" });
    for (const id of group.ids) {
      await group.kill(id);
      await group.start(id);
    }
    await proposeMany(group, 3, "after a start on a short log");
    expect(await same(group)).toBe(1);
  });

  test("a replica that was away too long gets a snapshot, then the log, and votes again", async () => {
    const group = await openGroup(engine);
    const id = await leaveBehind(group);
    await group.start(id);
    await reached(group, id, "installed");
    expect(await same(group)).toBe(1);
    expect(group.replica(id).status()).toMatchObject({ state: "running", reason: null });
    const leader = await group.leader();
    await reached(group, leader, "sent");
    // It counts: with another one gone it is needed.
    await group.kill(group.ids.find((other) => other !== id && other !== leader) ?? "");
    await proposeMany(group, 5, "with it");
    await proposeMany(group, 5, "in order", 10);
    expect(await same(group)).toBe(1);
  });

  test("lost, doubled and overtaken pieces cost time only", async () => {
    const group = await openGroup(engine);
    const id = await leaveBehind(group, { bytes: 40_000 });
    let n = 0;
    group.bus.setFaults({
      deliver(_from, _to, subject) {
        n += 1;
        if (!subject.includes(".bulk.") && !subject.includes(".snapshot.")) return [0];
        if (n % 9 === 0) return [];
        if (n % 4 === 0) return [15, 0];
        return [n % 7];
      },
    });
    await group.start(id);
    await reached(group, id, "installed");
    expect(await same(group)).toBe(1);
  });

  test("a sender that is killed on the way is followed by the next leader", async () => {
    const group = await openGroup(engine);
    const id = await leaveBehind(group, { bytes: 100_000 });
    const seen = { count: 0 };
    group.bus.setFaults(slowBulk(40, seen));
    await group.start(id);
    const sender = await group.leader();
    await waitFor(() => (seen.count > 12 ? true : null), { timeoutMs: 10_000, what: "pieces" });
    expect(steps(group, id)).not.toContain("installing");
    await group.kill(sender);
    await reached(group, id, "installed");
    await group.start(sender);
    expect(await same(group)).toBe(1);
  });

  test("a receiver that is killed on the way starts again", async () => {
    const group = await openGroup(engine);
    const id = await leaveBehind(group, { bytes: 100_000 });
    const seen = { count: 0 };
    group.bus.setFaults(slowBulk(40, seen));
    await group.start(id);
    await waitFor(() => (seen.count > 12 ? true : null), { timeoutMs: 10_000, what: "pieces" });
    await group.kill(id);
    expect(steps(group, id)).not.toContain("installing");
    group.bus.setFaults(null);
    await group.start(id);
    await reached(group, id, "installed");
    expect(await same(group)).toBe(1);
  });

  test.each(["before", "after"] as const)(
    "one whose database fails in the install, its effect %s, goes on from what it has",
    async (fault) => {
      const group = await openGroup(engine);
      const id = await leaveBehind(group, { bytes: 20_000 });
      group.faultyInstalls.set(id, fault);
      await group.start(id);
      expect(await same(group)).toBe(1);
      expect(group.faultyInstalls.size).toBe(0);
      expect(steps(group, id).filter((step) => step === "receiving")).toHaveLength(1);
      expect(steps(group, id).filter((step) => step === "installed")).toHaveLength(fault === "before" ? 1 : 0);
      expect(group.replica(id).status()).toMatchObject({ state: "running", reason: null });
    },
  );

  test("commits go on while a snapshot is on its way, and what follows it stays in the log", async () => {
    const group = await openGroup(engine);
    const id = await leaveBehind(group, { bytes: 100_000 });
    const seen = { count: 0 };
    group.bus.setFaults(slowBulk(30, seen));
    await group.start(id);
    await waitFor(() => (seen.count > 4 ? true : null), { timeoutMs: 10_000, what: "pieces" });
    for (let i = 0; i < 10; i += 1) await proposeMany(group, 10, `meanwhile ${i} `);
    expect(steps(group, id)).not.toContain("installed");
    await reached(group, id, "installed");
    expect(await same(group)).toBe(1);
    // One leader needs one snapshot: it drops nothing that must follow. Another leader has a log of its own.
    const senders = snapshotEvents(group, id).flatMap(({ step, peer }) => (step === "receiving" ? [peer] : []));
    expect(senders).toEqual([...new Set(senders)]);
  });
});
