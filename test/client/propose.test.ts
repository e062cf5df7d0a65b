import { describe, expect, it } from "vitest";
import type { ProposeReply } from "../../src/model/api.ts";
import { commandIdOf, makeCommand, propose } from "../../src/client/propose.ts";
import type { Session } from "../../src/client/session.ts";
import { startResponders } from "./responders.ts";

const ID = "0".repeat(32);
const quick = { timeoutMs: 400 };
const applied = (index: number): ProposeReply => ({ ok: true, index, retry: false, result: { version: 1 } });
const refused = (code: string, leader: string | null, index: number | null = null): ProposeReply => ({
  ok: false,
  error: { code, message: code },
  leader,
  index,
});

function tagMove(session: Session, id = ID) {
  return makeCommand(session, id, "tag.move", { dataset: "mnist", tag: "prod", version: 1 });
}

function group3() {
  const group = startResponders(3);
  const [r1, r2, r3] = group.replicas;
  if (!r1 || !r2 || !r3) throw new Error("three replicas");
  return { group, r1, r2, r3, session: group.session() };
}

describe("propose", () => {
  it("follows not_leader hints to the leader and stays there", async () => {
    const { r1, r2, session } = group3();
    let asked = 0;
    r1.answerPropose = () => (asked++, refused("not_leader", "r2"));
    r2.answerPropose = () => applied(9);
    expect(await propose(session, tagMove(session), quick)).toEqual({ index: 9, retry: false, result: { version: 1 } });
    await propose(session, tagMove(session), quick);
    expect([session.leader(), asked]).toEqual(["r2", 1]);
  });

  it("repeats the same bytes when an answer is lost, so that the retry is the same command", async () => {
    const { group, session } = group3();
    const seen: string[] = [];
    let drop = 2;
    for (const r of group.replicas) {
      r.answerPropose = (_command, bytes) => {
        seen.push(Buffer.from(bytes).toString("hex"));
        return drop-- > 0 ? refused("unavailable", null) : { ...applied(9), retry: true };
      };
    }
    expect(await propose(session, tagMove(session), { timeoutMs: 3_000 })).toMatchObject({ index: 9, retry: true });
    expect(seen.length).toBe(3);
    expect(new Set(seen).size).toBe(1);
  });

  it("throws what the catalog decided, at once and with the command id", async () => {
    const { r1, session } = group3();
    r1.answerPropose = () => refused("tag_moved", "r1", 12);
    await expect(propose(session, tagMove(session), { timeoutMs: 5_000 })).rejects.toMatchObject({
      code: "tag_moved",
      details: { commandId: ID },
    });
    // `page_missing` may be retried by the caller, but not under this id: the recorded answer stays.
    r1.answerPropose = () => refused("page_missing", "r1", 13);
    await expect(propose(session, tagMove(session), { timeoutMs: 5_000 })).rejects.toMatchObject({
      code: "page_missing",
    });
  });

  it("ends an unknown outcome as timeout, no leader as no_quorum, nobody there as unavailable", async () => {
    const { group, session } = group3();
    await expect(propose(session, tagMove(session), quick)).rejects.toMatchObject({
      code: "timeout",
      retryable: true,
      details: { commandId: ID },
    });
    for (const r of group.replicas) r.answerPropose = () => refused("not_leader", null);
    await expect(propose(session, tagMove(session), quick)).rejects.toMatchObject({ code: "no_quorum" });
    for (const r of group.replicas) await r.transport.close();
    await expect(propose(session, tagMove(session), quick)).rejects.toMatchObject({
      code: "unavailable",
      details: { commandId: ID },
    });
  });

  it("stops when the caller aborts", async () => {
    const { session } = group3();
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 30);
    const call = propose(session, tagMove(session), { timeoutMs: 5_000, signal: controller.signal });
    await expect(call).rejects.toMatchObject({ code: "aborted" });
  });

  it("derives equal ids from equal parts only", () => {
    expect(commandIdOf("a", { x: 1, y: 2 })).toBe(commandIdOf("a", { y: 2, x: 1 }));
    expect(commandIdOf("a", "b")).not.toBe(commandIdOf("ab"));
    expect(commandIdOf("a")).toMatch(/^[0-9a-f]{64}$/);
  });
});
