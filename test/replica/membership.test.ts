/**
 * Membership and leader transfer through the whole replica, with memory parts: what an operator asks, what it comes to.
 */
import { afterEach, describe, expect, test } from "vitest";
import { changeMember, encodeAdmin, findLeader, transferLead, type Signer } from "../../src/client/admin.ts";
import { createSession, type Session } from "../../src/client/session.ts";
import { confirm } from "../../src/client/confirm.ts";
import { REAL_TIMING, startDeadline } from "../../src/client/timing.ts";
import { followConfigurations } from "../../src/client/trust.ts";
import { adminReply, type AdminAction, type AdminBody, type AdminReply } from "../../src/model/admin.ts";
import {
  decodeApi,
  encodeApi,
  readReply,
  type ReadRequest,
  SUBJECTS,
  type ReplicaStatus,
} from "../../src/model/api.ts";
import type { MemberChange } from "../../src/model/group.ts";
import { createMemoryDisk, type MemoryDisk } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import { createMemoryBus, type MemoryBus } from "../../src/transport/memory.ts";
import type { RequestOptions, Transport } from "../../src/transport/port.ts";
import { waitFor } from "../support/wait-for.ts";
import { openCluster, putCommand, type Cluster, type ClusterOptions } from "./cluster.ts";

const TIMING = { tickMs: 5, heartbeatTicks: 4, electionTicksMin: 30, electionTicksMax: 60 };

interface Group extends Cluster {
  readonly bus: MemoryBus;
  readonly session: Session;
  signer(id?: string): Signer;
  change(change: MemberChange, by?: string, timeoutMs?: number): Promise<{ readonly index: number }>;
  status(id: string): ReplicaStatus;
  /** Until the leader has applied a configuration with these voters and learners, and no others. */
  membership(voters: string, learners?: string): Promise<void>;
  /** Until a client with the genesis alone can prove the newest configuration. */
  certified(): Promise<void>;
}

let open: Group | null = null;
afterEach(async () => {
  await open?.close();
  open = null;
});

async function openGroup(options: Pick<ClusterOptions, "log"> = {}): Promise<Group> {
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
    ...options,
  });
  const { genesis, groupId } = cluster;
  const session = createSession({
    transport: bus.connect("operator"),
    timing: REAL_TIMING,
    discovered: { group: genesis.name, groupId, genesis, leader: null, stores: [] },
    actor: "operator",
    onNotice: () => undefined,
  });
  const signer = (id = "r1"): Signer => ({ id, seed: cluster.seedOf(id) });
  const status = (id: string): ReplicaStatus => cluster.replica(id).status();
  open = {
    ...cluster,
    bus,
    session,
    signer,
    status,
    async change(change, by, timeoutMs = 10_000) {
      const voter = by ?? (await findLeader(session)).configuration?.voters[0]?.id;
      return changeMember(session, change, signer(voter), { timeoutMs });
    },
    async certified() {
      const { number } = (await findLeader(session)).configuration ?? { number: 0 };
      await waitFor(
        async () => {
          const client = await freshClient(open as Group);
          await followConfigurations(client, startDeadline(REAL_TIMING, 2_000));
          await client.transport.close();
          return client.trusted().number >= number ? true : null;
        },
        { timeoutMs: 10_000, what: `configuration ${number} to be signed` },
      );
    },
    async membership(voters, learners = "") {
      await waitFor(
        () => {
          const leader = cluster.running().find((replica) => replica.status().role === "leader");
          const told = leader?.status().configuration;
          if (!told?.applied || told.votersOutgoing.length > 0) return null;
          const ids = (members: readonly { id: string }[]): string =>
            members
              .map(({ id }) => id)
              .toSorted()
              .join(" ");
          return ids(told.voters) === voters && ids(told.learners) === learners ? true : null;
        },
        { timeoutMs: 10_000, what: `voters ${voters}, learners ${learners}`, everyMs: 5 },
      );
    },
  };
  await Promise.all(cluster.ids.map((id) => cluster.start(id)));
  return open;
}

/** r4 as a learner that runs. */
async function join(group: Group, id = "r4"): Promise<void> {
  const member = group.make(id);
  await group.start(id);
  await group.change({ kind: "add_learner", member });
}

