/**
 * Backup, restore and recover through the command line's own functions, against a real group: what was agreed on
 * outlives the loss of a majority, under another group id.
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { mkdir } from "node:fs/promises";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { recoverGroup } from "../../src/cli/recover.ts";
import { openReplica } from "../../src/cli/wire.ts";
import { connect, type Dataset, type LoaderState } from "../../src/index.ts";
import { createHostLoader } from "../../src/loader/host-loader.ts";
import { loadReplicaConfig } from "../../src/replica/config.ts";
import type { Replica } from "../../src/replica/index.ts";
import { auditVerify } from "../../src/storage/postgres/audit.ts";
import { openPostgresStores } from "../../src/storage/postgres/open.ts";
import { restorePostgresSnapshot } from "../../src/storage/postgres/snapshot-restore.ts";
import { connectNats } from "../../src/transport/nats.ts";
import { startCli } from "../cli/run-cli.ts";
import { openCluster, putCommand } from "../replica/cluster.ts";
import { sql, tinyShard } from "../support/group.ts";
import { ENGINE } from "../support/engine.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { waitFor } from "../support/wait-for.ts";

const run = randomBytes(4).toString("hex");
const ids = ["r1", "r2", "r3"];
let dir: TempDir;
let admin: pg.Client;
/** State of a loader of the old group. */
let before: LoaderState;

const databaseUrl = (name: string) => Object.assign(new URL(inject("postgresUrl")), { pathname: `/${name}` }).href;
const makeDatabase = async (name: string): Promise<string> => {
  await admin.query(`create database "${name}"`);
  return databaseUrl(name);
};

beforeAll(async () => {
  dir = await tempDir("recover");
  admin = new pg.Client(inject("postgresUrl"));
  await admin.connect();
  for (const id of ids) for (const group of ["old", "new"]) await makeDatabase(`${group}${run}_${id}`);
  const cluster = await openCluster({
    engine: ENGINE,
    connect: (name) => connectNats({ servers: [inject("natsUrl")], name, timeoutMs: 5000 }),
    openStores: (identity) => openPostgresStores({ url: databaseUrl(`old${run}_${identity.replica}`), identity }),
  });
  await Promise.all(cluster.ids.map((id) => cluster.start(id)));
  for (let i = 0; i < 30; i++) await cluster.propose(putCommand(`entry ${i}`));
  before = await workIn(cluster.genesis.name);
  await cluster.agreed();
  await cluster.close();
});
const connectTo = (group: string) =>
  connect({ url: inject("natsUrl"), group, stores: [join(dir.path, "store")], timeoutMs: 20_000 });
const lockFile = () => join(dir.path, "old.lock");
const LOADER = { xs: ["x"], batchSize: 2 };

/** What somebody trains with: a version, a lock on it, and a loader's state after two batches. */
async function workIn(name: string): Promise<LoaderState> {
  await mkdir(join(dir.path, "store"));
  await using group = await connectTo(name);
  await group.publish("d", await tinyShard(dir.path, "d", 1));
  const dataset = await group.open("d@v1");
  await dataset.lock(lockFile());
  await using loader = createHostLoader(dataset.source, LOADER);
  const iterator = loader.iterate();
  for (let i = 0; i < 3; i++) await iterator.next();
  return loader.state();
}

/** Resumes the state; resolves with the first batch's start, or fails. */
async function resumed(dataset: Dataset, resume: LoaderState): Promise<number | undefined> {
  await using loader = createHostLoader(dataset.source, { ...LOADER, resume });
  return (await loader.iterate().next())?.from;
}

afterAll(async () => {
  await admin.end();
  await dir.remove();
});

const cli = (...argv: string[]) => startCli(argv, { cwd: dir.path });

