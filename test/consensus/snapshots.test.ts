/**
 * Logs that begin after a snapshot, and followers that need one (Raft §7; thesis ch. 5).
 */
import { describe, expect, it } from "vitest";
import type { Configuration } from "../../src/consensus/engine.ts";
import { ConsensusError } from "../../src/consensus/raft/index.ts";
import { encodeConfiguration } from "./node.ts";
import { bytesOf, effectsOf, entriesOf, messagesOf, single, type Single, THREE } from "./single.ts";

/** Holds entries 11 and 12 of epoch 1, applied up to 11. */
function based(): Single {
  return single({
    hardState: { epoch: 1, votedFor: null },
    base: { index: 10, epoch: 1 },
    lastIndex: 12,
    epochRuns: [{ epoch: 1, first: 11 }],
    applied: { index: 11, chain: "c" },
  });
}

/** Leads in epoch 2 from `based`, its log ends at 13; C has refused everything down to the base. */
function leaderOfLagging(): Single {
  const it = based();
  it.lead("B");
  const refused = { kind: "append_rejected", epoch: 2, hintIndex: 4, hintEpoch: 1, voting: true } as const;
  const effects = it.receive("C", { ...refused, previousIndex: 12 });
  expect(effectsOf(effects, "send_snapshot")).toEqual([{ kind: "send_snapshot", to: "C", indexMin: 10 }]);
  return it;
}

const heard = { kind: "heartbeat_reply", epoch: 2, round: 1, commit: 0, applied: null, voting: true } as const;
const accepted = { kind: "append_accepted", epoch: 2, voting: true } as const;

describe("a log that begins after a snapshot", () => {
  const append = { kind: "append", epoch: 2, previousIndex: 10, previousEpoch: 1, commit: 0, entries: [] } as const;

  it("takes appends after the snapshot's last entry, and halts when that is not the leader's", () => {
    expect(messagesOf(based().receive("B", append), "append_accepted")).toMatchObject([{ match: 10 }]);
    const other = based().receive("B", { ...append, epoch: 3, previousEpoch: 2 });
    expect(other).toMatchObject([{ kind: "halt" }]);
  });

  it("skips what lies below, and takes what follows", () => {
    const it = based();
    const effects = it.receive("B", { ...append, previousIndex: 8, entries: entriesOf([1, 1, 1, 1, 2], 9) });
    expect(
      effectsOf(effects, "persist")
        .at(-1)
        ?.put.map(({ index }) => index),
    ).toEqual([13]);
    expect(messagesOf(effects, "append_accepted")).toMatchObject([{ match: 13 }]);
  });

  it("may be empty: the snapshot's last entry is what votes and appends compare", () => {
    const it = single({
      hardState: { epoch: 3, votedFor: null },
      base: { index: 10, epoch: 3 },
      lastIndex: 10,
      applied: { index: 10, chain: "c" },
    });
    const request = { kind: "vote_request", epoch: 4, pre: false, transfer: false, lastEpoch: 2 } as const;
    expect(messagesOf(it.receive("B", { ...request, lastIndex: 99 }), "vote_reply")[0]?.granted).toBe(false);
    it.lead("B");
    expect(it.engine.status()).toMatchObject({ role: "leader", lastIndex: 11, commit: 11 });
  });

  it("keeps the configuration that was in force at the base", () => {
    const changed: Configuration = { ...THREE, learners: ["L"] };
    const it = single({ log: [1, 1, 1] });
    const config = { index: 4, epoch: 1, kind: "config", payload: encodeConfiguration(changed) } as const;
    const entries = [config, ...entriesOf([1, 1], 5)];
    it.receive("B", { ...append, epoch: 1, previousIndex: 3, previousEpoch: 1, commit: 6, entries });
    it.run({ kind: "applied", point: { index: 6, chain: "c" } });
    it.run({ kind: "compacted", index: 5, epoch: 1 });
    expect(it.engine.status().configuration).toEqual(changed);
    const replaced = entriesOf([2], 7);
    it.receive("C", { ...append, epoch: 2, previousIndex: 6, previousEpoch: 1, entries: replaced });
    expect(it.engine.status()).toMatchObject({ configuration: changed, lastIndex: 7 });
  });
});

