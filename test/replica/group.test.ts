import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import { SUBJECTS, decodeApi, encodeApi, proposeReply, readReply, replicaStatus } from "../../src/model/api.ts";
import { type MemoryDisk, createMemoryDisk } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import { type MemoryBus, createMemoryBus } from "../../src/transport/memory.ts";
import { waitFor } from "../support/wait-for.ts";
import { type Cluster, openCluster, putCommand } from "./cluster.ts";

const TIMING = { tickMs: 5, heartbeatTicks: 4, electionTicksMin: 30, electionTicksMax: 60 };

interface Group extends Cluster {
  readonly bus: MemoryBus;
  readonly disks: Map<string, MemoryDisk>;
}

let open: Group | null = null;
afterEach(async () => {
  await open?.close();
  open = null;
});

async function openGroup(): Promise<Group> {
  const bus = createMemoryBus();
  const disks = new Map<string, MemoryDisk>();
  const cluster = await openCluster({
    connect: async (name) => bus.connect(name),
    openStores: async (identity) => {
      const disk = disks.get(identity.replica) ?? createMemoryDisk(`database of ${identity.replica}`);
      disks.set(identity.replica, disk);
      return openMemoryStores(disk, identity);
    },
    timing: TIMING,
  });
  open = { ...cluster, bus, disks };
  await Promise.all(cluster.ids.map((id) => cluster.start(id)));
  return open;
}

async function proposeMany(group: Cluster, count: number, name = "x"): Promise<void> {
  const replies = await Promise.all(Array.from({ length: count }, (_, i) => group.propose(putCommand(`${name}${i}`))));
  for (const reply of replies) expect(reply).toMatchObject({ ok: true });
}

/** A disk in use as it was when it was copied: a failover to a standby that was behind. */
function setBack(disk: MemoryDisk, backup: MemoryDisk): void {
  const refill = <K, V>(map: Map<K, V>, from: ReadonlyMap<K, V>): void => {
    map.clear();
    for (const [key, value] of from) map.set(key, value);
  };
  disk.state = backup.state;
  disk.applied = backup.applied;
  refill(disk.log, backup.log);
  refill(disk.peers, backup.peers);
  refill(disk.outcomes, backup.outcomes);
  for (const [table, rows] of disk.rows) refill(rows, backup.rows.get(table) ?? new Map());
  disk.ledger.splice(0, disk.ledger.length, ...backup.ledger);
  disk.unflushed.length = 0;
}

const follower = (group: Cluster, leader: string): string => group.ids.find((id) => id !== leader) ?? "";
const state = (group: Cluster, id: string, wanted: string): Promise<string | null> =>
  waitFor(
    () => {
      const { state: now, reason } = group.replica(id).status();
      return now === wanted ? { reason } : null;
    },
    { timeoutMs: 10_000, what: `${id} to be ${wanted}` },
  ).then(({ reason }) => reason);

test("elects, commits, loses a replica, goes on; the replica comes back and catches up to an equal chain", async () => {
  const group = await openGroup();
  await proposeMany(group, 100);
  const gone = await group.leader();
  await group.kill(gone);
  await proposeMany(group, 20, "without");
  await group.start(gone);
  const chains = await group.agreed();
  expect(chains).toHaveLength(3);
  expect(new Set(chains).size).toBe(1);
  expect(group.replica(gone).status()).toMatchObject({ state: "running", boot: 2, postgres: "up" });
});

test("every voter answers a confirmation, signed, in equal bytes, at an index that covers what was acknowledged", async () => {
  const group = await openGroup();
  const reply = await group.propose(putCommand("acknowledged"));
  const answers = await group.confirm({ kind: "resolve", ref: { dataset: "none", target: { kind: "head" } } });
  expect(answers.map((a) => a.replica).toSorted()).toEqual(group.ids);
  expect(new Set(answers.map((a) => JSON.stringify(a.agreed))).size).toBe(1);
  expect(answers[0]?.agreed.index).toBeGreaterThanOrEqual(reply.ok ? reply.index : Infinity);
  expect(answers[0]?.agreed).toMatchObject({ voters: group.genesis.voters, answer: { kind: "not_found" } });
});

test("a retry gets the first answer; twins on their way share one entry; other bytes under the id are refused", async () => {
  const group = await openGroup();
  await group.leader();
  const id = "0123456789abcdef0123456789abcdef";
  const [one, two] = await Promise.all([group.propose(putCommand("a", id)), group.propose(putCommand("a", id))]);
  expect(one).toMatchObject({ ok: true });
  // The helper asks again when leadership moves: then the one effect is told as a retry, with the same answer.
  expect({ ...two, retry: false }).toEqual({ ...one, retry: false });
  const again = await group.propose(putCommand("a", id));
  expect(again).toEqual({ ...one, retry: true });
  expect(await group.propose(putCommand("b", id))).toMatchObject({ ok: false, error: { code: "command_id_reused" } });
});