async function put(group: Group, count: number, name: string): Promise<void> {
  const replies = await Promise.all(Array.from({ length: count }, (_, i) => group.propose(putCommand(`${name}${i}`))));
  for (const reply of replies) expect(reply).toMatchObject({ ok: true });
}

async function ask(group: Group, action: AdminAction, over: Partial<AdminBody> = {}, by?: Signer): Promise<AdminReply> {
  const groupId = group.groupId as AdminBody["groupId"];
  const body: AdminBody = {
    groupId,
    nonce: "ab".repeat(16),
    expiresAtMs: Date.now() + 60_000,
    actor: "t",
    action,
    ...over,
  };
  const subject = SUBJECTS.api(group.genesis.name, await group.leader(), "admin");
  const bytes = encodeAdmin(body, by ?? group.signer());
  return decodeApi(adminReply, await group.session.transport.request(subject, bytes, { timeoutMs: 5_000 }));
}

type Row = Readonly<Record<string, unknown>>;
const QUERY = { kind: "datasets", after: "", limit: 10 } as const;

/** What one replica's ledger says of the members. */
async function configurationsOf(group: Group, id: string): Promise<readonly Row[]> {
  const query = { kind: "configurations", after: 0, limit: 1000 } as const;
  const request = encodeApi({ query, asOf: null, minIndex: 0, waitMs: 0 } satisfies ReadRequest);
  const subject = SUBJECTS.api(group.genesis.name, id, "read");
  const reply = decodeApi(readReply, await group.client.request(subject, request, { timeoutMs: 2_000 }));
  return reply.ok ? (reply.answer as { rows: Row[] }).rows : [];
}

