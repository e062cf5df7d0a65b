/**
 * A client that never heard an answer asks again, whatever happened meanwhile: real processes are killed, the leader
 * changes, a replica is brought back by a snapshot on a shortened log. One effect, and the first answer (I12).
 */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type LocalGroup, startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import type { LocalReplica } from "../../src/cli/embedded/local-replica.ts";
import { type ProposeReply, SUBJECTS, decodeApi, proposeReply } from "../../src/model/api.ts";
import { encodeCommand, parseCommand } from "../../src/model/commands.ts";
import { connectNats } from "../../src/transport/nats.ts";
import type { Transport } from "../../src/transport/port.ts";
import { putCommand } from "../replica/cluster.ts";
import { sql, waitForAgreement } from "../support/group.ts";
import { waitFor } from "../support/wait-for.ts";

const newId = (): string => randomBytes(16).toString("hex");

/** A command that is recorded as a rejection: there is no such version. */
const rejectedCommand = (id: string): Uint8Array =>
  encodeCommand(
    parseCommand({
      id,
      actor: "test",
      kind: "tag.move",
      body: { dataset: "nowhere", tag: "t", version: 1 },
      blob: new Uint8Array(),
    }),
  );

describe.each(["raft", "paxos"] as const)("retries on %s", (engine) => {
  let dir: string;
  let local: LocalGroup;
  let client: Transport;

  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), "shardpact-sessions-"));
    local = await startLocalGroup({ dir: path.join(dir, "g"), engine, log: { keepEntries: 20, compactEntries: 10 } });
    await local.waitForLeader();
    client = await connectNats({ servers: [local.url], name: "sessions", timeoutMs: 10_000 });
  });
  afterAll(async () => {
    await client?.close();
    await local?.close();
    await rm(dir, { recursive: true, force: true });
  });

  const replica = (id: string): LocalReplica => local.replicas.find((r) => r.id === id) as LocalReplica;

  /** Until somebody has an answer that is not about who leads. */
  function propose(encoded: Uint8Array): Promise<ProposeReply> {
    return waitFor(
      async () => {
        const leader = await local.waitForLeader(20_000);
        const subject = SUBJECTS.api(local.group, leader, "propose");
        const bytes = await client.request(subject, encoded, { timeoutMs: 5_000 }).catch(() => null);
        const reply = bytes && decodeApi(proposeReply, bytes);
        if (!reply) return null;
        return !reply.ok && ["not_leader", "unavailable", "timeout"].includes(reply.error.code) ? null : reply;
      },
      { timeoutMs: 60_000, what: "an answer to a command", everyMs: 50 },
    );
  }

  /** A success, a rejection, and what is said to another body under the first one's id. */
  async function commands() {
    const [good, bad] = [newId(), newId()];
    const encoded = {
      good: putCommand(`good ${good}`, good),
      bad: rejectedCommand(bad),
      other: putCommand("other", good),
    };
    return { encoded, first: { good: await propose(encoded.good), bad: await propose(encoded.bad) } };
  }

  async function expectSame({ encoded, first }: Awaited<ReturnType<typeof commands>>): Promise<void> {
    expect(first.good).toMatchObject({ ok: true, retry: false });
    expect(first.bad).toMatchObject({ ok: false, error: { code: "not_found" } });
    expect(await propose(encoded.good)).toEqual({ ...first.good, retry: true });
    expect(await propose(encoded.bad)).toEqual(first.bad);
    expect(await propose(encoded.other)).toMatchObject({ ok: false, error: { code: "command_id_reused" } });
    await waitForAgreement(local, 60_000);
    for (const { postgresUrl } of local.replicas) {
      const effects = await sql(
        postgresUrl,
        `select count(command_id)::int as firsts, count(distinct outcome::text)::int as outcomes, count(*)::int as rows
         from shardpact.ledger where index = ${first.good.ok ? first.good.index : 0}`,
      );
      expect(effects).toEqual([{ firsts: 1, outcomes: 1, rows: 1 }]);
    }
  }

  test("after every process was killed and started again", async () => {
    const asked = await commands();
    await Promise.all(local.replicas.map((r) => r.kill("SIGKILL")));
    await Promise.all(local.replicas.map((r) => r.restart()));
    await expectSame(asked);
  });

  test("after the leader was killed, and while it is", async () => {
    const asked = await commands();
    const leader = await local.waitForLeader();
    await replica(leader).kill("SIGKILL");
    // Sent before anybody knows: the same id in every try.
    const id = newId();
    const across = putCommand(`across ${id}`, id);
    const reply = await propose(across);
    expect(reply).toMatchObject({ ok: true });
    await replica(leader).restart();
    await expectSame(asked);
    expect(await propose(across)).toEqual({ ...reply, retry: true });
  });

  test("by a leader that has the answer from a snapshot, its log long gone", async () => {
    const leader = await local.waitForLeader();
    const away = local.replicas.find(({ id }) => id !== leader) as LocalReplica;
    await away.stop();
    const asked = await commands();
    for (let i = 0; i < 120; i += 40) await Promise.all(Array.from({ length: 40 }, () => propose(putCommand(newId()))));
    const firstIndexOf = async ({ postgresUrl }: LocalReplica): Promise<number> =>
      Number((await sql(postgresUrl, "select first_index::int as first from shardpact.replica_state"))[0]?.["first"]);
    const index = asked.first.good.ok ? asked.first.good.index : 0;
    await waitFor(async () => ((await firstIndexOf(replica(leader))) > index ? true : null), {
      timeoutMs: 60_000,
      what: "the log to be shorter than the command's place",
    });
    await away.restart();
    await waitForAgreement(local, 60_000);
    // It leads once the others are gone for a moment and one of them is back.
    const others = local.replicas.filter((r) => r !== away);
    await waitFor(
      async () => {
        if ((await local.waitForLeader(30_000)) === away.id) return true;
        const now = await local.waitForLeader(30_000);
        await replica(now).kill("SIGKILL");
        await local.waitForLeader(30_000);
        await Promise.all(others.filter((r) => r.exited()).map((r) => r.restart()));
        return null;
      },
      { timeoutMs: 200_000, what: `${away.id} to lead` },
    );
    expect(await firstIndexOf(away)).toBeGreaterThan(index);
    await expectSame(asked);
  }, 300_000);
});
