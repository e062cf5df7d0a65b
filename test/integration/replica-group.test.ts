/**
 * Three replicas in one process over a real nats-server and real Postgres databases.
 */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { describe, expect, inject, test } from "vitest";
import { openPostgresStores } from "../../src/storage/postgres/open.ts";
import { connectNats } from "../../src/transport/nats.ts";
import { SUBJECTS, decodeApi, proposeReply } from "../../src/model/api.ts";
import { type Cluster, openCluster, putCommand } from "../replica/cluster.ts";

async function realCluster(): Promise<Cluster> {
  const run = randomBytes(4).toString("hex");
  const admin = new pg.Client({ connectionString: inject("postgresUrl") });
  await admin.connect();
  for (const id of ["r1", "r2", "r3"]) await admin.query(`create database "g${run}_${id}"`);
  await admin.end();
  const cluster = await openCluster({
    connect: (name) => connectNats({ servers: [inject("natsUrl")], name, timeoutMs: 5000 }),
    openStores: async (identity) => {
      const url = new URL(inject("postgresUrl"));
      url.pathname = `/g${run}_${identity.replica}`;
      return openPostgresStores({ url: url.href, identity });
    },
  });
  await Promise.all(cluster.ids.map((id) => cluster.start(id)));
  return cluster;
}

describe("three replicas over NATS and Postgres", () => {
  test("commit, lose the leader, go on, catch up; chains are equal and answers verify", async () => {
    const cluster = await realCluster();
    try {
      for (let i = 0; i < 20; i++)
        expect(await cluster.propose(putCommand(`a${i}`))).toMatchObject({ ok: true, retry: false });
      const first = await cluster.leader();
      await cluster.kill(first);
      expect(await cluster.propose(putCommand("after"))).toMatchObject({ ok: true });
      expect(await cluster.leader()).not.toBe(first);
      await cluster.start(first);
      expect(new Set(await cluster.agreed()).size).toBe(1);
      const answers = await cluster.confirm({ kind: "resolve", ref: { dataset: "none", target: { kind: "head" } } });
      expect(answers.map((a) => a.replica).toSorted()).toEqual(["r1", "r2", "r3"]);
      expect(new Set(answers.map((a) => JSON.stringify(a.agreed))).size).toBe(1);
    } finally {
      await cluster.close();
    }
  });

  test("640 proposals, 64 at a time, are all acknowledged and equal everywhere", async () => {
    const cluster = await realCluster();
    try {
      const subject = SUBJECTS.api(cluster.genesis.name, await cluster.leader(), "propose");
      const proposer = async (): Promise<void> => {
        for (let i = 0; i < 10; i++) {
          const command = putCommand(randomBytes(8).toString("hex"));
          const bytes = await cluster.client.request(subject, command, { timeoutMs: 30_000 });
          expect(decodeApi(proposeReply, bytes)).toMatchObject({ ok: true, retry: false });
        }
      };
      await Promise.all(Array.from({ length: 64 }, proposer));
      expect(new Set(await cluster.agreed()).size).toBe(1);
    } finally {
      await cluster.close();
    }
  });
});
