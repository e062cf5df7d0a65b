/**
 * Multi-Paxos rule by rule. "PMS" is Lamport, "Paxos Made Simple" (2001); "HM" is Howard and Mortier, "Paxos vs Raft"
 * (2020); "PML" is Chandra et al., "Paxos Made Live" (2007).
 */
import { describe, expect, it } from "vitest";
import { proposerOf, proposersOf, roundOf, withOrdinals } from "../../../src/consensus/paxos/ballot.ts";
import { bytesOf, THREE } from "../single.ts";
import { ballot, effectsOf, messagesOf, single, slot, slotsOf } from "./single.ts";

const b1 = ballot(1, "B");
const promised = { kind: "promise", pre: false, granted: true, commit: 0, entries: [] } as const;

describe("ballots (PMS §2.2: no two proposers share a number)", () => {
  it("are drawn above every ballot seen, from the proposer's own set", () => {
    const { lead, engine } = single({ hardState: { epoch: ballot(6, "C"), votedFor: "C" } });
    lead();
    expect(engine.status().epoch).toBe(ballot(7, "A"));
    expect(roundOf(engine.status().epoch)).toBe(7);
  });

  it("name their proposer, also when a later configuration drops members and adds others", () => {
    const later = withOrdinals({ voters: ["C"], votersOutgoing: [], learners: ["D"] }, THREE);
    expect(later?.ordinals).toEqual({ of: { C: 3, D: 4 }, last: 4 });
    const proposers = proposersOf([
      { index: 0, configuration: THREE },
      { index: 5, configuration: later ?? THREE },
    ]);
    const drawn = [ballot(3, "B"), ballot(9, "D"), 0, 3 * 2 ** 16 + 9];
    expect(drawn.map((epoch) => proposerOf(proposers, epoch))).toEqual(["B", "D", null, null]);
  });

  it("an id that comes back draws from another set: what it proposed before may be forgotten", () => {
    const without = withOrdinals({ voters: ["A", "B"], votersOutgoing: [], learners: [] }, THREE) ?? THREE;
    const again = withOrdinals({ ...without, learners: ["C", "constructor"] }, without);
    expect(again?.ordinals).toEqual({ of: { A: 1, B: 2, C: 4, constructor: 5 }, last: 5 });
    const full = { ...THREE, ordinals: { of: { A: 1, B: 2, C: 3 }, last: 2 ** 16 - 1 } };
    expect(withOrdinals({ ...THREE, learners: ["D"] }, full)).toBeNull();
  });

  it("that are not the sender's own are ignored", () => {
    const { receive, engine } = single();
    expect(receive("C", { kind: "prepare", epoch: b1, pre: false, handOver: false, from: 1, lastIndex: 0 })).toEqual(
      [],
    );
    expect(receive("C", { kind: "accept", epoch: b1, previousIndex: 0, commit: 0, entries: [] })).toEqual([]);
    expect(engine.status().epoch).toBe(0);
  });
});

describe("what is chosen", () => {
  it("has a message of its own once a tick, and whenever somebody waits; under load the next accept tells it", () => {
    const { lead, propose, receive, run, tick } = single();
    const epoch = ballot(1, "A");
    const accepted = (match: number) => receive("B", { kind: "accepted", epoch, match, voting: true });
    const told = (effects: ReturnType<typeof run>) => messagesOf(effects, "heartbeat").map(({ commit }) => commit);
    lead();
    accepted(1);
    tick(1);
    propose("x");
    expect(told(accepted(2))).toEqual([2, 2]);
    propose("y");
    const second = accepted(3);
    expect(effectsOf(second, "commit")).toMatchObject([{ index: 3 }]);
    expect(told(second)).toEqual([]);
    expect(messagesOf(propose("z"), "accept")).toMatchObject([{ commit: 3 }]);
    // B knows by that accept; C, which has not answered yet, got none.
    expect(told(run({ kind: "tell_commit" }))).toEqual([3]);
    expect(told(run({ kind: "tell_commit" }))).toEqual([]);
    expect(told(accepted(4))).toEqual([]);
    expect(told(tick(1))).toEqual([4, 4]);
  });
});

