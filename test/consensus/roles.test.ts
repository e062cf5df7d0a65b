/**
 * Every role × every event: which effects come out and which role it ends in. `Record`, never `Partial`: a new event or
 * role doesn't compile until its cells are written.
 */
import { describe, expect, it } from "vitest";
import type { EngineEvent, EventKind, Role } from "../../src/consensus/engine.ts";
import type { RaftMessage } from "../../src/consensus/raft/index.ts";
import { bytesOf, single, type Single } from "./single.ts";

interface Cell {
  /** Effects in order; a send is named by its message. */
  readonly effects: readonly string[];
  readonly role: Role;
}

const heartbeat: RaftMessage = { kind: "heartbeat", epoch: 9, commit: 0, round: 1, applied: null };

const EVENTS: Record<EventKind, EngineEvent<RaftMessage>> = {
  tick: { kind: "tick" },
  message: { kind: "message", from: "B", message: heartbeat },
  propose: { kind: "propose", proposals: [{ ticket: 1, payload: bytesOf("x") }] },
  read: { kind: "read", ticket: 1 },
  persisted: { kind: "persisted", token: 1 },
  loaded: { kind: "loaded", token: 1, entries: [] },
  load_failed: { kind: "load_failed", token: 1 },
  applied: { kind: "applied", point: { index: 0, chain: "start" } },
  tell_commit: { kind: "tell_commit" },
  transfer: { kind: "transfer", to: "B" },
  step_down: { kind: "step_down", reason: "test" },
  voting: { kind: "voting", allowed: false },
  configure: { kind: "configure", ticket: 1, change: { kind: "add_learner", id: "L" }, payload: new Uint8Array(0) },
  compacted: { kind: "compacted", index: 0, epoch: 0 },
  snapshot_sent: { kind: "snapshot_sent", to: "B", index: 1 },
  snapshot_failed: { kind: "snapshot_failed", to: "B" },
};

/** A write is under way in every role, so that `persisted` has one to report. */
const IN_ROLE: Record<Role, () => Single> = {
  follower: () => {
    const it = single();
    it.step({ kind: "message", from: "B", message: { ...heartbeat, epoch: 1 } });
    return it;
  },
  pre_candidate: () => {
    const it = single();
    it.step({ kind: "message", from: "B", message: { kind: "stale", epoch: 1 } });
    for (let i = 0; i < 10; i += 1) it.step({ kind: "tick" });
    return it;
  },
  candidate: () => {
    const it = single();
    for (let i = 0; i < 10; i += 1) it.step({ kind: "tick" });
    const pre = { kind: "vote_reply", epoch: 0, requestEpoch: 1, pre: true, granted: true } as const;
    it.step({ kind: "message", from: "B", message: pre });
    return it;
  },
  leader: () => {
    const it = single();
    for (let i = 0; i < 10; i += 1) it.step({ kind: "tick" });
    const yes = { kind: "vote_reply", requestEpoch: 1, granted: true } as const;
    for (const from of ["B", "C"]) it.step({ kind: "message", from, message: { ...yes, epoch: 0, pre: true } });
    for (const from of ["B", "C"]) it.step({ kind: "message", from, message: { ...yes, epoch: 1, pre: false } });
    return it;
  },
};

const none: readonly string[] = [];
const follow = { effects: ["persist", "heartbeat_reply", "status"], role: "follower" } as const;

const TABLE: Record<Role, Record<EventKind, Cell>> = {
  follower: {
    tick: { effects: none, role: "follower" },
    message: { effects: ["persist", "heartbeat_reply", "status"], role: "follower" },
    propose: { effects: ["rejected"], role: "follower" },
    read: { effects: ["read_failed"], role: "follower" },
    persisted: { effects: none, role: "follower" },
    loaded: { effects: none, role: "follower" },
    load_failed: { effects: none, role: "follower" },
    applied: { effects: none, role: "follower" },
    tell_commit: { effects: none, role: "follower" },
    transfer: { effects: none, role: "follower" },
    step_down: { effects: none, role: "follower" },
    voting: { effects: ["status"], role: "follower" },
    configure: { effects: ["rejected"], role: "follower" },
    compacted: { effects: none, role: "follower" },
    snapshot_sent: { effects: none, role: "follower" },
    snapshot_failed: { effects: none, role: "follower" },
  },
  pre_candidate: {
    tick: { effects: none, role: "pre_candidate" },
    message: follow,
    propose: { effects: ["rejected"], role: "pre_candidate" },
    read: { effects: ["read_failed"], role: "pre_candidate" },
    persisted: { effects: none, role: "pre_candidate" },
    loaded: { effects: none, role: "pre_candidate" },
    load_failed: { effects: none, role: "pre_candidate" },
    applied: { effects: none, role: "pre_candidate" },
    tell_commit: { effects: none, role: "pre_candidate" },
    transfer: { effects: none, role: "pre_candidate" },
    step_down: { effects: none, role: "pre_candidate" },
    voting: { effects: ["status"], role: "follower" },
    configure: { effects: ["rejected"], role: "pre_candidate" },
    compacted: { effects: none, role: "pre_candidate" },
    snapshot_sent: { effects: none, role: "pre_candidate" },
    snapshot_failed: { effects: none, role: "pre_candidate" },
  },
  candidate: {
    tick: { effects: none, role: "candidate" },
    message: follow,
    propose: { effects: ["rejected"], role: "candidate" },
    read: { effects: ["read_failed"], role: "candidate" },
    persisted: { effects: none, role: "candidate" },
    loaded: { effects: none, role: "candidate" },
    load_failed: { effects: none, role: "candidate" },
    applied: { effects: none, role: "candidate" },
    tell_commit: { effects: none, role: "candidate" },
    transfer: { effects: none, role: "candidate" },
    step_down: { effects: none, role: "candidate" },
    voting: { effects: ["status"], role: "follower" },
    configure: { effects: ["rejected"], role: "candidate" },
    compacted: { effects: none, role: "candidate" },
    snapshot_sent: { effects: none, role: "candidate" },
    snapshot_failed: { effects: none, role: "candidate" },
  },
  leader: {
    tick: { effects: ["heartbeat", "heartbeat"], role: "leader" },
    message: follow,
    // The first append of the epoch is a probe: the entry waits for its reply.
    propose: { effects: ["persist", "accepted"], role: "leader" },
    read: { effects: none, role: "leader" },
    persisted: { effects: none, role: "leader" },
    loaded: { effects: none, role: "leader" },
    load_failed: { effects: none, role: "leader" },
    applied: { effects: none, role: "leader" },
    // Nothing is committed that it has not told.
    tell_commit: { effects: none, role: "leader" },
    transfer: { effects: ["append"], role: "leader" },
    step_down: { effects: ["status"], role: "follower" },
    voting: { effects: ["status"], role: "follower" },
    configure: { effects: ["rejected"], role: "leader" },
    compacted: { effects: none, role: "leader" },
    snapshot_sent: { effects: none, role: "leader" },
    snapshot_failed: { effects: none, role: "leader" },
  },
};

describe.each(Object.keys(TABLE) as Role[])("a %s", (role) => {
  it.each(Object.keys(EVENTS) as EventKind[])("on %s", (event) => {
    const { step, engine } = IN_ROLE[role]();
    expect(engine.status().role).toBe(role);
    const effects = step(EVENTS[event]).map((effect) => (effect.kind === "send" ? effect.message.kind : effect.kind));
    expect({ effects, role: engine.status().role }).toEqual(TABLE[role][event]);
  });
});
