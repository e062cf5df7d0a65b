/**
 * Bytes flip, rows vanish, disks fill up in real Postgres databases: nothing acknowledged is lost, nothing that is damaged
 * counts, and what can be mended is mended without an operator.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, inject, test } from "vitest";
import { type ProposeReply, SUBJECTS, decodeApi, encodeApi, proposeReply, readReply } from "../../src/model/api.ts";
import { putCommand } from "../replica/cluster.ts";
import { type DatabaseGroup, openDatabaseGroup } from "../support/databases.ts";
import { waitFor } from "../support/wait-for.ts";

let open: DatabaseGroup | null = null;
afterEach(async () => {
  await open?.close();
  open = null;
});

async function openGroup(engine: "raft" | "paxos"): Promise<DatabaseGroup> {
  const servers = { natsUrl: inject("natsUrl"), postgresUrl: inject("postgresUrl") };
  open = await openDatabaseGroup(servers, { engine });
  return open;
}

async function proposeMany(group: DatabaseGroup, count: number, name: string): Promise<void> {
  const replies = await Promise.all(Array.from({ length: count }, (_, i) => group.propose(putCommand(`${name}${i}`))));
  for (const reply of replies) expect(reply).toMatchObject({ ok: true });
}

const becomes = (group: DatabaseGroup, id: string, wanted: string) =>
  waitFor(
    () => {
      const { state, reason } = group.replica(id).status();
      return state === wanted ? { reason: reason ?? "" } : null;
    },
    { timeoutMs: 30_000, what: `${id} to be ${wanted}` },
  );

async function followers(group: DatabaseGroup): Promise<readonly [string, string]> {
  const leader = await group.leader();
  const [one = "", two = ""] = group.ids.filter((id) => id !== leader);
  return [one, two];
}

/**
 * Stops a replica and takes `count` of its newest applies back, as a crash of Postgres does with applies that were not
 * flushed. Answers with what only its log vouches for then.
 */
async function stopUnapplied(group: DatabaseGroup, id: string, count: number): Promise<number[]> {
  await group.kill(id);
  const [state] = await group.sql(id, "select last_index::int as last from shardpact.replica_state");
  const last = Number(state?.["last"]);
  const to = last - count;
  await group.sql(
    id,
    `begin;
     alter table shardpact.ledger disable trigger user;
     delete from shardpact.pages where put_index > ${to};
     delete from shardpact.ledger where index > ${to};
     alter table shardpact.ledger enable trigger user;
     update shardpact.applied_state set applied_index = ${to},
       chain = (select chain from shardpact.ledger where index = ${to}),
       log_time_ms = (select time_ms from shardpact.ledger where index = ${to});
     commit`,
  );
  return Array.from({ length: count }, (_, i) => to + 1 + i);
}

const FLIP = "update shardpact.log set payload = set_byte(payload, 0, get_byte(payload, 0) # 1)";