describe("an acceptor in phase 1 (PMS §2.2, 1b)", () => {
  const ask = { kind: "prepare", epoch: ballot(2, "B"), pre: false, handOver: false, from: 1, lastIndex: 0 } as const;

  it("promises a higher ballot, durably first, and tells what it accepted with its ballots", () => {
    const { step } = single({
      log: slotsOf([b1, ballot(1, "C")]),
      hardState: { epoch: ballot(1, "C"), votedFor: "C" },
    });
    const asked = step({ kind: "message", from: "B", message: ask });
    const [write] = effectsOf(asked, "persist");
    expect(write).toMatchObject({ hardState: { epoch: ask.epoch, votedFor: "B" }, put: [], removeFrom: null });
    const [load] = effectsOf(asked, "load");
    const entries = slotsOf([b1, ballot(1, "C")]);
    const told = step({ kind: "loaded", token: load?.token ?? 0, entries });
    expect(effectsOf(told, "send")).toMatchObject([
      { to: "B", afterToken: write?.token, message: { granted: true, from: 1, lastIndex: 2, entries } },
    ]);
  });

  it("refuses a lower ballot and names the promised one (PMS §2.5)", () => {
    const { receive } = single({ hardState: { epoch: ballot(3, "C"), votedFor: "C" } });
    const refusal = { granted: false, epoch: ballot(3, "C"), asked: ask.epoch };
    expect(messagesOf(receive("B", ask), "promise")).toMatchObject([refusal]);
    const accept = { kind: "accept", epoch: b1, previousIndex: 0, commit: 0, entries: slotsOf([b1]) } as const;
    expect(messagesOf(receive("B", accept), "refused")).toEqual([{ kind: "refused", epoch: ballot(3, "C") }]);
  });

  it("tells a long suffix part by part, from where it is asked", () => {
    const log = slotsOf(Array.from({ length: 7 }, () => b1));
    const { receive } = single({ log }, { appendEntriesMax: 3 });
    const parts = [1, 4, 7, 8].map((from) => messagesOf(receive("B", { ...ask, from }), "promise")[0]);
    expect(parts.map((part) => part?.entries.map(({ index }) => index))).toEqual([[1, 2, 3], [4, 5, 6], [7], []]);
    expect(parts.every((part) => part?.lastIndex === 7)).toBe(true);
  });

  it("tells what a late write holds only after that write", () => {
    const { step } = single();
    const accept = { kind: "accept", epoch: b1, previousIndex: 0, commit: 0, entries: slotsOf([b1]) } as const;
    step({ kind: "message", from: "B", message: accept });
    for (let i = 0; i < 10; i += 1) step({ kind: "tick" });
    const [reply] = effectsOf(step({ kind: "message", from: "B", message: ask }), "send");
    expect(reply).toMatchObject({ afterToken: 2, message: { entries: slotsOf([b1]) } });
  });

  it("stands by a leader that it hears (no disturbing), unless that leader hands over", () => {
    const { receive } = single();
    receive("C", { kind: "heartbeat", epoch: ballot(1, "C"), commit: 0, round: 1, applied: null });
    expect(receive("B", ask)).toEqual([]);
    expect(receive("B", { ...ask, pre: true })).toEqual([]);
    expect(messagesOf(receive("B", { ...ask, handOver: true }), "promise")).toMatchObject([{ granted: true }]);
  });

  it("does not help one to lead that lacks more than a pipeline's worth; prepare itself is never refused for that", () => {
    const { receive } = single({ log: slotsOf(Array.from({ length: 9 }, () => b1)) }, { alpha: 4 });
    const would = (lastIndex: number): unknown =>
      messagesOf(receive("B", { ...ask, pre: true, lastIndex }), "promise")[0]?.granted;
    expect([would(4), would(5)]).toEqual([false, true]);
    expect(messagesOf(receive("B", { ...ask, lastIndex: 0 }), "promise")).toMatchObject([{ granted: true }]);
  });

  it("promises nothing when it does not vote", () => {
    const { receive } = single({ voting: false });
    expect(messagesOf(receive("B", ask), "promise")).toMatchObject([{ granted: false }]);
    expect(messagesOf(receive("B", { ...ask, pre: true, epoch: ballot(3, "B") }), "promise")).toMatchObject([
      { granted: false },
    ]);
  });
});

