/**
 * Changes of the membership, rule by rule, with the section that states them: "Raft" is the extended paper, "thesis" is
 * Ongaro's.
 */
import { describe, expect, it } from "vitest";
import type { Configuration, Entry, MembershipChange, ReplicaId } from "../../src/consensus/engine.ts";
import { encodeConfiguration } from "./node.ts";
import { bytesOf, effectsOf, entriesOf, messagesOf, type RaftEffect, single, type Single, THREE } from "./single.ts";

const WITH_LEARNER: Configuration = { ...THREE, learners: ["L"] };

function configure(it: Single, change: MembershipChange, ticket = 1): readonly RaftEffect[] {
  return it.run({ kind: "configure", ticket, change, payload: new Uint8Array(0) });
}

function accept(it: Single, from: ReplicaId, match = it.engine.status().lastIndex): readonly RaftEffect[] {
  return it.receive(from, { kind: "append_accepted", epoch: it.engine.status().epoch, match, voting: true });
}

function reasons(effects: readonly RaftEffect[]): string[] {
  return effectsOf(effects, "rejected").map(({ reason }) => reason);
}

function configEntry(index: number, epoch: number, configuration: Configuration): Entry {
  return { index, epoch, kind: "config", payload: encodeConfiguration(configuration) };
}

function leader(configuration: Configuration = THREE, commit = true): Single {
  const it = single({ configuration });
  it.lead("B", commit);
  return it;
}

describe("what a leader takes", () => {
  it("thesis §4.1: one change at a time, the next only when the last is committed", () => {
    const it = leader();
    expect(effectsOf(configure(it, { kind: "add_learner", id: "L" }), "accepted")).toEqual([
      { kind: "accepted", ticket: 1, index: 2, epoch: 1 },
    ]);
    expect(it.engine.status().configuration).toEqual(WITH_LEARNER);
    expect(reasons(configure(it, { kind: "add_learner", id: "M" }))).toEqual(["change_in_progress"]);
    accept(it, "B");
    expect(reasons(configure(it, { kind: "add_learner", id: "M" }))).toEqual([]);
  });

  it("the 2015 single-server bug: no change before an entry of the own epoch is committed", () => {
    const it = leader(THREE, false);
    expect(reasons(configure(it, { kind: "remove", id: "C" }))).toEqual(["not_ready"]);
    accept(it, "B");
    expect(reasons(configure(it, { kind: "remove", id: "C" }))).toEqual([]);
  });

  it("followers, and leaders that hand over, take none", () => {
    expect(reasons(configure(single(), { kind: "remove", id: "C" }))).toEqual(["not_leader"]);
    const it = leader();
    it.run({ kind: "transfer", to: "C" });
    expect(reasons(configure(it, { kind: "remove", id: "C" }))).toEqual(["transferring"]);
  });

  it.each<MembershipChange>([
    { kind: "add_learner", id: "B" },
    { kind: "add_learner", id: "L" },
    { kind: "promote", id: "B" },
    { kind: "promote", id: "X" },
    { kind: "remove", id: "X" },
    { kind: "replace", id: "X", by: "L" },
    { kind: "replace", id: "C", by: "B" },
  ])("what makes no sense is refused: %o", (change) => {
    expect(reasons(configure(leader(WITH_LEARNER), change))).toEqual(["invalid_change"]);
  });

  it("the last voter stays", () => {
    const it = single({ configuration: { voters: ["A"], votersOutgoing: [], learners: [] } });
    it.tick(10);
    expect(it.engine.status()).toMatchObject({ role: "leader", commit: 1 });
    expect(reasons(configure(it, { kind: "remove", id: "A" }))).toEqual(["invalid_change"]);
  });

  it("a payload that the encoder refuses is refused", () => {
    const encodeConfiguration = (): Uint8Array => {
      throw new Error("no key");
    };
    const it = single({}, { encodeConfiguration });
    it.lead();
    expect(reasons(configure(it, { kind: "add_learner", id: "L" }))).toEqual(["invalid_change"]);
  });

  it("the payload of the change, and the configuration in force, reach the encoder", () => {
    const seen: unknown[] = [];
    const it = single(
      {},
      {
        encodeConfiguration: (next, before, change) => {
          seen.push({ next, before, change: new TextDecoder().decode(change) });
          return encodeConfiguration(next);
        },
      },
    );
    it.lead();
    it.run({ kind: "configure", ticket: 1, change: { kind: "add_learner", id: "L" }, payload: bytesOf("key of L") });
    expect(seen).toEqual([{ next: WITH_LEARNER, before: THREE, change: "key of L" }]);
  });
});

