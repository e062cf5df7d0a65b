/**
 * Owns `step`: which event and which message goes to which rule. The rules are in the files beside this one:
 * campaign and reporting (phase 1), proposing and accepting (phase 2), reads, transfer.
 *
 * The one thing to know: who asks need not be known here, for a lagging replica has members that it does not know yet;
 * answers count from members only, and whoever speaks in a ballot that is known to be another's is ignored.
 */
import type { Effect, EngineEvent, Entry, ReplicaId } from "../engine.ts";
import { comparePoint, notePoint, settleDifferences } from "../shared/applied-points.ts";
import { invariant } from "../shared/fault.ts";
import { noteUncounted } from "../shared/progress.ts";
import { handleAccept, handleHalt, handleHandOver, handleHeartbeat } from "./accepting.ts";
import { proposerOf } from "./ballot.ts";
import { handlePromise, reportOwn, takeOwnReport, tickElection, tickLeader } from "./campaign.ts";
import type { HeartbeatReply, PaxosMessage } from "./messages.ts";
import { forgetLoad, handleSnapshotEnd, sendAccepts, takeLoaded } from "./pipeline.ts";
import { advanceCommit, handleAccepted, handleGap, propose } from "./proposing.ts";
import { configure, handleRemoved, settleMembership, answeredFromLater } from "./membership.ts";
import { configurationsFrom, openConfigurations } from "./quorums.ts";
import { noteRound, requestRead, tellCommit } from "./reads.ts";
import { forgetReport, handlePrepare, sendReport, takeReport } from "./reporting.ts";
import { becomeFollower } from "./roles.ts";
import { compactSlots, noteDurable } from "./slots.ts";
import { halt, type Leading, type Paxos, send, takeEffects } from "./state.ts";
import { handOver, startTransfer } from "./transfer.ts";

export function step(paxos: Paxos, event: EngineEvent<PaxosMessage>): readonly Effect<PaxosMessage>[] {
  if (paxos.halted) return [];
  handleEvent(paxos, event);
  settleMembership(paxos);
  return takeEffects(paxos);
}

function handleEvent(paxos: Paxos, event: EngineEvent<PaxosMessage>): void {
  switch (event.kind) {
    case "tick":
      return paxos.leadership === null ? tickElection(paxos) : tickLeader(paxos, paxos.leadership);
    case "message":
      return handleMessage(paxos, event.from, event.message);
    case "propose":
      return propose(paxos, event.proposals);
    case "read":
      return requestRead(paxos, event.ticket);
    case "persisted":
      return handlePersisted(paxos, event.token);
    case "loaded":
      return handleLoaded(paxos, event.token, event.entries);
    case "load_failed":
      forgetReport(paxos, event.token);
      return forgetLoad(paxos, event.token);
    case "applied":
      invariant(event.point.index <= paxos.commit, `applied ${event.point.index}, committed is ${paxos.commit}`);
      return notePoint(paxos.points, event.point);
    case "tell_commit":
      if (paxos.leadership !== null) tellCommit(paxos, paxos.leadership);
      return;
    case "configure":
      return configure(paxos, event);
    case "compacted":
      invariant(event.index <= paxos.points.latest.index, `compacting at ${event.index}, which is not applied`);
      paxos.configurations = configurationsFrom(paxos, event.index);
      return compactSlots(paxos.slots, event.index);
    case "snapshot_sent":
      return handleSnapshotEnd(paxos, event.to, event.index);
    case "snapshot_failed":
      return handleSnapshotEnd(paxos, event.to, null);
    case "transfer":
      return startTransfer(paxos, event.to);
    case "step_down":
      if (paxos.leadership === null) return;
      handOver(paxos, paxos.leadership);
      return becomeFollower(paxos, paxos.hardState.epoch, null);
    case "voting":
      paxos.voting = event.allowed;
      // One that lost its promises can neither lead nor win what it asked for.
      if (!event.allowed && paxos.role !== "follower") becomeFollower(paxos, paxos.hardState.epoch, null);
      return;
  }
}