describe("a proposer in phase 1 (PMS §2.2 and §3)", () => {
  it("proposes again, in its own ballot, the value of the highest ballot of each slot", () => {
    const log = [slot(1, ballot(1, "A"), "mine"), slot(2, ballot(3, "C"), "newer")];
    const { lead } = single({ log });
    const effects = lead([slot(1, ballot(2, "B"), "theirs"), slot(2, b1, "older"), slot(3, b1, "alone")], false);
    const put = effectsOf(effects, "persist").at(-1)?.put;
    expect(put?.map(({ epoch }) => epoch)).toEqual([ballot(4), ballot(4), ballot(4)]);
    expect(put?.map(({ payload }) => payload)).toEqual(["theirs", "newer", "alone"].map(bytesOf));
    expect(messagesOf(effects, "accept")[0]).toMatchObject({ previousIndex: 0, entries: put });
  });

  it("needs a quorum of promises that reached their end; a part of one is none", () => {
    const { prepare, receive, engine } = single();
    const { ballot: epoch } = prepare();
    const part = { ...promised, epoch, asked: epoch, from: 1, lastIndex: 2, entries: slotsOf([b1]) };
    const more = receive("B", part);
    expect(messagesOf(more, "prepare")).toMatchObject([{ from: 2, epoch }]);
    expect(engine.status().role).toBe("candidate");
    expect(receive("B", part), "a second copy says nothing new").toEqual([]);
    receive("B", { ...part, from: 2, entries: slotsOf([b1], 2) });
    expect(engine.status()).toMatchObject({ role: "leader", lastIndex: 2 });
  });

  it("counts its own promise only when it is durable, and asks nobody before", () => {
    const { step, engine } = single();
    for (let i = 0; i < 10; i += 1) step({ kind: "tick" });
    const asked = ballot(1);
    const would = { ...promised, epoch: 0, asked, pre: true, from: 1, lastIndex: 0 };
    const effects = step({ kind: "message", from: "B", message: would });
    expect(effectsOf(effects, "send").map(({ afterToken }) => afterToken)).toEqual([1, 1]);
    step({ kind: "message", from: "B", message: { ...promised, epoch: asked, asked, from: 1, lastIndex: 0 } });
    expect(engine.status().role).toBe("candidate");
    step({ kind: "persisted", token: 1 });
    expect(engine.status().role).toBe("leader");
  });

  it("asks again for what may be lost, and only for that", () => {
    const { prepare, receive, tick } = single({ configuration: { ...THREE, voters: ["A", "B", "C", "D", "E"] } });
    const { ballot: epoch, effects: first } = prepare();
    expect(messagesOf(first, "prepare").filter(({ pre }) => !pre)).toEqual([]);
    const would = { ...promised, epoch: 0, asked: epoch, pre: true, from: 1, lastIndex: 0 };
    expect(messagesOf(receive("C", would), "prepare")).toHaveLength(4);
    receive("B", { ...promised, epoch, asked: epoch, from: 1, lastIndex: 0 });
    expect(effectsOf(tick(1), "send").map(({ to }) => to)).toEqual(["C", "D", "E"]);
  });

  it("gives way to a higher ballot, and draws above it the next time", () => {
    const { prepare, receive, engine, tick } = single();
    prepare();
    receive("C", { ...promised, granted: false, epoch: ballot(5, "C"), asked: ballot(1), from: 1, lastIndex: 0 });
    expect(engine.status()).toMatchObject({ role: "follower", epoch: ballot(5, "C") });
    expect(messagesOf(tick(10), "prepare")[0]).toMatchObject({ pre: true, epoch: ballot(6) });
  });

  it("the first leader of an empty log proposes the group's first entry", () => {
    const { lead } = single();
    expect(effectsOf(lead(), "persist").at(-1)?.put).toMatchObject([{ index: 1, epoch: ballot(1), kind: "config" }]);
  });

  it("what an acceptor knows to be chosen is chosen: a leader that lagged catches up first", () => {
    const { prepare, receive, engine } = single();
    const { ballot: epoch } = prepare();
    const entries = slotsOf([b1, b1, b1]);
    const effects = receive("B", { ...promised, epoch, asked: epoch, from: 1, lastIndex: 3, commit: 2, entries });
    expect(effectsOf(effects, "commit")).toEqual([{ kind: "commit", index: 2 }]);
    expect(engine.status()).toMatchObject({ role: "leader", commit: 2, lastIndex: 3, committedInEpoch: false });
  });
});

