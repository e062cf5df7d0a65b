/**
 * Changes of the membership under Multi-Paxos, rule by rule. "PMS" is Lamport, "Paxos Made Simple" (2001); "thesis" is
 * Ongaro's, for what both engines promise to operators.
 */
import { describe, expect, it } from "vitest";
import type { Configuration, Entry, MembershipChange, ReplicaId } from "../../../src/consensus/engine.ts";
import { ordinalsOf } from "../../../src/consensus/paxos/ballot.ts";
import { encodeConfiguration } from "../node.ts";
import { THREE } from "../single.ts";
import { ballot, effectsOf, messagesOf, type PaxosEffect, single, type Single, slotsOf } from "./single.ts";

const ALPHA = 3;
const WITH_LEARNER: Configuration = { ...THREE, learners: ["L"] };
const promised = { kind: "promise", pre: false, granted: true, from: 1, lastIndex: 0, commit: 0, entries: [] } as const;

function configure(it: Single, change: MembershipChange, ticket = 1): readonly PaxosEffect[] {
  return it.run({ kind: "configure", ticket, change, payload: new Uint8Array(0) });
}

/** `from` accepts everything, and what is chosen then is applied here. */
function accept(it: Single, from: ReplicaId, match = it.engine.status().lastIndex): readonly PaxosEffect[] {
  const effects = [...it.receive(from, { kind: "accepted", epoch: it.engine.status().epoch, match, voting: true })];
  return [...effects, ...apply(it)];
}

function apply(it: Single): readonly PaxosEffect[] {
  const { commit } = it.engine.status();
  return it.run({ kind: "applied", point: { index: commit, chain: String(commit) } });
}

function leader(configuration: Configuration = THREE, choose = true): Single {
  const it = single({ configuration }, { alpha: ALPHA });
  it.lead([], choose);
  if (choose) apply(it);
  return it;
}

function reasons(effects: readonly PaxosEffect[]): string[] {
  return effectsOf(effects, "rejected").map(({ reason }) => reason);
}

/** What was put into slots, for example `4 noop`. */
function puts(effects: readonly PaxosEffect[]): string[] {
  return effectsOf(effects, "persist").flatMap(({ put }) => put.map(({ index, kind }) => `${index} ${kind}`));
}

function configEntry(index: number, epoch: number, configuration: Configuration): Entry {
  return { index, epoch, kind: "config", payload: encodeConfiguration(configuration) };
}

function sentTo(effects: readonly PaxosEffect[], to: ReplicaId): PaxosEffect[] {
  return effectsOf(effects, "send").filter((send) => send.to === to);
}