describe.each(["raft", "paxos"] as const)("damage in Postgres on %s", (engine) => {
  test("flipped and missing log rows of one replica come back, and it votes again", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 20, "a");
    await group.agreed();
    const [id, other] = await followers(group);
    const unapplied = await stopUnapplied(group, id, 6);
    const [, flipped, , missing] = unapplied;
    await group.sql(id, `${FLIP} where index = ${flipped}`);
    await group.sql(id, `delete from shardpact.log where index in (2, ${missing})`);
    await group.start(id);
    await becomes(group, id, "running");
    const said = (group.events.get(id) ?? []).flatMap((e) => (e.kind === "state" ? [`${e.state} ${e.reason}`] : []));
    expect(said.join("\n")).toContain(
      `certain up to ${(flipped ?? 0) - 1}, acknowledged was up to ${unapplied.at(-1)}`,
    );
    expect(said.join("\n")).toContain(`damaged or missing: ${flipped}, ${missing}`);
    await group.kill(other);
    await proposeMany(group, 3, "b");
    await group.agreed();
    const [row] = await group.sql(
      id,
      "select promised_last, last_index::int as last, count(*)::int as rows from shardpact.replica_state, shardpact.log group by 1, 2",
    );
    expect(row).toMatchObject({ promised_last: null, rows: row?.["last"] });
  });

  test("a damaged majority stops and says what it misses; nothing is discarded", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 10, "a");
    await group.agreed();
    const damaged = new Map<string, number>();
    for (const id of group.ids.slice(0, 2)) {
      const [first = 0] = await stopUnapplied(group, id, 3);
      await group.sql(id, `${FLIP} where index = ${first}`);
      damaged.set(id, first);
    }
    await group.kill("r3");
    await Promise.all(group.ids.map((id) => group.start(id)));
    await sleep(2_000);
    for (const [id, first] of damaged) {
      const { state, reason } = group.replica(id).status();
      expect(state).toBe("non_voting");
      expect(reason).toContain(`certain up to ${first - 1}`);
      expect(reason).toContain(`damaged or missing: ${first}`);
      const [row] = await group.sql(id, `select count(*)::int as rows from shardpact.log where index >= ${first}`);
      expect(row).toEqual({ rows: 3 });
    }
    expect(group.running().every((replica) => replica.status().role !== "leader")).toBe(true);
  });

  test("a damaged row of promises takes the vote for good; the replica follows on", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 5, "a");
    await group.agreed();
    const [id] = await followers(group);
    await group.kill(id);
    await group.sql(id, "update shardpact.replica_state set voted_for = null, epoch = epoch + 1000000");
    await group.start(id);
    expect((await becomes(group, id, "non_voting")).reason).toContain("its term, its vote");
    const term = group.replica(await group.leader()).status().term;
    await proposeMany(group, 5, "b");
    expect(new Set(await group.agreed()).size).toBe(1);
    // A flipped bit in a term does not spread.
    expect(group.replica(await group.leader()).status().term).toBe(term);
    expect(group.replica(id).status().state).toBe("non_voting");
  });

  test("rows that are damaged while it runs are mended when a follower needs them", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 10, "a");
    await group.agreed();
    const [id] = await followers(group);
    await group.kill(id);
    const others = group.ids.filter((other) => other !== id);
    await proposeMany(group, 10, "b");
    for (const other of others) await group.kill(other);
    await Promise.all(others.map((other) => group.start(other)));
    await group.leader();
    for (const other of others) {
      await group.sql(other, `${FLIP} where index = 15`);
      await group.sql(other, "delete from shardpact.log where index = 17");
    }
    await group.start(id);
    expect(new Set(await group.agreed()).size).toBe(1);
    // One that had not applied them again yet cuts its log there, and is given them back.
    for (const other of others) await becomes(group, other, "running");
  });
});

describe.each(["raft", "paxos"] as const)("damaged tables in Postgres on %s", (engine) => {
  test("an object whose bytes flipped is never told, and the replica takes its tables anew while it runs", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 10, "a");
    await group.agreed();
    const [id, other] = await followers(group);
    const [page] = await group.sql(id, "select 'b3:' || encode(digest, 'hex') as digest from shardpact.pages limit 1");
    await group.sql(id, "update shardpact.pages set bytes = set_byte(bytes, 0, get_byte(bytes, 0) # 1)");
    const query = { kind: "object" as const, digest: page?.["digest"] };
    const request = encodeApi({ query, asOf: null, minIndex: 0, waitMs: 500 });
    const subject = SUBJECTS.api(group.genesis.name, id, "read");
    const ask = async () => decodeApi(readReply, await group.client.request(subject, request, { timeoutMs: 5000 }));
    expect(await ask()).toMatchObject({ ok: false, error: { code: "unavailable" } });
    await waitFor(async () => ((await ask().catch(() => null))?.ok === true ? true : null), {
      timeoutMs: 30_000,
      what: `${id} to have its tables again`,
    });
    await becomes(group, id, "running");
    await group.kill(other);
    await proposeMany(group, 3, "b");
    await group.agreed();
    const digests = await Promise.all(
      group
        .running()
        .map(({ status }) =>
          group.sql(status().replica, "select encode(state_digest, 'hex') as d from shardpact.applied_state"),
        ),
    );
    expect(digests[0]).toEqual(digests[1]);
    // History is append-only again.
    await expect(group.sql(id, "delete from shardpact.ledger")).rejects.toThrow(/only ever added|append|refuse/i);
  });

  test("a ledger that lost a row is found at the start", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 10, "a");
    await group.agreed();
    const [id] = await followers(group);
    await group.kill(id);
    await group.sql(
      id,
      `begin; alter table shardpact.ledger disable trigger append_only; delete from shardpact.ledger where index = 5;
       alter table shardpact.ledger enable always trigger append_only; commit`,
    );
    await group.start(id);
    await becomes(group, id, "running");
    const said = (group.events.get(id) ?? []).flatMap((e) => (e.kind === "state" ? [`${e.state} ${e.reason}`] : []));
    expect(said.join("\n")).toMatch(/the ledger has \d+ rows for \d+ applied entries/);
    await proposeMany(group, 3, "b");
    await group.agreed();
    const [row] = await group.sql(id, "select count(*)::int as rows, max(index)::int as last from shardpact.ledger");
    expect(row?.["rows"]).toBe(row?.["last"]);
  });
});

