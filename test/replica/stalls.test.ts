/**
 * A disk that stands still and a follower that is slow: the one gives up the lead, the other holds up nobody.
 */
import { afterEach, expect, test } from "vitest";
import { SUBJECTS } from "../../src/model/api.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { createMemoryDisk, type MemoryDisk } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import { createMemoryBus } from "../../src/transport/memory.ts";
import { waitFor } from "../support/wait-for.ts";
import { type Cluster, openCluster, putCommand } from "./cluster.ts";

const TIMING = { tickMs: 5, heartbeatTicks: 4, electionTicksMin: 30, electionTicksMax: 60 };
/** Where nobody is to be elected: the machine may be busy with other things for a while. */
const PATIENT = { tickMs: 5, heartbeatTicks: 4, electionTicksMin: 400, electionTicksMax: 600 };
const ELECTION_MS_MAX = TIMING.tickMs * TIMING.electionTicksMax;

interface Group extends Cluster {
  /** What a write of this replica's log waits for first; null: nothing. */
  readonly before: Map<string, () => Promise<void>>;
  /** Bytes of log entries that were sent to a replica. */
  readonly sentTo: Map<string, number>;
}

let open: Group | null = null;
afterEach(async () => {
  open?.before.clear();
  await open?.close();
  open = null;
});

async function openGroup(timing = TIMING): Promise<Group> {
  const bus = createMemoryBus();
  const disks = new Map<string, MemoryDisk>();
  const before: Group["before"] = new Map();
  const cluster = await openCluster({
    connect: async (name) => bus.connect(name),
    openStores: async (identity) => {
      const { replica } = identity;
      const disk = disks.get(replica) ?? createMemoryDisk(`database of ${replica}`);
      disks.set(replica, disk);
      const stores = openMemoryStores(disk, identity);
      const append: typeof stores.log.append = async (writes) => {
        await before.get(replica)?.();
        return stores.log.append(writes);
      };
      return { ...stores, log: { ...stores.log, append } };
    },
    timing,
  });
  const sentTo: Group["sentTo"] = new Map();
  const wire = bus.connect("wire");
  wire.subscribe(SUBJECTS.peer(cluster.genesis.name, "*", "*"), ({ subject, data }) => {
    const to = subject.split(".")[3] ?? "";
    sentTo.set(to, (sentTo.get(to) ?? 0) + data.byteLength);
  });
  open = { ...cluster, before, sentTo };
  await Promise.all(cluster.ids.map((id) => cluster.start(id)));
  await cluster.leader();
  return open;
}

async function put(group: Group, count: number, name: string): Promise<void> {
  const text = "x".repeat(2_000);
  const replies = await Promise.all(
    Array.from({ length: count }, (_, i) => group.propose(putCommand(`${name}${i}${text}`))),
  );
  for (const reply of replies) expect(reply).toMatchObject({ ok: true });
}

/** A disk that answers nothing until it is let go. */
function stuck(group: Group, id: string): () => void {
  let release = (): void => undefined;
  const gate = new Promise<void>((resolve) => (release = resolve));
  group.before.set(id, () => gate);
  return () => {
    group.before.delete(id);
    release();
  };
}

const other = (group: Group, ...not: string[]): string => group.ids.find((id) => !not.includes(id)) ?? "";

test("a leader whose oldest write is older than an election timeout gives up, says why, and another commits", async () => {
  const group = await openGroup();
  await put(group, 5, "a");
  const leader = await group.leader();
  const release = stuck(group, leader);
  const stuckAtMs = performance.now();
  // The write that hangs. Its outcome is the next leader's to tell.
  const hanging = group.propose(putCommand("hangs"));
  const event = await waitFor(() => group.events.get(leader)?.find((each) => each.kind === "stepped_down"), {
    timeoutMs: 10_000,
    what: "the leader to give up",
    everyMs: 1,
  });
  const gaveUpMs = performance.now() - stuckAtMs;
  expect(event).toMatchObject({ reason: expect.stringContaining("log write") as string });
  expect(gaveUpMs).toBeGreaterThan(ELECTION_MS_MAX);
  const next = await waitFor(
    () => group.ids.find((id) => id !== leader && group.replica(id).status().role === "leader"),
    { timeoutMs: 10_000, what: "another leader" },
  );
  await put(group, 5, "b");
  expect(await hanging).toMatchObject({ ok: true });
  // It does not lead again while its disk stands still.
  await new Promise((resolve) => setTimeout(resolve, 4 * ELECTION_MS_MAX));
  expect(group.replica(leader).status().role).not.toBe("leader");
  expect(group.replica(next).status().state).toBe("running");
  release();
  expect(new Set(await group.agreed()).size).toBe(1);
});

test("a follower whose disk stands still is sent a window of entries and no more; the others commit, and it catches up", async () => {
  const group = await openGroup(PATIENT);
  await put(group, 5, "a");
  await group.agreed();
  const leader = await group.leader();
  const slow = other(group, leader);
  const fast = other(group, leader, slow);
  const release = stuck(group, slow);
  group.sentTo.clear();
  // Six megabytes and more.
  for (let round = 0; round < 12; round++) await put(group, 250, `b${round}-`);
  const [toSlow, toFast] = [group.sentTo.get(slow) ?? 0, group.sentTo.get(fast) ?? 0];
  expect(toFast).toBeGreaterThan(6_000_000);
  // Eight full appends in flight, and one that reached over the edge; heartbeats are small.
  expect(toSlow).toBeLessThan(10 * LIMITS.appendBytesMax);
  expect(await group.leader()).toBe(leader);
  release();
  expect(new Set(await group.agreed()).size).toBe(1);
});

test("a slow follower costs the others no commits: as many in a second as without", async () => {
  const group = await openGroup(PATIENT);
  await put(group, 50, "warm");
  const leader = await group.leader();
  const slow = other(group, leader);
  async function perSecond(name: string): Promise<number> {
    const startMs = performance.now();
    let done = 0;
    while (performance.now() - startMs < 700) {
      await put(group, 16, `${name}${done}-`);
      done += 16;
    }
    return (done * 1000) / (performance.now() - startMs);
  }
  const rates = { fast: 0, slow: 0 };
  // In turns, and the best of each: what else the machine does hits both.
  for (let round = 0; round < 3; round++) {
    group.before.delete(slow);
    rates.fast = Math.max(rates.fast, await perSecond(`f${round}-`));
    group.before.set(slow, () => new Promise((resolve) => setTimeout(resolve, 100)));
    rates.slow = Math.max(rates.slow, await perSecond(`s${round}-`));
  }
  expect(rates.slow).toBeGreaterThan(0.6 * rates.fast);
  group.before.delete(slow);
  expect(new Set(await group.agreed()).size).toBe(1);
});