describe("what a leader takes", () => {
  it("a change waits until every slot before it is chosen, and proposals that come then wait behind it", () => {
    const it = leader();
    it.propose("x");
    expect(puts(configure(it, { kind: "add_learner", id: "L" }))).toEqual([]);
    expect(effectsOf(it.propose("y"), "accepted")).toEqual([]);
    const effects = accept(it, "B");
    expect(puts(effects)).toEqual(["3 config", "4 command"]);
    expect(effectsOf(effects, "accepted").map(({ ticket, index }) => [ticket, index])).toEqual([
      [1, 3],
      [0, 4],
    ]);
  });

  it("one at a time: the next only when the last is in force", () => {
    const it = leader();
    it.propose("x");
    configure(it, { kind: "add_learner", id: "L" });
    expect(reasons(configure(it, { kind: "add_learner", id: "M" }, 2)), "it waits").toEqual(["change_in_progress"]);
    accept(it, "B");
    expect(reasons(configure(it, { kind: "add_learner", id: "M" }, 2)), "not chosen").toEqual(["change_in_progress"]);
    accept(it, "B");
    expect(reasons(configure(it, { kind: "add_learner", id: "M" }, 2)), "chosen").toEqual(["change_in_progress"]);
    accept(it, "B");
    expect(reasons(configure(it, { kind: "add_learner", id: "M" }, 2)), "α − 1 later").toEqual(["change_in_progress"]);
    accept(it, "B");
    expect(reasons(configure(it, { kind: "add_learner", id: "M" }, 2))).toEqual([]);
  });

  it("none before what phase 1 found is chosen, none from followers, none while the lead moves", () => {
    const it = leader(THREE, false);
    expect(reasons(configure(it, { kind: "remove", id: "C" }))).toEqual(["not_ready"]);
    expect(reasons(configure(single(), { kind: "remove", id: "C" }))).toEqual(["not_leader"]);
    accept(it, "B");
    it.run({ kind: "transfer", to: "C" });
    expect(reasons(configure(it, { kind: "remove", id: "C" }))).toEqual(["transferring"]);
  });

  it("what waits is refused when the lead moves or is lost", () => {
    const moving = leader();
    moving.propose("x");
    configure(moving, { kind: "add_learner", id: "L" }, 7);
    expect(effectsOf(moving.run({ kind: "transfer", to: "C" }), "rejected")).toMatchObject([
      { ticket: 7, reason: "transferring" },
    ]);
    const it = leader();
    it.propose("x");
    configure(it, { kind: "add_learner", id: "L" }, 7);
    const lost = it.receive("B", { kind: "refused", epoch: ballot(9, "C") });
    expect(effectsOf(lost, "rejected")).toMatchObject([{ ticket: 7, reason: "not_leader" }]);
  });

  it.each<MembershipChange>([
    { kind: "add_learner", id: "B" },
    { kind: "promote", id: "B" },
    { kind: "promote", id: "X" },
    { kind: "remove", id: "X" },
    { kind: "replace", id: "X", by: "L" },
    { kind: "replace", id: "C", by: "B" },
  ])("what makes no sense is refused: %o", (change) => {
    expect(reasons(configure(leader(WITH_LEARNER), change))).toEqual(["invalid_change"]);
  });

  it("a payload that the encoder refuses is refused; one that reads otherwise than it was written ends the engine", () => {
    const encoding = (encode: (next: Configuration) => Uint8Array): Single => {
      const it = single({}, { encodeConfiguration: encode });
      it.lead();
      return it;
    };
    const refusing = encoding(() => {
      throw new Error("no key");
    });
    expect(reasons(configure(refusing, { kind: "add_learner", id: "L" }))).toEqual(["invalid_change"]);
    const forgetting = encoding(({ voters, learners }) =>
      encodeConfiguration({ voters, votersOutgoing: [], learners }),
    );
    expect(() => configure(forgetting, { kind: "add_learner", id: "L" })).toThrow("reads as it was written");
  });

  it("the last voter stays, and a group that was given joint voters keeps them", () => {
    const one = single({ configuration: { voters: ["A"], votersOutgoing: [], learners: [] } });
    one.tick(10);
    expect(one.engine.status()).toMatchObject({ role: "leader", commit: 1 });
    expect(reasons(configure(one, { kind: "remove", id: "A" }))).toEqual(["invalid_change"]);
    const joint = leader({ ...THREE, votersOutgoing: ["A", "B"] });
    expect(reasons(configure(joint, { kind: "remove", id: "C" }))).toEqual(["invalid_change"]);
  });

  it("a learner that lags, or whose acceptances do not count, is not promoted (thesis §4.2.1)", () => {
    const it = single({ configuration: WITH_LEARNER }, { appendEntriesMax: 2 });
    it.lead();
    const promote = { kind: "promote", id: "L" } as const;
    expect(reasons(configure(it, promote))).toEqual(["not_caught_up"]);
    accept(it, "L");
    for (const text of ["x", "y", "z"]) {
      it.propose(text);
      accept(it, "B");
    }
    expect(reasons(configure(it, promote))).toEqual(["not_caught_up"]);
    it.receive("L", { kind: "accepted", epoch: it.engine.status().epoch, match: 3, voting: false });
    expect(reasons(configure(it, promote))).toEqual(["not_caught_up"]);
    accept(it, "L", 3);
    expect(reasons(configure(it, promote))).toEqual([]);
  });
});

