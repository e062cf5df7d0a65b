/**
 * Owns how appends leave: batched to the bounds of a message, pipelined up to the follower's window, from the cache
 * or, for a follower that is further behind, from the store through `load` (one at a time for each follower).
 */
import type { Entry, ReplicaId } from "../engine.ts";
import { cachedEntries, epochAt, firstIndex } from "./log-view.ts";
import { canSend, noteSent, type Progress } from "./progress.ts";
import type { Leadership } from "./leadership.ts";
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
  const bounds = { appendsMax: tuning.inflightAppendsMax, appendBytesMax: tuning.appendBytesMax };
  let sent = false;
  while (progress.next <= log.lastIndex && canSend(progress, bounds)) {
    const entries = cachedEntries(log, progress.next, log.lastIndex, {
      entriesMax: tuning.appendEntriesMax,
      bytesMax: tuning.appendBytesMax,
    });
    if (entries === null && progress.mode === "replicate") return requestLoad(raft, leadership, id, progress);
    // While it is searched where the follower stands, nothing is read from the store: an empty append asks as well.
    if (!sendAppend(raft, id, progress, entries ?? [])) return;
    sent = true;
  }
  if (probe && !sent && progress.loadToken === null) sendAppend(raft, id, progress, []);
}

/** The store's answer to a load: goes to the follower that it was for, if it still waits for exactly that. */
export function handleLoaded(raft: Raft, token: number, entries: readonly Entry[]): void {
  const { leadership, log } = raft;
  const id = leadership?.loads.get(token);
  if (leadership === null || id === undefined) return;
  leadership.loads.delete(token);
  const progress = leadership.progress.get(id);
  if (progress?.loadToken !== token) return;
  progress.loadToken = null;
  const usable = entries.every(
    (entry, i) => entry.index === progress.next + i && epochAt(log, entry.index) === entry.epoch,
  );
  if (!usable || entries.length === 0) return;
  sendAppend(raft, id, progress, entries.slice(0, raft.tuning.appendEntriesMax));
  sendAppends(raft, leadership, id, progress);
}

/** The follower stays where it is; its next heartbeat reply tries again. */
export function handleLoadFailed(raft: Raft, token: number): void {
  const id = raft.leadership?.loads.get(token);
  if (raft.leadership === null || id === undefined) return;
  raft.leadership.loads.delete(token);
  const progress = raft.leadership.progress.get(id);
  if (progress?.loadToken === token) progress.loadToken = null;
}

function sendAppend(raft: Raft, id: ReplicaId, progress: Progress, entries: readonly Entry[]): boolean {
  const previousIndex = progress.next - 1;
  const previousEpoch = epochAt(raft.log, previousIndex);
  if (previousEpoch === null || progress.next < firstIndex(raft.log)) {
    // It is behind the first entry that the log holds, and appends cannot bring it here. Asked again from the end, once
    // a heartbeat: somebody may give it what it lacks.
    progress.next = raft.log.lastIndex + 1;
    return false;
  }
  let bytes = 0;
  for (const entry of entries) bytes += entry.payload.byteLength;
  noteSent(progress, entries.length, bytes);
  const { epoch } = raft.hardState;
  send(raft, id, { kind: "append", epoch, previousIndex, previousEpoch, commit: raft.commit, entries });
  return true;
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