describe("an acceptor in phase 2 (PMS §2.2, 2b; HM §3)", () => {
  const accept = { kind: "accept", epoch: b1, previousIndex: 0, commit: 0, entries: slotsOf([b1, b1]) } as const;

  it("accepts in the promised ballot or a higher one, durably first", () => {
    const { step } = single();
    const effects = step({ kind: "message", from: "B", message: accept });
    expect(effectsOf(effects, "persist")).toMatchObject([{ hardState: { epoch: b1 }, put: accept.entries }]);
    expect(effectsOf(effects, "send")).toMatchObject([{ afterToken: 1, message: { kind: "accepted", match: 2 } }]);
  });

  it("overwrites a slot in place and keeps what it accepted above: it still has to be told", () => {
    const log = slotsOf([b1, b1, b1, b1]);
    const { receive, engine } = single({ log });
    const epoch = ballot(2, "C");
    const effects = receive("C", { ...accept, epoch, entries: slotsOf([epoch, epoch]) });
    expect(effectsOf(effects, "persist")).toMatchObject([{ removeFrom: null, put: slotsOf([epoch, epoch]) }]);
    expect(messagesOf(effects, "accepted")).toMatchObject([{ match: 2 }]);
    expect(engine.status().lastIndex).toBe(4);
    const ask = { kind: "prepare", epoch: ballot(3, "B"), pre: false, handOver: true, from: 1, lastIndex: 0 } as const;
    expect(messagesOf(receive("B", ask), "promise")[0]?.entries.map((entry) => entry.epoch)).toEqual([epoch, epoch]);
    expect(messagesOf(receive("B", { ...ask, from: 3 }), "promise")[0]?.entries.map((entry) => entry.epoch)).toEqual([
      b1,
      b1,
    ]);
  });

  it("takes no slot before the ones before it: contiguous by design", () => {
    const { receive } = single();
    const gap = receive("B", { ...accept, previousIndex: 3, entries: slotsOf([b1], 4) });
    expect(effectsOf(gap, "persist").flatMap(({ put }) => put)).toEqual([]);
    expect(messagesOf(gap, "gap")).toEqual([{ kind: "gap", epoch: b1, previousIndex: 3, match: 0, voting: true }]);
  });

  it("what it holds from older ballots does not fill the gap", () => {
    const { receive } = single({ log: slotsOf([b1, b1, b1]) });
    const epoch = ballot(2, "C");
    const gap = receive("C", { ...accept, epoch, previousIndex: 2, commit: 3, entries: slotsOf([epoch], 3) });
    expect(messagesOf(gap, "gap")).toMatchObject([{ match: 0 }]);
    expect(effectsOf(gap, "commit")).toEqual([]);
  });

  it("believes what is chosen only as far as it holds the leader's slots", () => {
    const { receive } = single({ log: slotsOf([b1, b1, b1]) });
    const epoch = ballot(2, "C");
    expect(effectsOf(receive("C", { ...accept, epoch, commit: 3, entries: slotsOf([epoch]) }), "commit")).toEqual([
      { kind: "commit", index: 1 },
    ]);
    const heartbeat = { kind: "heartbeat", epoch, commit: 3, round: 0, applied: null } as const;
    expect(effectsOf(receive("C", heartbeat), "commit")).toEqual([]);
  });

  it("after a restart counts what it accepted in the promised ballot, and no more", () => {
    const mixed = slotsOf([ballot(1, "A"), b1, b1, ballot(1, "A")]);
    const { receive } = single({ log: mixed, applied: { index: 1, chain: "c" } });
    const heartbeat = { kind: "heartbeat", epoch: b1, commit: 4, round: 0, applied: null } as const;
    expect(effectsOf(receive("B", heartbeat), "commit")).toEqual([{ kind: "commit", index: 3 }]);
  });

  it("an acknowledgement waits for the last write that touched what it speaks of", () => {
    const { step } = single();
    step({ kind: "message", from: "B", message: accept });
    const epoch = ballot(2, "C");
    step({ kind: "message", from: "C", message: { ...accept, epoch, entries: slotsOf([epoch, epoch]) } });
    const again = step({ kind: "message", from: "C", message: { ...accept, epoch, entries: slotsOf([epoch]) } });
    expect(effectsOf(again, "send")).toMatchObject([{ afterToken: 2, message: { kind: "accepted", match: 1 } }]);
    step({ kind: "persisted", token: 1 });
    const late = step({ kind: "message", from: "C", message: { ...accept, epoch, entries: slotsOf([epoch]) } });
    expect(effectsOf(late, "send")).toMatchObject([{ afterToken: 2 }]);
  });
});