describe("new servers (thesis §4.2.1)", () => {
  it("a learner that lags, or whose acknowledgements do not count, is not promoted", () => {
    const it = single({ configuration: WITH_LEARNER }, { appendEntriesMax: 2 });
    it.lead();
    expect(reasons(configure(it, { kind: "promote", id: "L" }))).toEqual(["not_caught_up"]);
    accept(it, "L");
    for (const text of ["x", "y", "z"]) {
      it.propose(text);
      accept(it, "B");
    }
    expect(reasons(configure(it, { kind: "promote", id: "L" }))).toEqual(["not_caught_up"]);
    expect(reasons(configure(it, { kind: "replace", id: "C", by: "L" }))).toEqual(["not_caught_up"]);
    it.receive("L", { kind: "append_accepted", epoch: 1, match: 3, voting: false });
    expect(reasons(configure(it, { kind: "promote", id: "L" }))).toEqual(["not_caught_up"]);
    accept(it, "L", 3);
    expect(reasons(configure(it, { kind: "promote", id: "L" }))).toEqual([]);
  });

  it("thesis §4.1: a replica follows a leader, and votes for a candidate, that its configuration does not name", () => {
    const it = single();
    it.receive("N", { kind: "heartbeat", epoch: 4, commit: 0, round: 1, applied: null });
    expect(it.engine.status()).toMatchObject({ epoch: 4, leader: "N" });
    it.tick(10);
    const request = { kind: "vote_request", pre: false, transfer: false, lastIndex: 3, lastEpoch: 4 } as const;
    const [reply] = messagesOf(it.receive("N", { ...request, epoch: 9 }), "vote_reply");
    expect(reply?.granted).toBe(true);
  });

  it("what a stranger answers neither counts nor ends an epoch", () => {
    const it = leader();
    it.propose("x");
    expect(accept(it, "N")).toEqual([]);
    it.receive("N", { kind: "stale", epoch: 9 });
    expect(it.engine.status()).toMatchObject({ role: "leader", epoch: 1 });
  });
});