describe("from slot i to slot i + α (PMS §3)", () => {
  it("an idle leader fills the slots between with no-ops; the first slot of the new voters waits for all before it", () => {
    const it = leader();
    expect(puts(configure(it, { kind: "remove", id: "C" }))).toEqual(["2 config"]);
    expect(puts(accept(it, "B"))).toEqual(["3 noop", "4 noop"]);
    expect(it.engine.status().configuration, "slot 5 is the first that A and B decide").toEqual(THREE);
    expect(puts(accept(it, "B", 3))).toEqual([]);
    expect(puts(accept(it, "B", 4))).toEqual(["5 noop"]);
    expect(it.engine.status().configuration).toEqual(THREE);
    accept(it, "C");
    expect(it.engine.status(), "C does not decide it").toMatchObject({ commit: 4, configuration: THREE });
    accept(it, "B");
    expect(it.engine.status().configuration).toMatchObject({ voters: ["A", "B"], votersOutgoing: [] });
  });

  it("commands take the place of no-ops, and wait at the border too", () => {
    const it = leader();
    configure(it, { kind: "remove", id: "C" });
    expect(effectsOf(it.propose("a", "b", "c"), "accepted").map(({ index }) => index)).toEqual([3, 4]);
    expect(puts(accept(it, "B", 3))).toEqual([]);
    expect(puts(accept(it, "B", 4))).toEqual(["5 command"]);
  });

  it("a new leader goes on where it finds an open change", () => {
    const log = [...slotsOf([ballot(1, "B")]), configEntry(2, ballot(1, "B"), { ...THREE, learners: ["L"] })];
    const configurations = [
      { index: 0, configuration: THREE },
      { index: 2, configuration: WITH_LEARNER },
    ];
    const it = single({ log, configurations }, { alpha: ALPHA });
    it.lead(log, false);
    expect(puts(accept(it, "B")), "nothing is applied yet: α slots and no more").toEqual(["3 noop"]);
    expect(puts(accept(it, "B"))).toEqual(["4 noop"]);
  });

  it("a campaign needs the promise of a quorum of every configuration that it finds, and asks who it did not know", () => {
    const it = single({}, { alpha: ALPHA });
    const { ballot: epoch } = it.prepare();
    const next: Configuration = { voters: ["A", "L", "M"], votersOutgoing: [], learners: [] };
    const told = [...slotsOf([ballot(1, "B")]), configEntry(2, ballot(1, "B"), next)];
    it.receive("B", { ...promised, epoch, asked: epoch, lastIndex: 2, entries: told });
    expect(it.engine.status().role).toBe("candidate");
    expect(messagesOf(sentTo(it.tick(1), "L"), "prepare")).toMatchObject([{ epoch, from: 5 }]);
    it.receive("X", { ...promised, epoch, asked: epoch });
    expect(it.engine.status().role, "a stranger's promise").toBe("candidate");
    it.receive("L", { ...promised, epoch, asked: epoch, from: 5 });
    expect(it.engine.status().role).toBe("leader");
  });

  it("a log that reaches i + α proves that all before is chosen: the voters before are not asked any more", () => {
    const b = ballot(1, "B");
    const next: Configuration = { voters: ["A", "L", "M"], votersOutgoing: [], learners: [] };
    const configurations = [
      { index: 0, configuration: THREE },
      { index: 2, configuration: next },
    ];
    const log = [...slotsOf([b]), configEntry(2, b, next), ...slotsOf([b, b, b], 3)];
    const it = single({ log, configurations }, { alpha: ALPHA });
    const effects = it.tick(10);
    expect(effectsOf(effects, "commit")).toEqual([{ kind: "commit", index: 4 }]);
    expect(effectsOf(effects, "send").map(({ to }) => to)).toEqual(["L", "M"]);
    const shorter = single({ log: log.slice(0, 4), configurations }, { alpha: ALPHA }).tick(10);
    expect(effectsOf(shorter, "commit")).toEqual([]);
    expect(effectsOf(shorter, "send").map(({ to }) => to)).toEqual(["B", "C", "L", "M"]);
  });

  it("a voter is asked from the first slot that it decides: what is below may be compacted there", () => {
    const b = ballot(1, "A");
    const next: Configuration = { voters: ["A", "L"], votersOutgoing: [], learners: [] };
    const configurations = [
      { index: 0, configuration: { voters: ["A"], votersOutgoing: [], learners: ["L"] } },
      { index: 2, configuration: next },
    ];
    const it = single({ log: [...slotsOf([b]), configEntry(2, b, next)], configurations }, { alpha: ALPHA });
    expect(messagesOf(it.tick(10), "prepare")).toMatchObject([{ pre: true, from: 5 }]);
    const would = { ...promised, epoch: b, asked: ballot(2), pre: true, from: 5, lastIndex: 1, commit: 1 } as const;
    it.receive("L", would);
    expect(messagesOf(it.tick(1), "prepare")).toMatchObject([{ pre: false, from: 5 }]);
    it.receive("L", { ...would, epoch: ballot(2), pre: false });
    expect(it.engine.status()).toMatchObject({ role: "leader", epoch: ballot(2) });
  });

  it("a configuration that is overwritten is forgotten", () => {
    const it = single({ log: slotsOf([ballot(1, "B")]) }, { alpha: ALPHA });
    const out = { voters: ["B"], votersOutgoing: [], learners: [] };
    const entry = configEntry(2, ballot(1, "B"), out);
    it.receive("B", { kind: "accept", epoch: ballot(1, "B"), previousIndex: 1, commit: 1, entries: [entry] });
    it.receive("C", {
      kind: "accept",
      epoch: ballot(2, "C"),
      previousIndex: 1,
      commit: 1,
      entries: slotsOf(
        Array.from({ length: 6 }, () => ballot(2, "C")),
        2,
      ),
    });
    it.receive("C", { kind: "heartbeat", epoch: ballot(2, "C"), commit: 7, round: 1, applied: null });
    expect(it.engine.status()).toMatchObject({ commit: 7, configuration: THREE });
  });

  it("compaction keeps the configuration that decides the next slots, though a later one is below", () => {
    const it = leader();
    configure(it, { kind: "remove", id: "C" });
    accept(it, "B");
    accept(it, "B", 3);
    it.run({ kind: "compacted", index: 3, epoch: ballot(1) });
    expect(it.engine.status().configuration).toEqual(THREE);
    accept(it, "B");
    accept(it, "B");
    expect(it.engine.status()).toMatchObject({ commit: 5, configuration: { voters: ["A", "B"] } });
  });
});