describe("compaction", () => {
  it("never above what is applied, never at an entry that the log does not hold; older news changes nothing", () => {
    const compact = (index: number, epoch: number) => (): unknown => based().run({ kind: "compacted", index, epoch });
    expect(compact(12, 1)).toThrow(ConsensusError);
    expect(compact(11, 2)).toThrow(ConsensusError);
    expect(compact(11, 1)).not.toThrow();
    expect(compact(4, 1)).not.toThrow();
  });

  it("a follower whose next entry is dropped meanwhile gets a snapshot instead of a load", () => {
    const it = single({}, { logCacheBytesMax: 1 });
    it.lead("B");
    for (const text of ["x", "y", "z"]) {
      it.propose(text);
      it.receive("B", { ...accepted, epoch: 1, match: it.engine.status().lastIndex });
    }
    it.run({ kind: "applied", point: { index: 4, chain: "c" } });
    it.run({ kind: "compacted", index: 3, epoch: 1 });
    const effects = it.receive("C", { ...accepted, epoch: 1, match: 1 });
    expect(effectsOf(effects, "load")).toEqual([]);
    expect(effectsOf(effects, "send_snapshot")).toMatchObject([{ to: "C", indexMin: 3 }]);
  });
});

describe("a follower behind the log's base", () => {
  it("gets heartbeats only while the snapshot is on its way, and is asked for once", () => {
    const it = leaderOfLagging();
    const effects = [
      ...it.propose("x"),
      ...it.receive("C", heard),
      ...it.receive("C", {
        kind: "append_rejected",
        epoch: 2,
        previousIndex: 12,
        hintIndex: 4,
        hintEpoch: 1,
        voting: true,
      }),
    ];
    expect(effectsOf(effects, "send").filter(({ to, message }) => to === "C" && message.kind === "append")).toEqual([]);
    expect(effectsOf(effects, "send_snapshot")).toEqual([]);
    expect(effectsOf(it.tick(1), "send").map(({ to }) => to)).toContain("C");
  });

  it("goes on after the snapshot; what the shell reports is no acknowledgement", () => {
    const it = leaderOfLagging();
    it.propose("x");
    const effects = it.run({ kind: "snapshot_sent", to: "C", index: 12 });
    expect(messagesOf(effects, "append")).toMatchObject([{ previousIndex: 12, previousEpoch: 1 }]);
    expect(effectsOf(effects, "commit")).toEqual([]);
    expect(effectsOf(it.receive("C", { ...accepted, match: 14 }), "commit")).toEqual([{ kind: "commit", index: 14 }]);
  });

  it("is tried again after a failure, when it is heard", () => {
    const it = leaderOfLagging();
    expect(it.run({ kind: "snapshot_failed", to: "C" })).toEqual([]);
    expect(effectsOf(it.tick(3), "send_snapshot")).toEqual([]);
    expect(effectsOf(it.receive("C", heard), "send_snapshot")).toHaveLength(1);
  });

  it("gets another one when the log begins later than the one it got", () => {
    const it = leaderOfLagging();
    it.run({ kind: "applied", point: { index: 13, chain: "c" } });
    it.run({ kind: "compacted", index: 13, epoch: 2 });
    const effects = it.run({ kind: "snapshot_sent", to: "C", index: 11 });
    expect(effectsOf(effects, "send_snapshot")).toMatchObject([{ to: "C", indexMin: 13 }]);
  });

  it("needs none any more when it got there in another way; late reports change nothing", () => {
    const it = leaderOfLagging();
    it.run({ kind: "propose", proposals: [{ ticket: 1, payload: bytesOf("x") }] });
    const effects = it.receive("C", { ...accepted, match: 12 });
    expect(effectsOf(effects, "load"), "what left the cache").toHaveLength(0);
    expect(messagesOf(effects, "append")).toMatchObject([{ previousIndex: 12 }]);
    for (const kind of ["snapshot_sent", "snapshot_failed"] as const) {
      expect(it.run({ kind, to: "C", index: 99 })).toEqual([]);
    }
  });

  it("slows nobody: the others commit", () => {
    const it = leaderOfLagging();
    it.propose("x");
    expect(effectsOf(it.receive("B", { ...accepted, match: 14 }), "commit")).toEqual([{ kind: "commit", index: 14 }]);
  });
});