describe.sequential("backup, restore, recover", () => {
  test("replicas give the same backup; restore makes a replica that does not vote, once", async () => {
    const old = ids.map((id) => databaseUrl(`old${run}_${id}`));
    const made = await Promise.all(
      old.slice(0, 2).map((url, i) => cli("backup", "--postgres", url, "--out", `b${i}`, "--json")),
    );
    const [a, b] = made.map(({ stdout }) => JSON.parse(stdout) as Record<string, unknown>);
    expect(made.map(({ code }) => code)).toEqual([0, 0]);
    expect(a?.["applied"]).toMatchObject({ index: expect.any(Number) as number });
    expect(b?.["digest"]).toBe(a?.["digest"]);
    const url = await makeDatabase(`again${run}`);
    const missing = await cli("restore", "b0", "--postgres", url, "--replica", "r9");
    expect([missing.code, missing.stderr]).toEqual([2, expect.stringContaining("r1, r2, r3")]);
    const restored = await cli("restore", "b0", "--postgres", url, "--replica", "r1");
    expect(restored.stdout, restored.stderr).toContain("It does not vote.");
    expect(await sql(url, "select voting from shardpact.replica_state")).toEqual([{ voting: false }]);
    expect(await auditVerify(url)).toMatchObject({ findings: [], applied: a?.["applied"] });
    const twice = await cli("restore", "b0", "--postgres", url, "--replica", "r1");
    expect([twice.code, twice.stderr]).toEqual([2, expect.stringContaining("'r1' already")]);
    expect((await cli("backup", "--postgres", databaseUrl("postgres"), "--out", "x")).code).toBe(3);
  });

  test("a new group goes on after what a survivor held, under another id", async () => {
    const options = {
      survivor: databaseUrl(`old${run}_r2`),
      name: `rec-${run}`,
      out: join(dir.path, "recovered"),
      nats: inject("natsUrl"),
      postgres: databaseUrl(`new${run}_{id}`).replaceAll("%7B", "{").replaceAll("%7D", "}"),
      replicas: 3,
      store: [],
    };
    await expect(recoverGroup(options)).rejects.toMatchObject({ code: "invalid_argument" });
    const { info, parent, snapshot, groupId } = await recoverGroup({ ...options, forceNewGroup: true });
    expect(info).toMatchObject({ groupId, applied: { index: parent.index + 1 } });
    expect(groupId).not.toBe(parent.groupId);
    for (const id of ids) {
      const url = databaseUrl(`new${run}_${id}`);
      expect(await restorePostgresSnapshot(snapshot, { url, replica: id, engine: ENGINE })).toMatchObject({
        voting: true,
      });
    }
    const replicas: Replica[] = [];
    try {
      for (const id of ids)
        replicas.push(await openReplica(await loadReplicaConfig(join(options.out, id, "replica.json"))));
      const leader = await waitFor(async () => replicas.find((r) => r.status().role === "leader") ?? null, {
        timeoutMs: 20_000,
        what: "a leader of the recovered group",
      });
      await waitFor(async () => (leader.status().applied > parent.index + 1 ? true : null), {
        timeoutMs: 10_000,
        what: "its first entry",
      });
      // The same version is there, by the same root; but who relied on the old group is told, and nobody goes on unasked.
      await using group = await connectTo(options.name);
      const dataset = await group.open("d@v1");
      expect(dataset.root).toBe(before.root);
      await expect(group.open({ lock: lockFile() })).rejects.toMatchObject({ code: "group_forked" });
      await expect(resumed(dataset, before)).rejects.toMatchObject({ code: "group_forked" });
      // A state of this group's name that was made in another history, as after a restore of all its databases.
      const { confirmed } = dataset;
      const own: LoaderState = { ...before, group: group.id, at: [parent.index, parent.chain] };
      expect(await resumed(dataset, own)).toBe(before.offset);
      const elsewhere: LoaderState = { ...own, at: [parent.index, "0".repeat(64)] };
      await expect(resumed(dataset, elsewhere)).rejects.toMatchObject({ code: "group_forked" });
      const ahead: LoaderState = { ...own, at: [confirmed.index + 1_000, parent.chain] };
      await expect(resumed(dataset, ahead)).rejects.toMatchObject({ code: "group_forked" });
    } finally {
      await Promise.all(replicas.map((replica) => replica.close()));
    }
    const url = databaseUrl(`new${run}_r1`);
    const [row] = await sql(
      url,
      `select encode(chain, 'hex') as chain from shardpact.ledger where index = ${parent.index}`,
    );
    expect(row).toEqual({ chain: parent.chain });
    expect((await auditVerify(url)).findings).toEqual([]);
  });
});