describe("choosing (PMS §2.2)", () => {
  it("takes a quorum of acceptances in the leader's ballot; the own one counts once it is durable", () => {
    const { step, lead, engine } = single();
    lead();
    const epoch = engine.status().epoch;
    const proposals = [{ ticket: 1, payload: bytesOf("x") }];
    const [write] = effectsOf(step({ kind: "propose", proposals }), "persist");
    const accepted = { kind: "accepted", epoch, match: 2, voting: true } as const;
    expect(effectsOf(step({ kind: "message", from: "B", message: accepted }), "commit")).toEqual([]);
    expect(effectsOf(step({ kind: "persisted", token: write?.token ?? 0 }), "commit")).toEqual([
      { kind: "commit", index: 2 },
    ]);
  });

  it("acceptances of other ballots, of non-voters and of strangers do not count", () => {
    const { receive, lead, propose, engine } = single({ configuration: { ...THREE, learners: ["L"] } });
    lead();
    propose("x");
    const epoch = engine.status().epoch;
    const accepted = { kind: "accepted", epoch, match: 2, voting: true } as const;
    for (const [from, message] of [
      ["B", { ...accepted, epoch: epoch - 2 ** 16 }],
      ["B", { ...accepted, voting: false }],
      ["L", accepted],
      ["X", accepted],
    ] as const) {
      expect(effectsOf(receive(from, message), "commit"), from).toEqual([]);
    }
    expect(effectsOf(receive("C", accepted), "commit")).toEqual([{ kind: "commit", index: 2 }]);
  });

  it("a leader below another's promise steps down", () => {
    const { lead, receive, engine } = single();
    lead();
    receive("C", { kind: "refused", epoch: ballot(9, "B") });
    expect(engine.status()).toMatchObject({ role: "follower", epoch: ballot(9, "B"), leader: null });
  });

  it("a leader that hears no quorum for an election timeout steps down (PML §5.2)", () => {
    const { lead, tick, engine } = single();
    lead();
    tick(10);
    expect(engine.status().role).toBe("leader");
    tick(10);
    expect(engine.status().role).toBe("follower");
  });
});

describe("reads", () => {
  it("wait until the suffix that phase 1 found is chosen, then for a round of the ballot (HM §3; etcd 7331)", () => {
    const { lead, receive, run, engine } = single();
    lead(slotsOf([b1, b1]), false);
    const { epoch } = engine.status();
    expect(effectsOf(run({ kind: "read", ticket: 7 }), "send")).toEqual([]);
    const chosen = receive("B", { kind: "accepted", epoch, match: 2, voting: true });
    const round = messagesOf(chosen, "heartbeat").at(-1)?.round ?? 0;
    const reply = { kind: "heartbeat_reply", epoch, commit: 2, applied: null, voting: true } as const;
    expect(effectsOf(receive("B", { ...reply, round: round - 1 }), "read_ready"), "an earlier round").toEqual([]);
    expect(effectsOf(receive("B", { ...reply, round }), "read_ready")).toEqual([
      { kind: "read_ready", ticket: 7, index: 2 },
    ]);
  });

  it("fail when the leader loses its quorum or its ballot", () => {
    const { lead, run, receive } = single();
    lead();
    run({ kind: "read", ticket: 1 });
    expect(effectsOf(receive("C", { kind: "refused", epoch: ballot(9, "B") }), "read_failed")).toMatchObject([
      { ticket: 1, reason: "not_leader" },
    ]);
  });
});

