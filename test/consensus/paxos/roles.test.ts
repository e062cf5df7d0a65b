/**
 * Every role × every event of Multi-Paxos: which effects come out and which role it ends in. `Record`, never `Partial`: a
 * new event or role doesn't compile until its cells are written.
 */
import { describe, expect, it } from "vitest";
import type { EngineEvent, EventKind, Role } from "../../../src/consensus/engine.ts";
import type { PaxosMessage } from "../../../src/consensus/paxos/index.ts";
import { bytesOf } from "../single.ts";
import { ballot, single, type Single } from "./single.ts";

interface Cell {
  /** Effects in order; a send is named by its message. */
  readonly effects: readonly string[];
  readonly role: Role;
}

const heartbeat: PaxosMessage = { kind: "heartbeat", epoch: ballot(9, "B"), commit: 0, round: 1, applied: null };
const change = { kind: "remove", id: "C" } as const;

const EVENTS: Record<EventKind, EngineEvent<PaxosMessage>> = {
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
  configure: { kind: "configure", ticket: 1, change, payload: bytesOf("") },
  compacted: { kind: "compacted", index: 0, epoch: 0 },
  snapshot_sent: { kind: "snapshot_sent", to: "B", index: 1 },
  snapshot_failed: { kind: "snapshot_failed", to: "B" },
};

const told = { kind: "promise", granted: true, from: 1, lastIndex: 0, commit: 0, entries: [] } as const;

function campaigning(): Single {
  const it = single();
  for (let i = 0; i < 10; i += 1) it.step({ kind: "tick" });
  it.step({ kind: "message", from: "B", message: { ...told, epoch: 0, asked: ballot(1), pre: true } });
  return it;
}

/** A write is under way in every role, so that `persisted` has one to report. */
const IN_ROLE: Record<Role, () => Single> = {
  follower: () => {
    const it = single();
    it.step({ kind: "message", from: "B", message: { ...heartbeat, epoch: ballot(1, "B") } });
    return it;
  },
  pre_candidate: () => {
    const it = single();
    it.step({ kind: "message", from: "B", message: { kind: "refused", epoch: ballot(1, "B") } });
    for (let i = 0; i < 10; i += 1) it.step({ kind: "tick" });
    return it;
  },
  candidate: campaigning,
  leader: () => {
    const it = campaigning();
    it.step({ kind: "persisted", token: 1 });
    it.step({ kind: "message", from: "B", message: { ...told, epoch: ballot(1), asked: ballot(1), pre: false } });
    return it;
  },
};

const none: readonly string[] = [];
const follow = { effects: ["persist", "heartbeat_reply", "status"], role: "follower" } as const;

const NOT_LEADING: Pick<
  Record<EventKind, readonly string[]>,
  Exclude<EventKind, "tick" | "message" | "voting" | "persisted">
> = {
  propose: ["rejected"],
  read: ["read_failed"],
  loaded: none,
  load_failed: none,
  applied: none,
  tell_commit: none,
  transfer: none,
  step_down: none,
  configure: ["rejected"],
  compacted: none,
  snapshot_sent: none,
  snapshot_failed: none,
};

function notLeading(role: Role): Record<keyof typeof NOT_LEADING, Cell> {
  return Object.fromEntries(
    Object.entries(NOT_LEADING).map(([event, effects]) => [event, { effects, role }]),
  ) as Record<keyof typeof NOT_LEADING, Cell>;
}

const TABLE: Record<Role, Record<EventKind, Cell>> = {
  follower: {
    ...notLeading("follower"),
    tick: { effects: none, role: "follower" },
    message: follow,
    persisted: { effects: none, role: "follower" },
    voting: { effects: ["status"], role: "follower" },
  },
  pre_candidate: {
    ...notLeading("pre_candidate"),
    tick: { effects: none, role: "pre_candidate" },
    message: follow,
    persisted: { effects: none, role: "pre_candidate" },
    voting: { effects: ["status"], role: "follower" },
  },
  candidate: {
    ...notLeading("candidate"),
    // Whoever has not answered is asked again.
    tick: { effects: ["prepare", "prepare"], role: "candidate" },
    message: follow,
    persisted: { effects: none, role: "candidate" },
    voting: { effects: ["status"], role: "follower" },
  },
  leader: {
    tick: { effects: ["heartbeat", "heartbeat"], role: "leader" },
    message: follow,
    // The first accept to each follower is a probe: the next entry waits for its reply.
    propose: { effects: ["persist", "accepted"], role: "leader" },
    // What phase 1 found is not chosen yet.
    read: { effects: none, role: "leader" },
    persisted: { effects: none, role: "leader" },
    loaded: { effects: none, role: "leader" },
    load_failed: { effects: none, role: "leader" },
    applied: { effects: none, role: "leader" },
    // Nothing is chosen that it has not told.
    tell_commit: { effects: none, role: "leader" },
    transfer: { effects: ["accept"], role: "leader" },
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
    // The leader's first write is its promise, the second its first proposal.
    const given = role === "leader" && event === "persisted" ? { kind: "persisted" as const, token: 2 } : EVENTS[event];
    const effects = step(given).map((effect) => (effect.kind === "send" ? effect.message.kind : effect.kind));
    expect({ effects, role: engine.status().role }).toEqual(TABLE[role][event]);
  });
});