test("a follower refuses proposals with the leader's name; reads wait for their index", async () => {
  const group = await openGroup();
  const leader = await group.leader();
  const other = follower(group, leader);
  const subject = (verb: "propose" | "read" | "status"): string => SUBJECTS.api(group.genesis.name, other, verb);
  const ask = (verb: "propose" | "read" | "status", data: Uint8Array): Promise<Uint8Array> =>
    group.client.request(subject(verb), data, { timeoutMs: 2000 });
  const refused = decodeApi(proposeReply, await ask("propose", putCommand("x")));
  expect(refused).toMatchObject({ ok: false, leader, error: { code: "not_leader" } });
  expect(decodeApi(proposeReply, await ask("propose", new Uint8Array([1, 2])))).toMatchObject({
    ok: false,
    error: { code: "invalid_argument" },
  });
  const reply = await group.propose(putCommand("read me"));
  const query = { kind: "datasets", after: "", limit: 10 };
  const minIndex = reply.ok ? reply.index : 0;
  const read = await ask("read", encodeApi({ query, asOf: null, minIndex, waitMs: 1000 }));
  expect(decodeApi(readReply, read)).toMatchObject({ ok: true, answer: { kind: "rows", rows: [] } });
  const late = await ask("read", encodeApi({ query, asOf: null, minIndex: minIndex + 1000, waitMs: 20 }));
  expect(decodeApi(readReply, late)).toMatchObject({ ok: false, error: { code: "timeout" } });
  expect(decodeApi(replicaStatus, await ask("status", new Uint8Array()))).toMatchObject({ replica: other, leader });
});

test("a lost write throws the engine away; the replica boots its store and comes back with another boot", async () => {
  const group = await openGroup();
  await proposeMany(group, 5);
  const leader = await group.leader();
  const disk = group.disks.get(leader);
  if (disk) disk.failNext = "after";
  await proposeMany(group, 5, "y");
  await waitFor(() => (group.replica(leader).status().boot === 2 ? true : null), { timeoutMs: 5000, what: "boot 2" });
  await state(group, leader, "running");
  expect(new Set(await group.agreed()).size).toBe(1);
  expect(group.events.get(leader)).toContainEqual(expect.objectContaining({ kind: "state", state: "recovering" }));
});

test("two processes with one identity: the newer one's boot ends the older", async () => {
  const group = await openGroup();
  await proposeMany(group, 3);
  const id = await group.leader();
  const older = group.replica(id);
  await group.start(id);
  await proposeMany(group, 3, "z");
  expect(await older.ended).toMatchObject({ code: "fenced" });
  expect(older.status().state).toBe("closed");
  expect(group.replica(id).status().state).toBe("running");
});

test("a process that was replaced a moment ago answers no confirmation, and ends", async () => {
  const group = await openGroup();
  await proposeMany(group, 3);
  await group.agreed();
  const leader = await group.leader();
  const id = follower(group, leader);
  const older = group.replica(id);
  const seen = group.events.get(id)?.length ?? 0;
  // The newer process has booted on the database and has not spoken yet.
  const disk = group.disks.get(id);
  if (disk?.state) disk.state = { ...disk.state, boot: disk.state.boot + 1 };
  const answers = await group.confirm({ kind: "datasets", after: "", limit: 1 }, 2);
  expect(answers.map((answer) => answer.replica)).not.toContain(id);
  expect(await older.ended).toMatchObject({ code: "fenced" });
  expect(group.events.get(id)?.slice(seen)).toContainEqual(
    expect.objectContaining({ kind: "state", state: "closed", reason: expect.stringContaining("boot") as string }),
  );
});

test("an idle process notices within seconds that another has taken its database", async () => {
  const group = await openGroup();
  await group.leader();
  for (const id of group.ids) group.bus.setConnected(id, false);
  const id = group.ids[0] ?? "";
  const older = group.replica(id);
  await group.start(id);
  expect(await older.ended).toMatchObject({ code: "fenced" });
});

