/**
 * Rules of Raft, one by one, with the section that states them: "Raft" is the extended paper, "thesis" is Ongaro's.
 */
import { describe, expect, it } from "vitest";
import type { Configuration } from "../../src/consensus/engine.ts";
import { bytesOf, effectsOf, entriesOf, messagesOf, single } from "./single.ts";

const vote = { kind: "vote_request", pre: false, transfer: false, lastIndex: 9, lastEpoch: 9 } as const;

describe("elections", () => {
  it("Raft §5.2: a vote is given once in an epoch, in one write with the epoch, and leaves after it", () => {
    const { step, engine } = single();
    const effects = step({ kind: "message", from: "B", message: { ...vote, epoch: 3 } });
    const [write] = effectsOf(effects, "persist");
    expect(write).toMatchObject({ token: 1, hardState: { epoch: 3, votedFor: "B" }, put: [], removeFrom: null });
    expect(effectsOf(effects, "persist")).toHaveLength(1);
    expect(effectsOf(effects, "send")[0]).toMatchObject({ to: "B", afterToken: 1, message: { granted: true } });
    const other = step({ kind: "message", from: "C", message: { ...vote, epoch: 3 } });
    expect(effectsOf(other, "persist")).toEqual([]);
    expect(effectsOf(other, "send")[0]).toMatchObject({ afterToken: 1, message: { granted: false } });
    expect(engine.status().epoch).toBe(3);
  });

  it("Raft §5.2: the vote survives a restart", () => {
    const { receive } = single({ hardState: { epoch: 3, votedFor: "B" } });
    expect(messagesOf(receive("C", { ...vote, epoch: 3 }), "vote_reply")[0]?.granted).toBe(false);
    expect(messagesOf(receive("B", { ...vote, epoch: 3 }), "vote_reply")[0]?.granted).toBe(true);
  });

  it.each([
    { lastEpoch: 2, lastIndex: 9, granted: false },
    { lastEpoch: 3, lastIndex: 2, granted: false },
    { lastEpoch: 3, lastIndex: 3, granted: true },
    { lastEpoch: 4, lastIndex: 1, granted: true },
  ])("Raft §5.4.1: log 1 1 3 against $lastIndex@$lastEpoch: $granted", ({ lastEpoch, lastIndex, granted }) => {
    for (const pre of [true, false]) {
      const { receive } = single({ log: [1, 1, 3] });
      const [reply] = messagesOf(receive("B", { ...vote, epoch: 5, pre, lastEpoch, lastIndex }), "vote_reply");
      expect(reply?.granted).toBe(granted);
    }
  });

  it("thesis §9.6: a pre-vote changes neither epoch nor vote, and is given to several", () => {
    const { step, engine } = single();
    for (const from of ["B", "C"]) {
      const effects = step({ kind: "message", from, message: { ...vote, epoch: 5, pre: true } });
      expect(effects.map(({ kind }) => kind)).toEqual(["send"]);
      expect(messagesOf(effects, "vote_reply")[0]?.granted).toBe(true);
    }
    expect(engine.status().epoch).toBe(0);
  });

  it("Raft §5.2: the candidate's own vote counts only when it is durable", () => {
    const alone: Configuration = { voters: ["A"], votersOutgoing: [], learners: [] };
    const { step, engine } = single({ configuration: alone });
    for (let i = 0; i < 10; i += 1) step({ kind: "tick" });
    expect(engine.status()).toMatchObject({ role: "candidate", epoch: 1 });
    const effects = step({ kind: "persisted", token: 1 });
    expect(engine.status().role).toBe("leader");
    expect(effectsOf(effects, "persist")[0]?.put).toMatchObject([{ index: 1, kind: "config" }]);
    expect(effectsOf(step({ kind: "persisted", token: 2 }), "commit")).toEqual([{ kind: "commit", index: 1 }]);
  });

  it("Raft §8: a new leader appends at once; to an empty log the group's first entry", () => {
    const empty = single();
    expect(effectsOf(empty.lead(), "persist").at(-1)?.put).toMatchObject([{ index: 1, epoch: 1, kind: "config" }]);
    const used = single({ log: [1, 1] });
    expect(effectsOf(used.lead(), "persist").at(-1)?.put).toMatchObject([{ index: 3, epoch: 2, kind: "noop" }]);
  });

  it("thesis §4.2.3: a follower that hears its leader ignores requests for votes, unless that leader asked for them", () => {
    const { receive, tick } = single();
    receive("B", { kind: "heartbeat", epoch: 1, commit: 0, round: 1, applied: null });
    expect(receive("C", { ...vote, epoch: 9 })).toEqual([]);
    expect(receive("C", { ...vote, epoch: 9, pre: true })).toEqual([]);
    tick(9);
    expect(receive("C", { ...vote, epoch: 9 })).toEqual([]);
    const [reply] = messagesOf(receive("C", { ...vote, epoch: 9, transfer: true }), "vote_reply");
    expect(reply).toMatchObject({ granted: true, epoch: 9 });
  });

  it("thesis §6.2: a leader that hears no quorum for an election timeout steps down, and its reads fail", () => {
    const { lead, run, tick, engine } = single();
    lead();
    tick(10);
    run({ kind: "read", ticket: 7 });
    const effects = tick(10);
    expect(engine.status().role).toBe("follower");
    expect(effectsOf(effects, "read_failed")).toMatchObject([{ ticket: 7, reason: "no_quorum" }]);
  });

  it("Raft §5.1: a leader of an epoch that is over is told so", () => {
    const { receive } = single({ hardState: { epoch: 7, votedFor: null } });
    const effects = receive("B", { kind: "heartbeat", epoch: 5, commit: 0, round: 1, applied: null });
    expect(messagesOf(effects, "stale")).toEqual([{ kind: "stale", epoch: 7 }]);
  });

  it("a replica that may not vote grants nothing, never campaigns, and marks what it says", () => {
    const { receive, tick, run } = single({ voting: false });
    expect(messagesOf(receive("B", { ...vote, epoch: 1, pre: true }), "vote_reply")[0]?.granted).toBe(false);
    expect(messagesOf(receive("B", { ...vote, epoch: 1 }), "vote_reply")[0]?.granted).toBe(false);
    expect(messagesOf(tick(30), "vote_request")).toEqual([]);
    const append = {
      kind: "append",
      epoch: 2,
      previousIndex: 0,
      previousEpoch: 0,
      commit: 0,
      entries: entriesOf([2]),
    } as const;
    expect(messagesOf(receive("B", append), "append_accepted")).toMatchObject([{ match: 1, voting: false }]);
    run({ kind: "voting", allowed: true });
    expect(messagesOf(tick(11), "vote_request")[0]?.pre).toBe(true);
  });
});