describe("joint consensus (Raft §6, thesis §4.3)", () => {
  const joint: Configuration = { voters: ["A", "B", "L"], votersOutgoing: ["A", "B", "C"], learners: [] };
  const after: Configuration = { voters: ["A", "B", "L"], votersOutgoing: [], learners: [] };

  it("a replacement takes both majorities, then the new configuration follows by itself", () => {
    const it = leader(WITH_LEARNER);
    for (const id of ["C", "L"]) accept(it, id);
    configure(it, { kind: "replace", id: "C", by: "L" });
    expect(it.engine.status().configuration).toEqual(joint);
    accept(it, "L");
    expect(it.engine.status(), "old: A only").toMatchObject({ commit: 1 });
    const effects = accept(it, "C");
    expect(effectsOf(effects, "commit")).toEqual([{ kind: "commit", index: 2 }]);
    expect(effectsOf(effects, "persist")[0]?.put).toEqual([configEntry(3, 1, after)]);
    expect(it.engine.status().configuration).toEqual(after);
    accept(it, "C");
    expect(it.engine.status(), "C is out").toMatchObject({ commit: 2 });
    accept(it, "L");
    expect(it.engine.status(), "L counts").toMatchObject({ commit: 3 });
  });

  it("a new leader ends the joint change that it found, once an entry of its epoch is committed", () => {
    const it = single({
      log: [1, 1],
      configurations: [
        { index: 0, configuration: WITH_LEARNER },
        { index: 2, configuration: joint },
      ],
    });
    it.tick(10);
    for (const pre of [true, false]) {
      for (const from of ["B", "C"]) {
        it.receive(from, { kind: "vote_reply", epoch: pre ? 1 : 2, requestEpoch: 2, pre, granted: true });
      }
    }
    expect(it.engine.status()).toMatchObject({ role: "leader", lastIndex: 3 });
    const effects = accept(it, "B");
    expect(effectsOf(effects, "persist")[0]?.put).toEqual([configEntry(4, 2, after)]);
  });

  it("a configuration that is removed from the log is no longer in force, and does not come back by itself", () => {
    const it = single({ log: [1] });
    const append = { kind: "append", epoch: 1, previousIndex: 1, previousEpoch: 1, commit: 1 } as const;
    it.receive("B", { ...append, entries: [configEntry(2, 1, joint)] });
    expect(it.engine.status().configuration).toEqual(joint);
    it.receive("C", { ...append, epoch: 2, entries: entriesOf([2], 2) });
    expect(it.engine.status().configuration).toEqual(THREE);
  });
});

