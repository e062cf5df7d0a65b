/**
 * Owns the leader's half of log replication: append, pipeline, back off, commit (Raft §5.3, §5.4.2).
 *
 * The one thing to know: an entry commits when a quorum holds it durably AND it is of the leader's own epoch; entries
 * of earlier epochs commit only underneath one (Figure 8). The leader counts itself by its own durable index.
 */
import type { Entry, LogIndex, Proposal, RejectReason, ReplicaId } from "../engine.ts";
import { membersOf, quorumValue } from "../shared/configuration.ts";
import { epochAt, lastIndexOfEpochUpTo, unwrittenBytes } from "./log-view.ts";
import type { AppendAccepted, AppendRejected } from "./messages.ts";
import { sendAppends } from "./pipeline.ts";
import { backOff, createProgress, endSnapshot, noteAccepted, noteUncounted } from "../shared/progress.ts";
import { noteCommit, startWaitingReads } from "./read-index.ts";
import type { Leadership } from "../shared/leadership.ts";
import { configurationsIn } from "../shared/membership.ts";
import { activeConfiguration, halt, type Raft, setCommit, writeEntries } from "./state.ts";
import { advanceTransfer } from "./transfer.ts";

type Rejection = Extract<RejectReason, "not_leader" | "overloaded" | "transferring">;

/** Takes proposals in order: each is accepted at an index of this epoch, or rejected. */
export function propose(raft: Raft, proposals: readonly Proposal[]): void {
  const { leadership, log, tuning } = raft;
  const reject = (proposal: Proposal, reason: Rejection): void => {
    raft.out.push({ kind: "rejected", ticket: proposal.ticket, reason, leader: raft.leader });
  };
  if (leadership === null) return proposals.forEach((proposal) => reject(proposal, "not_leader"));
  if (leadership.transfer !== null) return proposals.forEach((proposal) => reject(proposal, "transferring"));
  const inFlight = log.lastIndex - raft.points.latest.index;
  const room = unwrittenBytes(log) > tuning.logCacheBytesMax ? 0 : Math.max(0, tuning.proposalsInFlightMax - inFlight);
  const epoch = raft.hardState.epoch;
  const entries: Entry[] = [];
  for (const proposal of proposals) {
    if (entries.length >= room) {
      reject(proposal, "overloaded");
      continue;
    }
    const index = log.lastIndex + entries.length + 1;
    entries.push({ index, epoch, kind: "command", payload: proposal.payload });
    raft.out.push({ kind: "accepted", ticket: proposal.ticket, index, epoch });
  }
  if (entries.length > 0) appendOwn(raft, leadership, entries);
}

/** Appends to the own log and sends at once: the leader's disk works in parallel with the network (thesis §10.2.1). */
export function appendOwn(raft: Raft, leadership: Leadership, entries: readonly Entry[]): void {
  const configurations = configurationsIn(raft.tuning, entries);
  if (configurations === null) return halt(raft, "its own configuration entry cannot be read");
  writeEntries(raft, entries, configurations);
  if (configurations.length > 0) syncMembers(raft, leadership);
  for (const [id, progress] of leadership.progress) sendAppends(raft, leadership, id, progress);
}

/** One progress for every other member of the active configuration, and for those who leave until they know. */
export function syncMembers(raft: Raft, leadership: Leadership): void {
  const members = membersOf(activeConfiguration(raft));
  for (const [id, progress] of leadership.progress) {
    if (members.includes(id)) progress.leavingAt = null;
    else progress.leavingAt ??= raft.log.lastIndex;
  }
  for (const id of members) {
    if (id === raft.id || leadership.progress.has(id)) continue;
    leadership.progress.set(id, createProgress(raft.log.lastIndex));
  }
}

export function handleAppendAccepted(raft: Raft, from: ReplicaId, message: AppendAccepted): void {
  const { leadership, log } = raft;
  const progress = leadership?.progress.get(from);
  // Acknowledgements of other epochs speak of other logs (openraft cecb5de); nobody holds what was never sent.
  if (leadership === null || progress === undefined || message.epoch !== raft.hardState.epoch) return;
  if (message.match > progress.sentMax) return;
  if (message.voting) progress.heard = true;
  else noteUncounted(progress);
  // A snapshot for it is under way, and it got here without.
  if (progress.mode === "snapshot" && message.match >= log.base.index) endSnapshot(progress, message.match + 1);
  const news = noteAccepted(progress, message.match, message.voting);
  if (news) advanceCommit(raft);
  if (raft.leadership === null) return;
  advanceTransfer(raft, leadership);
  sendAppends(raft, leadership, from, progress);
}

export function handleAppendRejected(raft: Raft, from: ReplicaId, message: AppendRejected): void {
  const { leadership, log } = raft;
  const progress = leadership?.progress.get(from);
  if (leadership === null || progress === undefined || message.epoch !== raft.hardState.epoch) return;
  if (message.voting) progress.heard = true;
  else noteUncounted(progress);
  if (progress.mode === "snapshot") return;
  const probing = progress.mode === "probe";
  // Of several appends under way only the answer to the last probe tells where to go on.
  if (probing && message.previousIndex !== progress.next - 1) return;
  const lost = message.previousIndex <= progress.match;
  // A late answer, or it lost what it had acknowledged. Only a replica that says it does not count may start over: what
  // steers replication falls back, and `votingMatch` is 0 already.
  if (lost && message.voting) return;
  if (lost) progress.match = 0;
  const hint = lastIndexOfEpochUpTo(log, message.hintIndex, message.hintEpoch);
  backOff(progress, probing || lost ? Math.min(message.previousIndex, hint + 1) : progress.match + 1);
  sendAppends(raft, leadership, from, progress, true);
}

/** The commit rule (Raft §5.3, §5.4.2). Returns after telling the followers, when the index rose. */
export function advanceCommit(raft: Raft): void {
  const { leadership, log } = raft;
  if (leadership === null) return;
  const index = quorumValue(activeConfiguration(raft), (id) => durableOn(raft, leadership, id));
  if (index <= raft.commit || epochAt(log, index) !== raft.hardState.epoch) return;
  setCommit(raft, index);
  noteCommit(raft, leadership);
  if (leadership.committedInEpoch) return;
  leadership.committedInEpoch = true;
  startWaitingReads(raft, leadership);
}

function durableOn(raft: Raft, leadership: Leadership, id: ReplicaId): LogIndex {
  if (id === raft.id) return raft.voting ? raft.log.durableIndex : 0;
  return leadership.progress.get(id)?.votingMatch ?? 0;
}