describe("replication", () => {
  const append = { kind: "append", epoch: 2, previousIndex: 0, previousEpoch: 0, commit: 0, entries: [] } as const;

  it("thesis §10.2.1: the leader's disk works in parallel: appends leave at once, its own copy counts later", () => {
    const { lead, step, engine } = single();
    lead();
    const effects = step({ kind: "propose", proposals: [{ ticket: 1, payload: bytesOf("x") }] });
    expect(effectsOf(effects, "send").every(({ afterToken }) => afterToken === null)).toBe(true);
    const token = effectsOf(effects, "persist")[0]?.token ?? 0;
    const accepted = { kind: "append_accepted", epoch: 1, match: 2, voting: true } as const;
    expect(effectsOf(step({ kind: "message", from: "B", message: accepted }), "commit")).toEqual([]);
    expect(effectsOf(step({ kind: "persisted", token }), "commit")).toEqual([{ kind: "commit", index: 2 }]);
    expect(engine.status().commit).toBe(2);
  });

  it("Raft §5.3: followers alone commit while the leader's disk is slow", () => {
    const { lead, step } = single();
    lead();
    step({ kind: "message", from: "C", message: { kind: "append_accepted", epoch: 1, match: 1, voting: true } });
    step({ kind: "propose", proposals: [{ ticket: 1, payload: bytesOf("x") }] });
    const accepted = { kind: "append_accepted", epoch: 1, match: 2, voting: true } as const;
    step({ kind: "message", from: "B", message: accepted });
    expect(effectsOf(step({ kind: "message", from: "C", message: accepted }), "commit")).toHaveLength(1);
  });

  it("Raft §5.4.2: entries of earlier epochs commit only underneath one of the leader's own", () => {
    const { lead, receive } = single({ log: [1, 1] });
    lead("B", false);
    const accepted = { kind: "append_accepted", epoch: 2, voting: true } as const;
    expect(effectsOf(receive("B", { ...accepted, match: 2 }), "commit")).toEqual([]);
    expect(effectsOf(receive("C", { ...accepted, match: 2 }), "commit")).toEqual([]);
    expect(effectsOf(receive("C", { ...accepted, match: 3 }), "commit")).toEqual([{ kind: "commit", index: 3 }]);
  });

  it("acknowledgements of other epochs, above what was sent, or from replicas that do not count, commit nothing", () => {
    const { lead, receive, propose } = single({ log: [1, 1] });
    lead();
    receive("C", { kind: "append_accepted", epoch: 2, match: 3, voting: true });
    propose("x");
    const accepted = { kind: "append_accepted", epoch: 2, match: 4, voting: true } as const;
    expect(effectsOf(receive("B", { ...accepted, epoch: 1 }), "commit")).toEqual([]);
    expect(effectsOf(receive("B", { ...accepted, match: 5 }), "commit")).toEqual([]);
    expect(effectsOf(receive("B", { ...accepted, voting: false }), "commit")).toEqual([]);
    expect(effectsOf(receive("stranger", accepted), "commit")).toEqual([]);
    expect(effectsOf(receive("C", accepted), "commit")).toEqual([{ kind: "commit", index: 4 }]);
  });

  it("a follower that lost its promises is not counted by what it said before", () => {
    const { lead, step, receive } = single();
    lead("C");
    const proposed = step({ kind: "propose", proposals: [{ ticket: 1, payload: bytesOf("x") }] });
    const accepted = { kind: "append_accepted", epoch: 1, match: 2, voting: true } as const;
    receive("B", accepted);
    receive("B", { kind: "heartbeat_reply", epoch: 1, round: 1, commit: 0, applied: null, voting: false });
    const token = effectsOf(proposed, "persist")[0]?.token ?? 0;
    expect(effectsOf(step({ kind: "persisted", token }), "commit")).toEqual([]);
    expect(effectsOf(receive("C", accepted), "commit")).toHaveLength(1);
  });

  it("Raft §5.3: an acknowledgement waits for the last write that touched what it acknowledges", () => {
    const { step } = single();
    const receive = (message: Parameters<typeof step>[0] & { kind: "message" }) => effectsOf(step(message), "send")[0];
    const first = receive({ kind: "message", from: "B", message: { ...append, entries: entriesOf([2, 2]) } });
    expect(first?.afterToken).toBe(1);
    const again = receive({ kind: "message", from: "B", message: { ...append, entries: entriesOf([2]) } });
    expect(again).toMatchObject({ afterToken: 1, message: { match: 1 } });
    const rewritten = receive({
      kind: "message",
      from: "C",
      message: { ...append, epoch: 3, previousIndex: 1, previousEpoch: 2, entries: entriesOf([3], 2) },
    });
    expect(rewritten).toMatchObject({ afterToken: 2, message: { match: 2 } });
    step({ kind: "persisted", token: 2 });
    const probe = { ...append, epoch: 3, previousIndex: 2, previousEpoch: 3 };
    expect(receive({ kind: "message", from: "C", message: probe })?.afterToken).toBeNull();
  });

  it("Raft §5.3: an old append shortens nothing", () => {
    const { receive, engine } = single();
    receive("B", { ...append, entries: entriesOf([2, 2, 2]), commit: 3 });
    const effects = receive("B", { ...append, entries: entriesOf([2]) });
    expect(effectsOf(effects, "persist")).toEqual([]);
    expect(messagesOf(effects, "append_accepted")).toMatchObject([{ match: 1 }]);
    expect(engine.status()).toMatchObject({ lastIndex: 3, commit: 3 });
  });

  it("Raft §5.3: a follower's commit stops at what this leader has matched", () => {
    const { receive, engine } = single({ log: [1, 1, 1] });
    receive("B", { kind: "heartbeat", epoch: 2, commit: 3, round: 1, applied: null });
    expect(engine.status().commit).toBe(0);
    receive("B", { ...append, previousIndex: 2, previousEpoch: 1, commit: 3 });
    expect(engine.status().commit).toBe(2);
  });

  it("a leader whose entry contradicts what is committed here ends this replica, and nothing is removed", () => {
    const { receive } = single({ log: [1, 1, 1], applied: { index: 3, chain: "c" } });
    const effects = receive("B", { ...append, previousIndex: 1, previousEpoch: 1, entries: entriesOf([2], 2) });
    expect(effects.map(({ kind }) => kind)).toEqual(["halt"]);
    expect(receive("B", append)).toEqual([]);
  });

  it("Raft §5.3, end: a refusal names the last entry that could agree", () => {
    const { receive } = single({ log: [1, 1, 4, 4, 4] });
    const probe = { ...append, epoch: 6, previousIndex: 9, previousEpoch: 3 };
    expect(messagesOf(receive("B", probe), "append_rejected")).toMatchObject([
      { previousIndex: 9, hintIndex: 2, hintEpoch: 1 },
    ]);
  });

  it("the window bounds appends in flight; a heartbeat reply brings lost ones back", () => {
    const { lead, propose, receive } = single();
    lead("B");
    const sent = Array.from({ length: 7 }, (_, i) => messagesOf(propose(`p${i}`), "append").length);
    expect(sent).toEqual([1, 1, 1, 1, 0, 0, 0]);
    const reply = { kind: "heartbeat_reply", epoch: 1, round: 0, commit: 1, applied: null, voting: true } as const;
    expect(messagesOf(receive("B", reply), "append")).toMatchObject([{ previousIndex: 5, entries: [] }]);
    const refused = {
      kind: "append_rejected",
      epoch: 1,
      previousIndex: 5,
      hintIndex: 1,
      hintEpoch: 1,
      voting: true,
    } as const;
    expect(messagesOf(receive("B", refused), "append")[0]).toMatchObject({ previousIndex: 1 });
  });

  it("a follower that was set back and says that it does not count is taken back to where it stands", () => {
    const { lead, propose, receive } = single({ log: [1, 1, 1] });
    lead("B");
    propose("x");
    const accepted = { kind: "append_accepted", epoch: 2, match: 5, voting: true } as const;
    receive("C", { ...accepted, match: 4 });
    expect(effectsOf(receive("C", accepted), "commit")).toEqual([{ kind: "commit", index: 5 }]);
    const refused = { kind: "append_rejected", epoch: 2, previousIndex: 5, hintIndex: 2, hintEpoch: 1 } as const;
    expect(messagesOf(receive("C", { ...refused, voting: true }), "append"), "late").toEqual([]);
    expect(messagesOf(receive("C", { ...refused, voting: false }), "append")).toMatchObject([{ previousIndex: 2 }]);
    // A second copy of the refusal says nothing new.
    expect(messagesOf(receive("C", { ...refused, voting: false }), "append")).toEqual([]);
    const back = { ...accepted, match: 2, voting: false };
    expect(effectsOf(receive("C", back), "load")).toMatchObject([{ from: 3 }]);
    const asked = propose("y");
    expect(effectsOf(asked, "commit"), "it does not count").toEqual([]);
    expect(effectsOf(receive("C", { ...accepted, match: 6, voting: false }), "commit")).toEqual([]);
    expect(effectsOf(receive("B", { ...accepted, match: 6 }), "commit")).toEqual([{ kind: "commit", index: 6 }]);
  });

  it("proposals beyond the bound are refused as overloaded, the first ones are not", () => {
    const { lead, run } = single();
    lead();
    const proposals = Array.from({ length: 150 }, (_, ticket) => ({ ticket, payload: bytesOf("x") }));
    const effects = run({ kind: "propose", proposals });
    expect(effectsOf(effects, "accepted").map(({ ticket }) => ticket)).toEqual(
      proposals.slice(0, 99).map((p) => p.ticket),
    );
    expect(effectsOf(effects, "rejected")).toHaveLength(51);
    expect(effectsOf(effects, "rejected")[0]?.reason).toBe("overloaded");
  });
});
