/**
 * `shardpact init`: the files that it makes are accepted by those who read them, and its keys are made once.
 */
import { execFile } from "node:child_process";
import { readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openGenesis, openMember } from "../../src/cli/embedded/group-files.ts";
import { findNatsServer, startNats } from "../../src/cli/embedded/nats.ts";
import { freePort } from "../../src/cli/embedded/ports.ts";
import { initGroup } from "../../src/cli/init.ts";
import { writeJoiningFiles } from "../../src/cli/member/files.ts";
import { SUBJECTS } from "../../src/model/api.ts";
import { createSeed, nkeyOf } from "../../src/model/keys.ts";
import { loadReplicaConfig } from "../../src/replica/config.ts";
import { connectNats } from "../../src/transport/nats.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { waitFor } from "../support/wait-for.ts";

let dir: TempDir;
beforeAll(async () => {
  dir = await tempDir("init");
});
afterAll(() => dir.remove());

const OPTIONS = {
  name: "main",
  replicas: 3,
  engine: "raft",
  nats: "nats://nats-1:4222, nats://nats-2:4222",
  postgres: "postgres://shardpact:{password}@postgres-{id}:5432/shardpact",
  store: ["file:///mnt/shards"],
} as const;

test("each replica gets a configuration that validates, readable for its owner alone", async () => {
  const options = { ...OPTIONS, store: [...OPTIONS.store], dir: join(dir.path, "group") };
  const { groupId, files } = await initGroup(options);
  expect(groupId).toMatch(/^b3:[0-9a-f]{64}$/);
  for (const id of ["r1", "r2", "r3"]) {
    const file = join(options.dir, id, "replica.json");
    expect(files).toContain(file);
    expect((await stat(file)).mode & 0o077).toBe(0);
    expect((await stat(join(options.dir, id, "seed.nk"))).mode & 0o077).toBe(0);
    const config = await loadReplicaConfig(file);
    const password = await readFile(join(options.dir, id, "postgres-password"), "utf8");
    expect(config.nats).toEqual(["nats://nats-1:4222", "nats://nats-2:4222"]);
    expect(config.postgres).toBe(`postgres://shardpact:${password}@postgres-${id}:5432/shardpact`);
    expect(config.stores).toEqual(["file:///mnt/shards"]);
  }
});

test("again with other addresses: the same group, the same keys and passwords, new addresses", async () => {
  const options = { ...OPTIONS, store: [], dir: join(dir.path, "again") };
  const first = await initGroup(options);
  const before = await loadReplicaConfig(join(options.dir, "r2", "replica.json"));
  const second = await initGroup({ ...options, nats: "nats://elsewhere:4222" });
  const after = await loadReplicaConfig(join(options.dir, "r2", "replica.json"));
  expect(second.groupId).toBe(first.groupId);
  expect(after).toEqual({ ...before, nats: ["nats://elsewhere:4222"] });
  await expect(initGroup({ ...options, replicas: 5 })).rejects.toMatchObject({ code: "config_invalid" });
  await expect(initGroup({ ...options, name: "other" })).rejects.toMatchObject({ code: "config_invalid" });
  expect(await readdir(options.dir)).toEqual(["group.json", "nats.conf", "r1", "r2", "r3"]);
});

test("a lost key is not replaced silently: it would be another replica", async () => {
  const options = { ...OPTIONS, store: [], dir: join(dir.path, "lost") };
  await initGroup(options);
  await rm(join(options.dir, "r3", "seed.nk"));
  await expect(initGroup(options)).rejects.toMatchObject({
    code: "config_invalid",
    message: expect.stringContaining("r3"),
  });
});

test.each([
  [{ postgres: "postgres://shardpact@db:5432/shardpact" }, "one database for all replicas"],
  [{ postgres: "db-{id}" }, "not the address of a Postgres database"],
  [{ name: "two.tokens" }, "cannot be a group's name"],
  [{ nats: "n1" }, "not a NATS address"],
])("refuses %o", async (wrong, message) => {
  const options = { ...OPTIONS, store: [], dir: join(dir.path, "refused"), ...wrong };
  await expect(initGroup(options)).rejects.toMatchObject({
    code: "config_invalid",
    message: expect.stringContaining(message),
  });
});