/** A configuration as it was, with one of its keys another. */
function swapped(payload: string): string {
  return payload.replace(/"publicKey":"[0-9a-f]{4}/, '"publicKey":"0000');
}

async function freshClient(group: Group, transport = group.bus.connect("fresh")): Promise<Session> {
  const { genesis, groupId } = group;
  return createSession({
    transport,
    timing: REAL_TIMING,
    discovered: { group: genesis.name, groupId, genesis, leader: null, stores: [] },
    actor: "fresh",
    onNotice: () => undefined,
  });
}

/** A connection on which every answer to a list of configurations is changed. */
function liar(group: Group, forge: (row: Row) => Row | null): Transport {
  const inner = group.bus.connect("lied to");
  return new Proxy(inner, {
    get(target, name: keyof Transport) {
      if (name !== "request") return target[name];
      return async (subject: string, data: Uint8Array, options: RequestOptions): Promise<Uint8Array> => {
        const reply = decodeApi(readReply, await target.request(subject, data, options));
        const answer = reply.ok ? (reply.answer as { kind: string; rows: Row[] }) : null;
        if (answer?.kind !== "rows") return encodeApi(reply);
        return encodeApi({
          ...reply,
          answer: { kind: "rows", rows: answer.rows.map(forge).filter((row) => row !== null) },
        });
      };
    },
  });
}

describe("membership", () => {
  test("a new replica learns the whole log, is promoted, and then decides: three → four, then r1's death is survived twice", async () => {
    const group = await openGroup();
    await put(group, 40, "before");
    await join(group);
    await group.membership("r1 r2 r3", "r4");
    await waitFor(() => (group.status("r4").member === "learner" ? true : null), {
      timeoutMs: 5000,
      what: "a learner",
    });
    await group.change({ kind: "promote", id: "r4" });
    await group.membership("r1 r2 r3 r4");
    await put(group, 5, "with four");
    expect(new Set(await group.agreed()).size).toBe(1);
    await join(group, "r5");
    await group.change({ kind: "promote", id: "r5" });
    await group.membership("r1 r2 r3 r4 r5");
    // Five voters go on without two.
    await group.kill("r1");
    await group.kill("r2");
    await put(group, 5, "without two");
    expect(await group.agreed()).toHaveLength(3);
  });

  test("a learner neither counts nor answers confirmations; a voter as of R does, with the configuration as of R", async () => {
    const group = await openGroup();
    await join(group);
    const query = { kind: "datasets", after: "", limit: 10 } as const;
    const asLearner = await group.confirm(query, 3);
    expect(asLearner.map((answer) => answer.replica).toSorted()).toEqual(["r1", "r2", "r3"]);
    expect(asLearner[0]?.agreed).toMatchObject({
      voters: group.genesis.voters,
      votersOutgoing: [],
      configuration: { number: 1 },
    });
    await group.change({ kind: "promote", id: "r4" });
    await group.membership("r1 r2 r3 r4");
    const leader = await findLeader(group.session);
    const digest = leader.configuration?.digest;
    await waitFor(() => (group.status("r4").configuration?.digest === digest ? true : null), {
      timeoutMs: 5000,
      what: "r4 to know that it votes",
    });
  });

  test("a replica that joins when the log was shortened gets a snapshot, and knows the members' history all the same", async () => {
    const group = await openGroup({ log: { keepEntries: 10, compactEntries: 5 } });
    await group.change({ kind: "add_learner", member: group.make("r4") });
    await group.change({ kind: "remove", id: "r4" });
    await put(group, 200, "x");
    await join(group, "r5");
    await group.change({ kind: "promote", id: "r5" });
    await group.membership("r1 r2 r3 r5");
    expect(group.events.get("r5")).toContainEqual(expect.objectContaining({ kind: "snapshot", step: "installed" }));
    await group.certified();
    // With one of the others gone, its word is needed, for what it never saw in a log.
    const leader = await group.leader();
    await group.kill(group.ids.find((id) => id !== leader) ?? "");
    const answers = await group.confirm(QUERY, 3);
    expect(answers.map((answer) => answer.replica)).toContain("r5");
    expect(new Set(answers.map((answer) => JSON.stringify(answer.agreed))).size).toBe(1);
    // And it can prove all of it.
    const kinds = (await configurationsOf(group, "r5")).map((row) => row["kind"]);
    expect(kinds.filter((kind) => kind === "config").length).toBeGreaterThanOrEqual(5);
    expect(kinds.filter((kind) => kind === "configuration.sign").length).toBeGreaterThanOrEqual(8);
  });

  test("the leader removes itself: it leads until that is committed, hands over, says so and keeps quiet", async () => {
    const group = await openGroup();
    const leader = await group.leader();
    await group.change({ kind: "remove", id: leader }, leader);
    const rest = group.ids.filter((id) => id !== leader);
    await group.membership(rest.join(" "));
    await waitFor(() => (group.status(leader).state === "removed" ? true : null), {
      timeoutMs: 5000,
      what: `${leader} to know that it is out`,
    });
    const { term } = await findLeader(group.session);
    await put(group, 5, "without it");
    // Several election timeouts on, nobody was disturbed by the one that is out.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect((await findLeader(group.session)).term).toBe(term);
    expect(group.status(leader)).toMatchObject({ state: "removed", member: "none" });
  });

  test("a removed replica that slept through its removal comes back, disturbs nobody, and is told", async () => {
    const group = await openGroup();
    const leader = await group.leader();
    const out = group.ids.find((id) => id !== leader) ?? "";
    await group.kill(out);
    await group.change({ kind: "remove", id: out }, leader);
    await group.membership(group.ids.filter((id) => id !== out).join(" "));
    await put(group, 5, "meanwhile");
    const before = await findLeader(group.session);
    await group.start(out);
    await waitFor(() => (group.status(out).state === "removed" ? true : null), {
      timeoutMs: 10_000,
      what: `${out} to be told`,
    });
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const after = await findLeader(group.session);
    expect([after.term, after.replica]).toEqual([before.term, before.replica]);
    await put(group, 3, "after");
    // It may be added again, under its own key, and goes on.
    const publicKey = group.genesis.voters.find((voter) => voter.id === out)?.publicKey ?? "";
    await group.change({ kind: "add_learner", member: { id: out, publicKey } }, leader);
    await waitFor(() => (group.status(out).state === "running" ? true : null), { timeoutMs: 5000, what: "its return" });
    expect(new Set(await group.agreed()).size).toBe(1);
  });

  test("a dead replica is replaced in one change, and the number of voters stays", async () => {
    const group = await openGroup();
    const leader = await group.leader();
    const dead = group.ids.find((id) => id !== leader) ?? "";
    await group.kill(dead);
    const member = group.make("r4");
    await group.start("r4");
    await group.change({ kind: "add_learner", member }, leader);
    await put(group, 10, "x");
    await group.change({ kind: "replace", id: dead, by: "r4" }, leader);
    await group.membership([...group.ids.filter((id) => id !== dead), "r4"].toSorted().join(" "));
    await put(group, 5, "y");
    expect(await group.agreed()).toHaveLength(3);
  });

  test("a leader that dies in the middle of a joint change: the next one ends it, and the group goes on", async () => {
    const group = await openGroup();
    await join(group);
    await put(group, 10, "x");
    await group.agreed();
    const leader = await group.leader();
    const [dead = "", other = ""] = group.ids.filter((id) => id !== leader);
    await group.kill(dead);
    // The learner hears, and isn't heard: with one of three voters gone, Raft can't commit the joint configuration.
    group.bus.cut("r4", leader);
    const { lastIndex } = group.status(other);
    const asked = group.change({ kind: "promote", id: "r4" }, leader, 3_000).catch((error: unknown) => error);
    await waitFor(() => (group.status(other).lastIndex > lastIndex ? true : null), {
      timeoutMs: 5000,
      what: "the change on a follower",
      everyMs: 1,
    });
    const { configuration } = group.status(leader);
    expect(configuration?.applied === true && configuration.voters.length === 4, "the change is under way").toBe(false);
    await group.kill(leader);
    group.bus.heal();
    await group.start(dead);
    await asked;
    await group.membership("r1 r2 r3 r4");
    await put(group, 5, "y");
    await group.start(leader);
    expect(new Set(await group.agreed()).size).toBe(1);
  });
});

describe("a client with the genesis alone", () => {
  test("is shown how the group came to its members when none of the first is left, by one replica, and proves it", async () => {
    const group = await openGroup();
    await put(group, 3, "x");
    const lasting = await freshClient(group);
    for (const [old, id] of [
      ["r1", "r4"],
      ["r2", "r5"],
      ["r3", "r6"],
    ] as const) {
      await join(group, id);
      await group.change({ kind: "replace", id: old, by: id });
      await group.certified();
    }
    await group.membership("r4 r5 r6");
    for (const id of group.ids) await group.kill(id);
    await put(group, 3, "y");
    // None of the voters that it trusts is there; whoever answers may be asked.
    const session = await freshClient(group);
    const { confirmation } = await confirm(session, QUERY, { timeoutMs: 10_000 });
    expect(confirmation.replicas.every((id) => ["r4", "r5", "r6"].includes(id))).toBe(true);
    expect(session.trusted()).toMatchObject({ voters: [{ id: "r4" }, { id: "r5" }, { id: "r6" }], votersOutgoing: [] });
    // So does one that was away in between.
    await confirm(lasting, QUERY, { timeoutMs: 10_000 });
    expect(lasting.trusted()).toEqual(session.trusted());
  });

  test("keeps what it trusts when the signatures of the new members are missing or another's", async () => {
    const group = await openGroup();
    await join(group);
    await group.change({ kind: "promote", id: "r4" });
    await group.membership("r1 r2 r3 r4");
    await group.certified();
    const honest = await freshClient(group);
    const deadline = startDeadline(REAL_TIMING, 5_000);
    expect(await followConfigurations(honest, deadline)).toBe(true);
    const { number } = honest.trusted();
    // A replica that answers under everybody's name, and leaves out or changes what it likes.
    for (const forge of [
      (row: Row) => (row["kind"] === "config" ? row : null),
      (row: Row) =>
        row["kind"] === "config" ? row : { ...row, body: { ...(row["body"] as Row), signature: "0".repeat(128) } },
      (row: Row) => (row["kind"] === "config" ? { ...row, chain: "0".repeat(64) } : row),
      (row: Row) => (row["kind"] === "config" ? { ...row, index: Number(row["index"]) + 1 } : row),
      (row: Row) => ({ ...row, ...(row["kind"] === "config" ? { payload: swapped(String(row["payload"])) } : {}) }),
      (row: Row) => (String(row["payload"]).includes('"number":1,') ? null : row),
    ]) {
      const victim = await freshClient(group, liar(group, forge));
      expect(await followConfigurations(victim, startDeadline(REAL_TIMING, 5_000))).toBe(false);
      expect(victim.trusted().number).toBe(0);
    }
    // A learner, a joint change and its end; Multi-Paxos has no joint changes.
    expect(number).toBe(group.genesis.engine === "paxos" ? 2 : 3);
  });
});

describe("transfer", () => {
  test("the lead goes to whom it was given, and the group goes on", async () => {
    const group = await openGroup();
    const leader = await group.leader();
    const to = group.ids.find((id) => id !== leader) ?? "";
    await put(group, 5, "x");
    await transferLead(group.session, to, group.signer());
    expect((await findLeader(group.session)).replica).toBe(to);
    await put(group, 5, "y");
    await transferLead(group.session, to, group.signer()); // already there
  });

  test("a learner, a stranger and a dead voter don't get it; the leader goes on", async () => {
    const group = await openGroup();
    await join(group);
    const leader = await group.leader();
    const dead = group.ids.find((id) => id !== leader) ?? "";
    for (const to of ["r4", "r9"]) {
      await expect(transferLead(group.session, to, group.signer())).rejects.toMatchObject({ code: "not_found" });
    }
    await group.kill(dead);
    const { term } = await findLeader(group.session);
    const reply = await ask(group, { kind: "transfer", to: dead, term });
    expect(reply).toMatchObject({ ok: false, error: { code: "unavailable" } });
    await put(group, 3, "x");
  });
});

describe("who may ask", () => {
  test("only a voter's key, for this group, in time; and a request does something once", async () => {
    const group = await openGroup();
    const member = group.make("r4");
    const { configuration } = await findLeader(group.session);
    if (!configuration) throw new Error("a leader has a configuration");
    const action = { kind: "change", change: { kind: "add_learner", member }, expected: configuration.digest } as const;
    const code = async (...rest: [Partial<AdminBody>?, Signer?]): Promise<string> => {
      const reply = await ask(group, action, ...rest);
      return reply.ok ? "ok" : reply.error.code;
    };
    expect(await code({}, { id: "r1", seed: group.seedOf("r4") }), "another key").toBe("unauthorized");
    expect(await code({}, { id: "r4", seed: group.seedOf("r4") }), "no voter").toBe("unauthorized");
    expect(await code({ groupId: `b3:${"0".repeat(64)}` }), "another group").toBe("group_forked");
    expect(await code({ expiresAtMs: 1 }), "too late").toBe("timeout");
    const first = await ask(group, action);
    expect(first).toMatchObject({ ok: true });
    expect(await ask(group, action), "the same request").toEqual(first);
    await group.change({ kind: "remove", id: "r4" });
    await group.membership("r1 r2 r3");
    // The request is still known; under another nonce it expects what is past.
    expect(await ask(group, action)).toEqual(first);
    expect(await code({ nonce: "cd".repeat(16) })).toBe("configuration_moved");
    await group.membership("r1 r2 r3");
  });

  test("a follower names the leader; what makes no sense is said in words", async () => {
    const group = await openGroup();
    const leader = await group.leader();
    await put(group, 1, "x");
    const follower = group.ids.find((id) => id !== leader) ?? "";
    const { configuration, term } = await findLeader(group.session);
    const expected = configuration?.digest ?? `b3:${"0".repeat(64)}`;
    const change = async (what: MemberChange): Promise<AdminReply> =>
      ask(group, { kind: "change", change: what, expected });
    for (const what of [
      { kind: "promote", id: "r9" },
      { kind: "remove", id: "r9" },
      { kind: "replace", id: "r1", by: "r2" },
      { kind: "add_learner", member: { id: "r2", publicKey: "0".repeat(64) } },
      { kind: "add_learner", member: { id: "r4", publicKey: group.genesis.voters[0]?.publicKey ?? "" } },
    ] as const) {
      expect(await change(what)).toMatchObject({ ok: false, error: { code: "invalid_argument" } });
    }
    const body: AdminBody = {
      groupId: group.groupId as AdminBody["groupId"],
      nonce: "ef".repeat(16),
      expiresAtMs: Date.now() + 60_000,
      actor: "t",
      action: { kind: "transfer", to: follower, term },
    };
    const subject = SUBJECTS.api(group.genesis.name, follower, "admin");
    const bytes = encodeAdmin(body, group.signer());
    const reply = decodeApi(adminReply, await group.session.transport.request(subject, bytes, { timeoutMs: 2000 }));
    expect(reply).toMatchObject({ ok: false, leader, error: { code: "not_leader" } });
  });

  test("a learner that never ran can't be promoted", async () => {
    const group = await openGroup();
    await put(group, 3, "x");
    await group.change({ kind: "add_learner", member: group.make("r4") });
    await expect(group.change({ kind: "promote", id: "r4" }, "r1", 600)).rejects.toMatchObject({
      code: "not_caught_up",
    });
    await group.membership("r1 r2 r3", "r4");
  });
});