function handleMessage(paxos: Paxos, from: ReplicaId, message: PaxosMessage): void {
  if (from === paxos.id) return;
  switch (message.kind) {
    case "prepare":
    case "accept":
    case "heartbeat":
    case "hand_over":
    case "halt":
      return handleProposer(paxos, from, message);
    case "promise":
      return handlePromise(paxos, from, message);
    case "removed":
      return handleRemoved(paxos, message);
    case "accepted":
    case "gap":
    case "heartbeat_reply":
    case "refused":
      if (message.epoch > paxos.hardState.epoch) return answeredFromLater(paxos, from, message.epoch);
      if (message.kind === "accepted") return handleAccepted(paxos, from, message);
      if (message.kind === "gap") return handleGap(paxos, from, message);
      if (message.kind === "heartbeat_reply") return handleHeartbeatReply(paxos, from, message);
      return;
  }
}

function handleProposer(
  paxos: Paxos,
  from: ReplicaId,
  message: Extract<PaxosMessage, { kind: "prepare" | "accept" | "heartbeat" | "hand_over" | "halt" }>,
): void {
  const owner = proposerOf(paxos.proposers, message.epoch);
  if (owner !== null && owner !== from) return;
  switch (message.kind) {
    case "prepare":
      return handlePrepare(paxos, from, message);
    case "accept":
      return handleAccept(paxos, from, message);
    case "heartbeat":
      return handleHeartbeat(paxos, from, message);
    case "hand_over":
      return handleHandOver(paxos, from, message);
    case "halt":
      return handleHalt(paxos, from, message);
  }
}

function handlePersisted(paxos: Paxos, token: number): void {
  invariant(token > paxos.persistedToken && token <= paxos.lastToken, `persisted ${token} of ${paxos.lastToken}`);
  paxos.persistedToken = token;
  noteDurable(paxos.slots, token);
  reportOwn(paxos);
  advanceCommit(paxos);
}

function handleLoaded(paxos: Paxos, token: number, entries: readonly Entry[]): void {
  const report = takeReport(paxos, token, entries);
  if (report === null) return takeLoaded(paxos, token, entries);
  if (report.to === paxos.id) takeOwnReport(paxos, report.from, report.entries);
  else sendReport(paxos, report.to, report.from, report.entries);
}

function handleHeartbeatReply(paxos: Paxos, from: ReplicaId, message: HeartbeatReply): void {
  const { leadership } = paxos;
  const progress = leadership?.progress.get(from);
  if (leadership === null || progress === undefined || message.epoch !== paxos.hardState.epoch) return;
  if (message.voting) progress.heard = true;
  else noteUncounted(progress);
  if (progress.leavingAt !== null && message.commit >= progress.leavingAt) {
    leadership.progress.delete(from);
    return;
  }
  progress.probing = false;
  noteRound(paxos, leadership, from, message);
  if (message.applied !== null && comparePoint(paxos.points, progress, message.applied)) {
    settleDifference(paxos, leadership);
  }
  // Whatever was lost on the way shows here: ask where it stands, or tell it again what is chosen.
  const held = message.voting ? Math.min(progress.votingMatch, progress.match) : progress.match;
  const behind = held < paxos.slots.lastIndex || message.commit < Math.min(progress.match, paxos.commit);
  sendAccepts(paxos, leadership, from, progress, behind);
}

function settleDifference(paxos: Paxos, { progress }: Leading): void {
  const { id, points, hardState } = paxos;
  settleDifferences(points, { id, progress }, openConfigurations(paxos), {
    haltLeader: (index) => halt(paxos, `a quorum applied another history up to index ${index}`),
    tell: (to, point) => send(paxos, to, { kind: "halt", epoch: hardState.epoch, point }),
  });
}