test("nats-server accepts the nats.conf", async () => {
  const options = { ...OPTIONS, store: [], dir: join(dir.path, "conf") };
  await initGroup(options);
  const { stderr } = await promisify(execFile)(await findNatsServer(), ["-t", "-c", join(options.dir, "nats.conf")]);
  expect(stderr).toMatch(/configuration file .* is valid/);
});

test("a replica that joins later gets the same kind of files; what was written into nats.conf stays, and init keeps it", async () => {
  const options = { ...OPTIONS, store: [...OPTIONS.store], dir: join(dir.path, "joins") };
  await initGroup(options);
  const conf = join(options.dir, "nats.conf");
  await writeFile(conf, `${await readFile(conf, "utf8")}\n# by hand\nmax_connections: 500\n`);
  const genesis = await openGenesis(options.dir);
  const member = await openMember(options.dir, "r4", false);
  await expect(writeJoiningFiles(options.dir, genesis, member, {})).rejects.toMatchObject({ code: "invalid_argument" });
  await expect(
    writeJoiningFiles(options.dir, genesis, member, { postgres: "postgres://one-for-all/shardpact" }),
  ).rejects.toMatchObject({ code: "config_invalid" });
  const files = await writeJoiningFiles(options.dir, genesis, member, { postgres: OPTIONS.postgres });
  await writeJoiningFiles(options.dir, genesis, member, { postgres: OPTIONS.postgres }); // again
  const config = await loadReplicaConfig(files[0] ?? "");
  const first = await loadReplicaConfig(join(options.dir, "r1", "replica.json"));
  expect(config).toMatchObject({ replica: "r4", genesis: first.genesis, nats: first.nats, stores: first.stores });
  expect(config.postgres).toMatch(/^postgres:\/\/shardpact:[\w-]{20,}@postgres-r4:5432\/shardpact$/);
  expect((await stat(files[0] ?? "")).mode & 0o077).toBe(0);
  const text = await readFile(conf, "utf8");
  expect(text).toContain("max_connections: 500");
  expect(text.split(nkeyOf(config.seed))).toHaveLength(2);
  const { stderr } = await promisify(execFile)(await findNatsServer(), ["-t", "-c", conf]);
  expect(stderr).toMatch(/configuration file .* is valid/);
  await initGroup({ ...options, nats: "nats://elsewhere:4222" });
  expect((await loadReplicaConfig(files[0] ?? "")).nats).toEqual(["nats://elsewhere:4222"]);
  expect(await readFile(conf, "utf8")).toContain(nkeyOf(config.seed));
});

test("two servers with that configuration are one cluster: a message crosses it", async () => {
  const seeds = { r1: createSeed(), r2: createSeed() };
  const members = Object.entries(seeds).map(([id, seed]) => ({ id, nkey: nkeyOf(seed) }));
  const ports = [await freePort(), await freePort()];
  const routes = ports.map((port) => `nats-route://127.0.0.1:${port}`);
  const [a, b] = await Promise.all(
    ports.map((port, i) =>
      startNats({ dir: join(dir.path, `nats-${i}`), access: { group: "g", members }, cluster: { port, routes } }),
    ),
  );
  if (!a || !b) throw new Error("two servers were asked for");
  try {
    await using r1 = await connectNats({ servers: [a.url], name: "r1", seed: seeds.r1, timeoutMs: 5_000 });
    await using r2 = await connectNats({ servers: [b.url], name: "r2", seed: seeds.r2, timeoutMs: 5_000 });
    let heard = 0;
    r2.subscribe(SUBJECTS.peer("g", "r2", "*"), () => (heard += 1));
    await r2.flush(2_000);
    await waitFor(
      () => {
        r1.publish(SUBJECTS.peer("g", "r2", "r1"), new Uint8Array(1));
        return heard > 0 ? true : null;
      },
      { timeoutMs: 10_000, what: "a message to cross the cluster" },
    );
  } finally {
    await Promise.all([a.stop(), b.stop()]);
  }
});
