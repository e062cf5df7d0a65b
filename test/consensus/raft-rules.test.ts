/**
 * Rules around the log, with the section that states them: linearizable reads, configurations, replicas that differ.
 */
import { describe, expect, it } from "vitest";
import type { Configuration } from "../../src/consensus/engine.ts";
import { encodeConfiguration } from "./node.ts";
import { effectsOf, entriesOf, messagesOf, single, THREE } from "./single.ts";

describe("reads (thesis §6.4)", () => {
  const reply = { kind: "heartbeat_reply", epoch: 1, commit: 1, applied: null, voting: true } as const;

  it("reads share a round; a reply to an earlier round confirms nothing (etcd 20418)", () => {
    const { lead, run, tick, receive } = single();
    lead();
    tick(1);
    const before = messagesOf(tick(1), "heartbeat")[0]?.round ?? 0;
    const asked = messagesOf(run({ kind: "read", ticket: 1 }), "heartbeat")[0]?.round ?? 0;
    expect(asked).toBe(before + 1);
    expect(messagesOf(run({ kind: "read", ticket: 2 }), "heartbeat")).toEqual([]);
    expect(effectsOf(receive("B", { ...reply, round: before }), "read_ready")).toEqual([]);
    expect(effectsOf(receive("B", { ...reply, round: 99 }), "read_ready")).toEqual([]);
    expect(effectsOf(receive("B", { ...reply, round: asked, voting: false }), "read_ready")).toEqual([]);
    const effects = receive("B", { ...reply, round: asked });
    expect(effectsOf(effects, "read_ready")).toEqual([{ kind: "read_ready", ticket: 1, index: 1 }]);
    const next = messagesOf(effects, "heartbeat")[0]?.round ?? 0;
    expect(next).toBe(asked + 1);
    expect(effectsOf(receive("C", { ...reply, round: next }), "read_ready")).toMatchObject([{ ticket: 2 }]);
  });

  it("a follower refuses and names the leader", () => {
    const { receive, run } = single();
    receive("B", { kind: "heartbeat", epoch: 1, commit: 0, round: 1, applied: null });
    expect(run({ kind: "read", ticket: 1 })).toEqual([
      { kind: "read_failed", ticket: 1, reason: "not_leader", leader: "B" },
    ]);
  });
});

describe("the commit index (Raft §5.3)", () => {
  it("has a message of its own once a tick, and whenever somebody waits; under load the next append tells it", () => {
    const { lead, propose, receive, run, tick } = single();
    const accept = (match: number) => receive("B", { kind: "append_accepted", epoch: 1, match, voting: true });
    const told = (effects: ReturnType<typeof run>) => messagesOf(effects, "heartbeat").map(({ commit }) => commit);
    lead();
    accept(1);
    tick(1);
    propose("x");
    expect(told(accept(2))).toEqual([2, 2]);
    propose("y");
    const second = accept(3);
    expect(effectsOf(second, "commit")).toMatchObject([{ index: 3 }]);
    expect(told(second)).toEqual([]);
    expect(messagesOf(propose("z"), "append")).toMatchObject([{ commit: 3 }]);
    // B knows by that append; C, which has not answered yet, got none.
    expect(told(run({ kind: "tell_commit" }))).toEqual([3]);
    expect(told(run({ kind: "tell_commit" }))).toEqual([]);
    expect(told(accept(4))).toEqual([]);
    expect(told(tick(1))).toEqual([4, 4]);
  });
});

describe("configurations (Raft §6, thesis §4.3)", () => {
  const joint: Configuration = { voters: ["A", "B", "C"], votersOutgoing: ["C", "D", "E"], learners: ["L"] };

  it("a joint configuration needs both halves, and learners never count", () => {
    const { tick, receive, engine } = single({ configuration: joint });
    tick(10);
    const yes = { kind: "vote_reply", epoch: 0, requestEpoch: 1, pre: true, granted: true } as const;
    receive("B", yes);
    receive("L", yes);
    receive("D", yes);
    expect(engine.status().role).toBe("pre_candidate");
    receive("E", yes);
    expect(engine.status().role).toBe("candidate");
  });

  it("a configuration is active when it is appended and goes back when its entry is removed (thesis §4.1)", () => {
    const { receive, engine } = single({ log: [1] });
    const entry = { index: 2, epoch: 1, kind: "config", payload: encodeConfiguration(joint) } as const;
    const append = {
      kind: "append",
      epoch: 1,
      previousIndex: 1,
      previousEpoch: 1,
      commit: 0,
      entries: [entry],
    } as const;
    receive("B", append);
    expect(engine.status().configuration).toEqual(joint);
    receive("C", { ...append, epoch: 2, entries: entriesOf([2], 2) });
    expect(engine.status().configuration).toEqual(THREE);
  });

  it("a replica that is no member listens to everybody and never campaigns", () => {
    const { receive, tick, engine } = single({ id: "N" });
    receive("stranger", { kind: "heartbeat", epoch: 4, commit: 0, round: 1, applied: null });
    expect(engine.status()).toMatchObject({ epoch: 4, leader: "stranger" });
    expect(messagesOf(tick(50), "vote_request")).toEqual([]);
  });
});

describe("replicas that differ", () => {
  const reply = { kind: "heartbeat_reply", epoch: 1, round: 1, commit: 1, voting: true } as const;

  it("the minority is told to halt once a quorum agrees with the leader", () => {
    const { lead, run, receive } = single();
    lead();
    run({ kind: "applied", point: { index: 1, chain: "good" } });
    expect(messagesOf(receive("B", { ...reply, applied: { index: 1, chain: "bad" } }), "halt")).toEqual([]);
    const effects = receive("C", { ...reply, applied: { index: 1, chain: "good" } });
    expect(effectsOf(effects, "halt")).toEqual([]);
    const told = receive("B", { ...reply, applied: { index: 1, chain: "bad" } });
    expect(messagesOf(told, "halt")).toEqual([{ kind: "halt", epoch: 1, point: { index: 1, chain: "good" } }]);
  });

  it("a leader that a quorum contradicts halts itself", () => {
    const { lead, run, receive } = single();
    lead();
    run({ kind: "applied", point: { index: 1, chain: "bad" } });
    receive("B", { ...reply, applied: { index: 1, chain: "good" } });
    const effects = receive("C", { ...reply, applied: { index: 1, chain: "good" } });
    expect(effects.map(({ kind }) => kind)).toEqual(["halt"]);
  });

  it("a follower halts only when it sees the difference itself", () => {
    const { receive } = single({ log: [1], applied: { index: 1, chain: "mine" } });
    const heartbeat = { kind: "heartbeat", epoch: 1, commit: 1, round: 1, applied: { index: 1, chain: "x" } } as const;
    expect(messagesOf(receive("B", heartbeat), "heartbeat_reply")[0]?.applied).toEqual({ index: 1, chain: "mine" });
    const order = { kind: "halt", epoch: 1, point: { index: 1, chain: "mine" } } as const;
    expect(receive("B", order)).toEqual([]);
    expect(receive("C", { ...order, point: { index: 1, chain: "x" } })).toEqual([]);
    expect(receive("B", { ...order, point: { index: 1, chain: "x" } })).toMatchObject([{ kind: "halt" }]);
  });
});