describe("the pipeline", () => {
  it("holds α slots, so that who proposes one knows who decides it: more wait, and what is too much is refused", () => {
    const { lead, propose, run, receive, engine } = single({}, { proposalsInFlightMax: 5, alpha: 3 });
    lead();
    const effects = propose("a", "b", "c", "d", "e");
    expect(effectsOf(effects, "accepted").map(({ index }) => index)).toEqual([2, 3]);
    expect(effectsOf(effects, "rejected").map(({ reason }) => reason)).toEqual(["overloaded"]);
    receive("B", { kind: "accepted", epoch: engine.status().epoch, match: 3, voting: true });
    const applied = run({ kind: "applied", point: { index: 2, chain: "c" } });
    expect(effectsOf(applied, "accepted").map(({ index }) => index)).toEqual([4, 5]);
  });

  it("what waits for room is refused when the lead is lost", () => {
    const { lead, propose, receive } = single({}, { alpha: 2 });
    lead();
    expect(effectsOf(propose("a", "b"), "accepted")).toMatchObject([{ ticket: 0, index: 2 }]);
    const lost = receive("C", { kind: "refused", epoch: ballot(9, "B") });
    expect(effectsOf(lost, "rejected")).toMatchObject([{ ticket: 1, reason: "not_leader" }]);
  });

  it("a later configuration decides only its own slots, and a campaign needs a quorum of each", () => {
    const one = { voters: ["A"], votersOutgoing: [], learners: [] };
    const configurations = [
      { index: 0, configuration: one },
      { index: 2, configuration: THREE },
    ];
    const log = slotsOf([ballot(1), ballot(1)]);
    const { tick, engine } = single({ log, configurations }, { alpha: 3 });
    tick(10);
    expect(engine.status().role).toBe("pre_candidate");
    expect(engine.status().configuration).toBe(one);
  });

  it("a follower that forgot in a restart what was chosen takes it again; what it acknowledged goes on counting", () => {
    const { lead, propose, receive, engine } = single();
    lead();
    const { epoch } = engine.status();
    propose("x", "y");
    receive("B", { kind: "accepted", epoch, match: 2, voting: true });
    const gap = { kind: "gap", epoch, previousIndex: 3, match: 0, voting: true } as const;
    const probe = receive("B", gap);
    expect(messagesOf(probe, "accept")).toMatchObject([{ previousIndex: 2 }]);
    const again = receive("B", { ...gap, previousIndex: 2 });
    expect(messagesOf(again, "accept")).toMatchObject([{ previousIndex: 0, entries: [{}, {}, {}] }]);
    // The reply is lost; the next heartbeat finds it.
    const reply = { kind: "heartbeat_reply", epoch, round: 1, commit: 0, applied: null, voting: true } as const;
    expect(messagesOf(receive("B", reply), "accept")).toMatchObject([{ previousIndex: 0 }]);
    expect(effectsOf(receive("B", { kind: "accepted", epoch, match: 3, voting: true }), "commit")).toEqual([
      { kind: "commit", index: 3 },
    ]);
  });

  it("a follower whose next slot left the log gets a snapshot", () => {
    const log = slotsOf(Array.from({ length: 6 }, () => ballot(1)));
    const { lead, receive, engine, run } = single({
      log,
      base: { index: 4, epoch: ballot(1) },
      epochRuns: [{ epoch: ballot(1), first: 5 }],
      applied: { index: 5, chain: "c" },
    });
    lead([slot(6, ballot(1))]);
    const gap = { kind: "gap", epoch: engine.status().epoch, previousIndex: 5, match: 1, voting: true } as const;
    const effects = receive("C", gap);
    expect(effectsOf(effects, "send_snapshot")).toEqual([{ kind: "send_snapshot", to: "C", indexMin: 4 }]);
    expect(effectsOf(effects, "load")).toEqual([]);
    const after = run({ kind: "snapshot_sent", to: "C", index: 5 });
    expect(messagesOf(after, "accept")).toMatchObject([{ previousIndex: 5, entries: [{ index: 6 }] }]);
  });
});