describe("removed servers", () => {
  it("thesis §4.2.2: a leader that is out leads, without counting itself, until that is committed; then it hands over", () => {
    const it = leader();
    accept(it, "C");
    configure(it, { kind: "remove", id: "A" });
    accept(it, "B");
    expect(it.engine.status(), "the new majority is B and C").toMatchObject({ commit: 1 });
    accept(it, "C");
    const without: Configuration = { voters: ["B", "C"], votersOutgoing: [], learners: [] };
    expect(it.engine.status()).toMatchObject({ role: "leader", commit: 2, lastIndex: 3, configuration: without });
    accept(it, "B");
    expect(it.engine.status(), "A and B would be two of three").toMatchObject({ commit: 2, role: "leader" });
    const effects = accept(it, "C");
    expect(effectsOf(effects, "commit")).toEqual([{ kind: "commit", index: 3 }]);
    expect(messagesOf(effects, "timeout_now")).toHaveLength(1);
    expect(effectsOf(effects, "removed")).toEqual([{ kind: "removed", index: 3 }]);
    expect(it.engine.status()).toMatchObject({ role: "follower", leader: null });
    expect(messagesOf(it.tick(50), "vote_request")).toEqual([]);
  });

  it("thesis §4.2.2: a replica whose removal is not committed still campaigns: its log may be the only one that can win", () => {
    const out: Configuration = { voters: ["B"], votersOutgoing: [], learners: [] };
    const it = single({
      log: [1, 1, 1],
      applied: { index: 2, chain: "c" },
      configurations: [
        { index: 0, configuration: { voters: ["A", "B"], votersOutgoing: [], learners: [] } },
        { index: 2, configuration: { voters: ["B"], votersOutgoing: ["A", "B"], learners: [] } },
        { index: 3, configuration: out },
      ],
    });
    expect(messagesOf(it.tick(10), "vote_request")).toMatchObject([{ pre: true }]);
    expect(it.engine.status().role, "it does not count itself").toBe("pre_candidate");
    it.receive("B", { kind: "vote_reply", epoch: 1, requestEpoch: 2, pre: true, granted: true });
    it.receive("B", { kind: "vote_reply", epoch: 2, requestEpoch: 2, pre: false, granted: true });
    expect(it.engine.status().role).toBe("leader");
    accept(it, "B");
    expect(it.engine.status()).toMatchObject({ role: "follower", commit: 4 });
  });

  it("thesis §4.2.3: one that left gets the log until it knows, and cannot end the epoch", () => {
    const it = leader();
    configure(it, { kind: "remove", id: "C" });
    accept(it, "B");
    expect(effectsOf(accept(it, "B"), "commit")).toMatchObject([{ index: 3 }]);
    accept(it, "C", 1);
    const reply = { kind: "heartbeat_reply", epoch: 1, applied: null, voting: true } as const;
    expect(messagesOf(it.receive("C", { ...reply, round: 1, commit: 1 }), "append").length).toBeGreaterThan(0);
    it.receive("C", { kind: "stale", epoch: 7 });
    expect(it.engine.status()).toMatchObject({ role: "leader", epoch: 1 });
    it.receive("C", { ...reply, round: 1, commit: 3 });
    expect(effectsOf(it.tick(3), "send").filter(({ to }) => to === "C")).toEqual([]);
  });

  it("one that left and is silent is given up after an election timeout", () => {
    const it = leader();
    configure(it, { kind: "remove", id: "C" });
    accept(it, "B");
    accept(it, "B");
    for (let i = 0; i < 25; i += 1) {
      it.tick(1);
      it.receive("B", { kind: "heartbeat_reply", epoch: 1, round: 1, commit: 3, applied: null, voting: true });
    }
    expect(it.engine.status().role).toBe("leader");
    expect(effectsOf(it.tick(3), "send").filter(({ to }) => to === "C")).toEqual([]);
  });

  it("thesis §4.2.3: one that missed its removal is told so when it asks for votes, and keeps quiet", () => {
    const it = leader();
    configure(it, { kind: "remove", id: "C" });
    accept(it, "B");
    accept(it, "B");
    const request = { kind: "vote_request", epoch: 9, pre: true, transfer: false, lastIndex: 1, lastEpoch: 1 } as const;
    const [told] = messagesOf(it.receive("C", request), "removed");
    expect(told).toEqual({ kind: "removed", epoch: 1, committedIndex: 3, committedEpoch: 1 });
    expect(messagesOf(it.receive("B", request), "removed")).toEqual([]);

    const other = single({ id: "C", log: [1], configuration: THREE });
    expect(messagesOf(other.tick(10), "vote_request")).toHaveLength(2);
    if (told === undefined) throw new Error("it was told");
    expect(effectsOf(other.receive("A", told), "removed")).toEqual([{ kind: "removed", index: 3 }]);
    expect(messagesOf(other.tick(50), "vote_request")).toEqual([]);
    expect(other.receive("A", told), "no news").toEqual([]);
    const append = { kind: "append", epoch: 1, previousIndex: 1, previousEpoch: 1, commit: 1 } as const;
    other.receive("A", { ...append, entries: [configEntry(2, 1, THREE)] });
    expect(messagesOf(other.tick(20), "vote_request").length).toBeGreaterThan(0);
  });

  it("one that holds what is committed judges by its own log", () => {
    const it = single({
      id: "C",
      log: [1, 1],
      configurations: [
        { index: 0, configuration: THREE },
        { index: 2, configuration: { voters: ["A", "B"], votersOutgoing: [], learners: [] } },
      ],
    });
    expect(messagesOf(it.tick(10), "vote_request"), "not known to be committed").toHaveLength(2);
    const told = { kind: "removed", epoch: 1, committedIndex: 2, committedEpoch: 1 } as const;
    const effects = it.receive("A", told);
    expect(effectsOf(effects, "commit")).toEqual([{ kind: "commit", index: 2 }]);
    expect(effectsOf(effects, "removed")).toEqual([{ kind: "removed", index: 2 }]);

    const again = single({ id: "C", log: [1, 1] });
    expect(effectsOf(again.receive("A", told), "removed"), "it is a member there").toEqual([]);
    expect(messagesOf(again.tick(10), "vote_request")).toHaveLength(2);
  });
});