/** What one replica answers to a command, without following the leader. */
async function proposeTo(group: DatabaseGroup, id: string): Promise<ProposeReply> {
  const subject = SUBJECTS.api(group.genesis.name, id, "propose");
  return decodeApi(proposeReply, await group.client.request(subject, putCommand(`to ${id}`), { timeoutMs: 5000 }));
}

const END_CONNECTIONS = `select pg_terminate_backend(pid) from pg_stat_activity
  where datname = current_database() and pid <> pg_backend_pid()`;

/** Ways in which a database takes no more writes, with the SQLSTATE, and how it does again. */
const REFUSALS = [
  {
    name: "a full disk (53100)",
    stop: `create function shardpact.full() returns trigger language plpgsql as
      'begin raise exception ''could not extend file: No space left on device'' using errcode = ''53100''; end';
      create trigger full_disk before insert on shardpact.log execute function shardpact.full()`,
    go: "drop function shardpact.full() cascade",
    says: "the disk of its database is full",
    ends: false,
  },
  {
    name: "a read-only database (25006)",
    stop: `do 'begin execute format(''alter database %I set default_transaction_read_only = on'', current_database()); end'`,
    go: `begin read write;
      do 'begin execute format(''alter database %I reset default_transaction_read_only'', current_database()); end'; commit`,
    says: "its database takes no writes",
    ends: true,
  },
] as const;

describe.each(["raft", "paxos"] as const)("a database that takes no writes on %s", (engine) => {
  test.each(REFUSALS)("$name: the leader gives up, confirms nothing, and comes back by itself", async (refused) => {
    const group = await openGroup(engine);
    await proposeMany(group, 5, "a");
    const old = await group.leader();
    await group.sql(old, refused.stop);
    // The setting holds for new connections.
    if (refused.ends) await group.sql(old, END_CONNECTIONS);
    await proposeMany(group, 5, "without");
    expect(await group.leader()).not.toBe(old);
    await waitFor(() => (group.replica(old).status().reason?.includes(refused.says) === true ? true : null), {
      timeoutMs: 20_000,
      what: `${old} to say why`,
    });
    const answers = await group.confirm({ kind: "datasets", after: "", limit: 1 }, 2);
    expect(answers.map(({ replica }) => replica)).not.toContain(old);
    const reply = await proposeTo(group, old);
    expect(reply).toMatchObject({ ok: false });
    expect(["unavailable", "not_leader"]).toContain(reply.ok ? "" : reply.error.code);
    await group.sql(old, refused.go);
    await becomes(group, old, "running");
    await proposeMany(group, 3, "with");
    expect(new Set(await group.agreed()).size).toBe(1);
  });

  test("a majority without room: writes fail typed, in time; nothing is half done; all comes back", async () => {
    const group = await openGroup(engine);
    await proposeMany(group, 5, "a");
    await group.agreed();
    const full = await followers(group);
    for (const id of full) await group.sql(id, REFUSALS[0].stop);
    const leader = await group.leader();
    const command = putCommand("no room for it", "f".repeat(32));
    const subject = SUBJECTS.api(group.genesis.name, leader, "propose");
    const reply = decodeApi(proposeReply, await group.client.request(subject, command, { timeoutMs: 20_000 }));
    expect(reply).toMatchObject({ ok: false });
    expect(["unavailable", "not_leader", "timeout"]).toContain(reply.ok ? "" : reply.error.code);
    for (const id of full) await group.sql(id, REFUSALS[0].go);
    // Whatever became of it, it has one effect.
    expect(await group.propose(command)).toMatchObject({ ok: true });
    await proposeMany(group, 3, "again");
    expect(new Set(await group.agreed()).size).toBe(1);
  });
});