test("a replica whose database is a restored backup does not vote, and says why", async () => {
  const group = await openGroup();
  await proposeMany(group, 3);
  await group.agreed();
  const id = follower(group, await group.leader());
  const backup = structuredClone(group.disks.get(id));
  await proposeMany(group, 10, "later");
  await group.agreed();
  await group.kill(id);
  if (backup) group.disks.set(id, backup);
  await group.start(id);
  expect(await state(group, id, "non_voting")).toMatch(/held entries up to \d+ durably and now ends at/);
  await proposeMany(group, 3, "on");
  const answers = await group.confirm({ kind: "datasets", after: "", limit: 1 }, 2);
  await sleep(50);
  expect(answers.map((a) => a.replica)).not.toContain(id);
});

test("a database that is set back under a running replica, boot and all, takes its vote", async () => {
  const group = await openGroup();
  await proposeMany(group, 3);
  await group.agreed();
  const id = await group.leader();
  const disk = group.disks.get(id);
  const backup = structuredClone(disk);
  if (!disk || !backup) throw new Error(`${id} has a disk`);
  await proposeMany(group, 5, "later");
  await group.agreed();
  setBack(disk, backup);
  disk.failNext = "before";
  await proposeMany(group, 3, "on");
  expect(await state(group, id, "non_voting")).toMatch(/lost promises/);
  expect(group.events.get(id)).toContainEqual(expect.objectContaining({ kind: "booted", boot: 2 }));
  expect(disk.state?.voting).toBe(false);
  expect(new Set(await group.agreed()).size).toBe(1);
});

test("a database that forgot a vote takes the replica's vote", async () => {
  const group = await openGroup();
  await proposeMany(group, 3);
  const id = await group.leader();
  for (const other of group.ids) if (other !== id) group.bus.cut(other, id);
  const disk = group.disks.get(id);
  if (!disk?.state) throw new Error(`${id} has booted`);
  disk.state = { ...disk.state, hardState: { ...disk.state.hardState, votedFor: null } };
  disk.failNext = "before";
  await state(group, id, "non_voting");
  group.bus.heal();
  await proposeMany(group, 3, "on");
});

test("a replica that lost its database is refused as a stranger; the others go on", async () => {
  const group = await openGroup();
  await proposeMany(group, 3);
  const id = await group.leader();
  await group.kill(id);
  group.disks.set(id, createMemoryDisk("an empty database"));
  await proposeMany(group, 3, "on");
  await group.start(id);
  expect(await state(group, id, "non_voting")).toMatch(/known here with another database/);
  await proposeMany(group, 3, "and on");
});

test("drops, duplicates and reordering cost time, never agreement", async () => {
  const group = await openGroup();
  await group.leader();
  let n = 0;
  group.bus.setFaults({
    deliver(from, to, subject) {
      n += 1;
      if (!subject.includes(".peer.")) return [0];
      if (n % 13 === 0) return [];
      if (n % 7 === 0) return [0, 9];
      return [n % 5];
    },
  });
  await proposeMany(group, 60);
  group.bus.setFaults(null);
  expect(new Set(await group.agreed()).size).toBe(1);
});

test("a leader that is cut off steps down and follows when the cut is healed", async () => {
  const group = await openGroup();
  const old = await group.leader();
  for (const id of group.ids) {
    if (id === old) continue;
    group.bus.cut(old, id);
    group.bus.cut(id, old);
  }
  await waitFor(() => (group.replica(old).status().role === "leader" ? null : true), {
    timeoutMs: 5000,
    what: "step down",
  });
  await proposeMany(group, 3);
  group.bus.heal();
  expect(new Set(await group.agreed()).size).toBe(1);
});

test("a leader that is closed hands over first: no election timeout passes", async () => {
  const group = await openGroup();
  await proposeMany(group, 3);
  const old = await group.leader();
  const terms = group.replica(old).status().term;
  await group.replica(old).close();
  const others = group.running().filter((replica) => replica.status().replica !== old);
  const next = await waitFor(() => others.map((replica) => replica.status()).find(({ role }) => role === "leader"), {
    timeoutMs: TIMING.electionTicksMin * TIMING.tickMs,
    what: "the next leader",
    everyMs: 1,
  });
  // A ballot carries who drew it in its low 16 bits; its round rises by one.
  const round = (term: number): number => (group.genesis.engine === "paxos" ? Math.floor(term / 2 ** 16) : term);
  expect(round(next.term)).toBe(round(terms) + 1);
});

test("a database of another group is refused at the start", async () => {
  const group = await openGroup();
  await proposeMany(group, 1);
  const id = follower(group, await group.leader());
  const disk = group.disks.get(id);
  await group.close();
  const other = await openGroup();
  await other.kill(id);
  if (disk) other.disks.set(id, disk);
  await expect(other.start(id)).rejects.toMatchObject({ code: "config_invalid" });
});