describe("ordinals", () => {
  it("who joins gets a number of its own, also when its id was there before", () => {
    const it = leader();
    const change = (asked: MembershipChange): void => {
      configure(it, asked);
      for (let i = 0; i < 4; i += 1) accept(it, "B");
    };
    change({ kind: "remove", id: "C" });
    change({ kind: "add_learner", id: "C" });
    expect(ordinalsOf(it.engine.status().configuration)).toEqual({ of: { A: 1, B: 2, C: 4 }, last: 4 });
  });

  it("a configuration that is not chosen says nothing of who speaks", () => {
    const it = single({ log: slotsOf([ballot(1, "B")]) }, { alpha: ALPHA });
    const wrong = { ...THREE, learners: ["E"], ordinals: { of: { A: 1, B: 2, C: 3, E: 4 }, last: 4 } };
    const entries = [configEntry(2, ballot(1, "B"), wrong)];
    it.receive("B", { kind: "accept", epoch: ballot(1, "B"), previousIndex: 1, commit: 1, entries });
    it.receive("D", { kind: "heartbeat", epoch: ballot(2, "D"), commit: 1, round: 1, applied: null });
    expect(it.engine.status()).toMatchObject({ leader: "D", epoch: ballot(2, "D") });
  });
});

describe("removed replicas", () => {
  /** Until the change of slot 2 is in force: slots 3 and 4, then 5. */
  function complete(it: Single, ...by: readonly ReplicaId[]): readonly PaxosEffect[] {
    return [2, 4, 5].flatMap((match) => by.flatMap((id) => accept(it, id, match)));
  }

  it("a leader that is out leads, and does not count itself, until the new voters chose a slot; then it hands over", () => {
    const it = leader();
    accept(it, "C");
    configure(it, { kind: "remove", id: "A" });
    for (const match of [2, 4]) accept(it, "B", match);
    it.receive("C", { kind: "accepted", epoch: it.engine.status().epoch, match: 4, voting: true });
    accept(it, "B", 5);
    expect(it.engine.status(), "A and B would be two of three").toMatchObject({ role: "leader", commit: 4 });
    const effects = accept(it, "C", 5);
    expect(effectsOf(effects, "commit")).toEqual([{ kind: "commit", index: 5 }]);
    expect(messagesOf(effects, "hand_over")).toHaveLength(1);
    expect(effectsOf(effects, "removed")).toEqual([{ kind: "removed", index: 2 }]);
    expect(it.engine.status()).toMatchObject({ role: "follower", leader: null });
    expect(messagesOf(it.tick(50), "prepare")).toEqual([]);
  });

  it("one whose removal is not in force campaigns: it may be the only one that knows what is chosen (thesis §4.2.2)", () => {
    const b = ballot(1, "A");
    const out: Configuration = { voters: ["B"], votersOutgoing: [], learners: [] };
    const log = [...slotsOf([b]), configEntry(2, b, out), ...slotsOf([b, b, b], 3)];
    const it = single(
      {
        log,
        configurations: [
          { index: 0, configuration: { voters: ["A"], votersOutgoing: [], learners: ["B"] } },
          { index: 2, configuration: out },
        ],
      },
      { alpha: ALPHA },
    );
    const { ballot: epoch } = it.prepare();
    it.receive("B", { ...promised, epoch, asked: epoch, from: 5, lastIndex: 1, commit: 1 });
    expect(it.engine.status()).toMatchObject({ role: "leader", commit: 4 });
    expect(effectsOf(accept(it, "B"), "removed")).toEqual([{ kind: "removed", index: 2 }]);
  });

  it("one that left gets the log until it knows, and cannot end the ballot (thesis §4.2.3)", () => {
    const it = leader();
    accept(it, "C");
    configure(it, { kind: "remove", id: "C" });
    complete(it, "B");
    const { epoch } = it.engine.status();
    const reply = { kind: "heartbeat_reply", epoch, round: 1, applied: null, voting: true } as const;
    expect(sentTo(it.receive("C", { ...reply, commit: 1 }), "C").length).toBeGreaterThan(0);
    expect(messagesOf(it.receive("C", { kind: "refused", epoch: ballot(9, "C") }), "removed")).toMatchObject([
      { index: 5 },
    ]);
    expect(it.engine.status()).toMatchObject({ role: "leader", epoch });
    it.receive("C", { ...reply, commit: 5 });
    expect(sentTo(it.tick(3), "C")).toEqual([]);
  });

  it("one that left and is silent is given up after an election timeout", () => {
    const it = leader();
    configure(it, { kind: "remove", id: "C" });
    complete(it, "B");
    const { epoch } = it.engine.status();
    for (let i = 0; i < 25; i += 1) {
      it.tick(1);
      it.receive("B", { kind: "heartbeat_reply", epoch, round: 1, commit: 5, applied: null, voting: true });
    }
    expect(it.engine.status().role).toBe("leader");
    expect(sentTo(it.tick(3), "C")).toEqual([]);
  });

  it("one that missed its removal is told so when it asks, and keeps quiet until a leader has it again", () => {
    const it = leader();
    configure(it, { kind: "remove", id: "C" });
    complete(it, "B");
    const ask = { kind: "prepare", pre: true, handOver: false, from: 2, lastIndex: 1 } as const;
    const [told] = messagesOf(it.receive("C", { ...ask, epoch: ballot(9, "C") }), "removed");
    expect(told).toEqual({ kind: "removed", epoch: it.engine.status().epoch, index: 5 });
    expect(messagesOf(it.receive("B", { ...ask, epoch: ballot(9, "B") }), "removed")).toEqual([]);

    const other = single({ id: "C", log: slotsOf([ballot(1)]) }, { alpha: ALPHA });
    expect(messagesOf(other.tick(10), "prepare")).toHaveLength(2);
    if (told === undefined) throw new Error("it was told");
    expect(effectsOf(other.receive("A", told), "removed")).toEqual([{ kind: "removed", index: 5 }]);
    expect(messagesOf(other.tick(50), "prepare")).toEqual([]);
    expect(other.receive("A", told), "no news").toEqual([]);
    const entries = [configEntry(2, ballot(1), THREE)];
    other.receive("A", { kind: "accept", epoch: ballot(1), previousIndex: 1, commit: 1, entries });
    expect(messagesOf(other.tick(20), "prepare").length).toBeGreaterThan(0);
  });

  it("one that was sent a later configuration with itself knows better", () => {
    const log = [...slotsOf(Array.from({ length: 6 }, () => ballot(1))), configEntry(7, ballot(1), THREE)];
    const configurations = [
      { index: 0, configuration: THREE },
      { index: 7, configuration: THREE },
    ];
    const it = single({ id: "C", log, configurations }, { alpha: ALPHA });
    expect(it.receive("A", { kind: "removed", epoch: ballot(1), index: 5 })).toEqual([]);
    expect(messagesOf(it.tick(10), "prepare")).toHaveLength(2);
  });

  it("who asks need not be known: a lagging replica follows, and promises to, members that it does not know yet", () => {
    const it = single();
    it.receive("N", { kind: "heartbeat", epoch: ballot(4, "E"), commit: 0, round: 1, applied: null });
    expect(it.engine.status()).toMatchObject({ epoch: ballot(4, "E"), leader: "N" });
    it.tick(10);
    const ask = { kind: "prepare", pre: false, handOver: false, from: 1, lastIndex: 3 } as const;
    const [reply] = messagesOf(it.receive("N", { ...ask, epoch: ballot(9, "E") }), "promise");
    expect(reply?.granted).toBe(true);
  });

  it("what a stranger answers neither counts nor ends a ballot", () => {
    const it = leader();
    it.propose("x");
    expect(effectsOf(accept(it, "N"), "commit")).toEqual([]);
    it.receive("N", { kind: "refused", epoch: ballot(9, "E") });
    expect(it.engine.status()).toMatchObject({ role: "leader", epoch: ballot(1) });
  });
});
