/**
 * Owns how appends leave: batched to the bounds of a message, pipelined up to the follower's window, from the cache
 * or, for a follower that is further behind, from the store through `load` (one at a time for each follower). What the
 * log no longer holds is left to a snapshot (Raft §7): the shell moves it, this follower's appends pause meanwhile.
 */
import type { Entry, LogIndex, ReplicaId } from "../engine.ts";
import { invariant } from "../shared/fault.ts";
import { cachedEntries, epochAt, firstIndex } from "./log-view.ts";
import { awaitSnapshot, canSend, endSnapshot, noteSent, type Progress } from "../shared/progress.ts";
import { type Leadership, takeLoad } from "../shared/leadership.ts";
import { type Raft, send } from "./state.ts";

/** Sends what the window allows; with `probe`, at least an empty append that asks where the follower stands. */
export function sendAppends(
  raft: Raft,
  leadership: Leadership,
  id: ReplicaId,
  progress: Progress,
  probe = false,
): void {
  const { tuning, log } = raft;
  if (progress.mode === "snapshot") return;
  const bounds = { appendsMax: tuning.inflightAppendsMax, appendBytesMax: tuning.appendBytesMax };
  let sent = false;
  while (progress.next <= log.lastIndex && canSend(progress, bounds)) {
    const entries = cachedEntries(log, progress.next, log.lastIndex, {
      entriesMax: tuning.appendEntriesMax,
      bytesMax: tuning.appendBytesMax,
    });
    if (progress.next < firstIndex(log)) return requestSnapshot(raft, id, progress);
    if (entries === null && progress.mode === "replicate") return requestLoad(raft, leadership, id, progress);
    // While it is searched where the follower stands, nothing is read from the store: an empty append asks as well.
    sendAppend(raft, id, progress, entries ?? []);
    sent = true;
  }
  if (!probe || sent || progress.loadToken !== null) return;
  if (progress.next < firstIndex(log)) requestSnapshot(raft, id, progress);
  else sendAppend(raft, id, progress, []);
}

/** `id` has installed a snapshot of `index`, or not (null). */
export function handleSnapshotEnd(raft: Raft, id: ReplicaId, index: LogIndex | null): void {
  const progress = raft.leadership?.progress.get(id);
  // It got there in another way, or this leader is not the one that asked.
  if (raft.leadership === null || progress?.mode !== "snapshot") return;
  endSnapshot(progress, index === null ? null : Math.min(index, raft.log.lastIndex) + 1);
  if (index !== null) sendAppends(raft, raft.leadership, id, progress, true);
}

/** The store's answer to a load: goes to the follower that it was for. */
export function handleLoaded(raft: Raft, token: number, entries: readonly Entry[]): void {
  const { leadership, log } = raft;
  const load = leadership && takeLoad(leadership, token);
  if (!load) return;
  const { id, progress } = load;
  const usable = entries.every(
    (entry, i) => entry.index === progress.next + i && epochAt(log, entry.index) === entry.epoch,
  );
  if (!usable || entries.length === 0) return;
  sendAppend(raft, id, progress, entries.slice(0, raft.tuning.appendEntriesMax));
  sendAppends(raft, leadership, id, progress);
}

/** The follower stays where it is; its next heartbeat reply tries again. */
export function handleLoadFailed({ leadership }: Raft, token: number): void {
  if (leadership !== null) takeLoad(leadership, token);
}

function sendAppend(raft: Raft, id: ReplicaId, progress: Progress, entries: readonly Entry[]): void {
  const previousIndex = progress.next - 1;
  const previousEpoch = epochAt(raft.log, previousIndex);
  invariant(previousEpoch !== null, `an append to ${id} after ${previousIndex}, which the log does not know`);
  let bytes = 0;
  for (const entry of entries) bytes += entry.payload.byteLength;
  noteSent(progress, entries.length, bytes);
  progress.commitTold = raft.commit;
  const { epoch } = raft.hardState;
  send(raft, id, { kind: "append", epoch, previousIndex, previousEpoch, commit: raft.commit, entries });
}

function requestSnapshot(raft: Raft, id: ReplicaId, progress: Progress): void {
  awaitSnapshot(progress);
  raft.out.push({ kind: "send_snapshot", to: id, indexMin: raft.log.base.index });
}

function requestLoad(raft: Raft, leadership: Leadership, id: ReplicaId, progress: Progress): void {
  const { log, tuning } = raft;
  raft.lastLoadToken += 1;
  const token = raft.lastLoadToken;
  leadership.loads.set(token, id);
  progress.loadToken = token;
  const to = Math.min(progress.next + tuning.appendEntriesMax, log.cacheFirst) - 1;
  raft.out.push({ kind: "load", token, from: progress.next, to, bytesMax: tuning.appendBytesMax });
}
