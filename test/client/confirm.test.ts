import { describe, expect, it } from "vitest";
import { confirm } from "../../src/client/confirm.ts";
import { createSeed, publicKeyHex } from "../../src/model/keys.ts";
import type { CatalogQuery } from "../../src/model/api.ts";
import { startResponders, type Responders, type Said } from "./responders.ts";

const QUERY: CatalogQuery = { kind: "datasets", after: "", limit: 10 };
const quick = { timeoutMs: 400 };

function replica(group: Responders, id: string) {
  const found = group.replicas.find((r) => r.id === id);
  if (!found) throw new Error(`no ${id}`);
  return found;
}

const lie = (said: Said): Said => ({ ...said, agreed: { ...said.agreed, chain: "d".repeat(64) } });

async function settled(check: () => boolean): Promise<void> {
  for (let i = 0; i < 50 && !check(); i++) await new Promise((resolve) => setTimeout(resolve, 5));
}

describe("confirm", () => {
  it("returns what a majority said in equal bytes, with who said it", async () => {
    const group = startResponders(3);
    const { answer, confirmation } = await confirm(group.session(), QUERY, quick);
    expect(answer).toEqual({ kind: "rows", rows: [{ name: "mnist" }] });
    expect(confirmation).toMatchObject({ groupId: group.groupId, term: 3, index: 7, chain: group.chain, diverged: [] });
    expect(confirmation.replicas.length).toBeGreaterThanOrEqual(2);
  });

  it("needs two of three: one silent replica is fine, two are no_quorum that names them", async () => {
    const group = startResponders(3);
    replica(group, "r3").down = true;
    await confirm(group.session(), QUERY, quick);
    replica(group, "r2").down = true;
    await expect(confirm(group.session(), QUERY, quick)).rejects.toMatchObject({
      code: "no_quorum",
      retryable: true,
      details: { answered: ["r1"], silent: ["r2", "r3"], needed: 2 },
    });
  });

  it("keeps to its deadline", async () => {
    const group = startResponders(3);
    for (const r of group.replicas) r.down = true;
    const startMs = performance.now();
    await expect(confirm(group.session(), QUERY, { timeoutMs: 300 })).rejects.toMatchObject({ code: "no_quorum" });
    expect(performance.now() - startMs).toBeLessThan(700);
  });

  it("follows the leader hint, and asks with a fresh nonce after silence", async () => {
    const group = startResponders(3);
    const session = group.session();
    group.leader = "r3";
    await confirm(session, QUERY, quick);
    expect(session.leader()).toBe("r3");
    for (const r of group.replicas) r.tamper = () => null;
    setTimeout(() => {
      for (const r of group.replicas) r.tamper = null;
    }, 200);
    await confirm(session, QUERY, { timeoutMs: 4_000 });
    expect(new Set(group.nonces).size).toBe(group.nonces.length);
    expect(group.nonces.length).toBeGreaterThanOrEqual(3);
  });

  it("ignores forged signatures", async () => {
    const group = startResponders(3);
    const stranger = createSeed();
    for (const id of ["r2", "r3"]) replica(group, id).tamper = (said) => ({ ...said, seed: stranger });
    await expect(confirm(group.session(), QUERY, quick)).rejects.toMatchObject({
      code: "no_quorum",
      details: { answered: ["r1"], ignored: { "bad signature": 2 } },
    });
  });

  it("counts a replica once, whatever it repeats and whomever it pretends to be", async () => {
    const group = startResponders(3);
    for (const id of ["r2", "r3"]) {
      // r2 and r3 sign with their own keys, in the name of r1.
      replica(group, id).tamper = (said) => ({ ...said, own: { ...said.own, replica: "r1" } });
    }
    await expect(confirm(group.session(), QUERY, quick)).rejects.toMatchObject({ code: "no_quorum" });
  });

  it("ignores strangers who bring a configuration of their own", async () => {
    const group = startResponders(3);
    const seeds = new Map(group.replicas.map((r) => [r.id, createSeed()]));
    const voters = group.replicas.map((r) => ({ id: r.id, publicKey: publicKeyHex(seeds.get(r.id) ?? "") }));
    for (const r of group.replicas) {
      r.tamper = ({ agreed, own }) => ({ agreed: { ...agreed, voters }, own, seed: seeds.get(r.id) ?? "" });
    }
    await expect(confirm(group.session(), QUERY, quick)).rejects.toMatchObject({ code: "no_quorum" });
  });

  it("ignores answers to another nonce and of another group", async () => {
    const group = startResponders(3);
    replica(group, "r2").tamper = (s) => ({ ...s, agreed: { ...s.agreed, nonce: "0".repeat(32) } });
    replica(group, "r3").tamper = (s) => ({ ...s, agreed: { ...s.agreed, groupId: `b3:${"0".repeat(64)}` } });
    await expect(confirm(group.session(), QUERY, quick)).rejects.toMatchObject({
      code: "no_quorum",
      details: { ignored: { "another nonce": 1, "another group": 1 } },
    });
  });

  it("names a replica that disagrees with the majority, also when it comes late", async () => {
    const group = startResponders(3);
    replica(group, "r1").tamper = lie;
    const first = await confirm(group.session(), QUERY, quick);
    expect(first.confirmation).toMatchObject({ diverged: ["r1"], replicas: ["r2", "r3"] });
    expect(group.notices).toMatchObject([{ code: "replica_diverged", details: { replicas: ["r1"] } }]);

    group.notices.length = 0;
    replica(group, "r1").tamper = null;
    replica(group, "r3").tamper = lie;
    await confirm(group.session(), QUERY, quick);
    await settled(() => group.notices.length > 0);
    expect(group.notices).toMatchObject([{ code: "replica_diverged", details: { replicas: ["r3"] } }]);
  });

  it("listens until all have answered: one that only repeats what a majority said doesn't hide one that disagrees", async () => {
    const group = startResponders(3);
    replica(group, "r3").tamper = lie;
    // r1 answers twice: the second time is no third voter.
    const { publish } = replica(group, "r1").transport;
    replica(group, "r1").transport.publish = (subject, data) => {
      publish(subject, data);
      publish(subject, data);
    };
    const { stragglers } = await confirm(group.session(), QUERY, quick);
    await stragglers.settled;
    expect(stragglers.diverged()).toEqual(["r3"]);
  });

  it("fails as replica_diverged when no majority agrees", async () => {
    const group = startResponders(3);
    replica(group, "r1").tamper = lie;
    replica(group, "r2").tamper = (said) => ({ ...said, agreed: { ...said.agreed, answer: "something else" } });
    await expect(confirm(group.session(), QUERY, quick)).rejects.toMatchObject({ code: "replica_diverged" });
  });

  it("needs both halves of a joint configuration (Raft thesis §4.3)", async () => {
    const group = startResponders(5);
    const [r1, r2, r3, r4, r5] = group.replicas.map((r) => r.member);
    if (!r1 || !r2 || !r3 || !r4 || !r5) throw new Error("five replicas");
    group.voters = [r1, r4, r5];
    group.votersOutgoing = [r1, r2, r3];
    group.configuration = { index: 6, number: 1, digest: `b3:${"1".repeat(64)}` };
    for (const id of ["r4", "r5"]) replica(group, id).down = true;
    // A majority of the genesis voters (3 of 5) and of the outgoing half, but not of the incoming one.
    await expect(confirm(group.session(), QUERY, quick)).rejects.toMatchObject({ code: "no_quorum" });
    replica(group, "r4").down = false;
    const session = group.session();
    await confirm(session, QUERY, quick);
    expect(session.trusted().votersOutgoing.map((m) => m.id)).toEqual(["r1", "r2", "r3"]);
  });

  it("trusts a later configuration once a majority of the known one has signed it", async () => {
    const group = startResponders(5);
    const session = group.session();
    group.voters = group.replicas.slice(0, 3).map((r) => r.member);
    group.configuration = { index: 6, number: 2, digest: `b3:${"2".repeat(64)}` };
    for (const id of ["r4", "r5"]) replica(group, id).down = true;
    await confirm(session, QUERY, quick);
    expect(session.replicas()).toEqual(["r1", "r2", "r3"]);
    replica(group, "r3").down = true;
    await confirm(session, QUERY, quick);
  });

  it("refuses history that goes backwards", async () => {
    const group = startResponders(3);
    const session = group.session();
    await confirm(session, QUERY, quick);
    group.index = 6;
    await expect(confirm(session, QUERY, quick)).rejects.toMatchObject({ code: "group_forked" });
    group.index = 7;
    group.chain = "e".repeat(64);
    await expect(confirm(session, QUERY, quick)).rejects.toMatchObject({ code: "group_forked" });
  });

  it("tells a later revocation that one voter already knows", async () => {
    const group = startResponders(3);
    const laterRevocation = { subject: "mnist@v1", index: 8, timeMs: 1, actor: "eve", reason: "mislabelled" };
    replica(group, "r1").tamper = (said) => ({ ...said, own: { ...said.own, laterRevocation } });
    expect((await confirm(group.session(), QUERY, quick)).laterRevocation).toEqual(laterRevocation);
  });

  it("says unavailable when NATS is gone, and aborts when told to", async () => {
    const group = startResponders(3);
    const session = group.session();
    group.bus.setConnected("client", false);
    await expect(confirm(session, QUERY, quick)).rejects.toMatchObject({ code: "unavailable" });
    group.bus.setConnected("client", true);
    for (const r of group.replicas) r.down = true;
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    const aborted = confirm(session, QUERY, { timeoutMs: 5_000, signal: controller.signal });
    await expect(aborted).rejects.toMatchObject({ code: "aborted" });
  });
});
