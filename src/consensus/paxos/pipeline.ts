/**
 * Owns how accepts leave: in slot order, batched to the bounds of a message, pipelined up to the follower's window, from
 * the cache or, for a follower that is further behind, from the store through `load` (one at a time for each follower).
 *
 * The one thing to know: a chosen value may be proposed again in the leader's ballot, it is what phase 1 would find. So
 * catching up is the same accept as everything else, with the same acknowledgement.
 */
import type { Entry, LogIndex, ReplicaId } from "../engine.ts";
import { takeLoad } from "../shared/leadership.ts";
import { awaitSnapshot, canSend, endSnapshot, noteSent, type Progress } from "../shared/progress.ts";
import { cachedEntries, nextCached } from "./slots.ts";
import { type Leading, type Paxos, requestLoad, send } from "./state.ts";

const NO_BOUNDS = { appendsMax: Infinity, appendBytesMax: Infinity };

/** Sends what the window allows; with `probe`, at least an empty accept that asks where the follower stands. */
export function sendAccepts(paxos: Paxos, leadership: Leading, id: ReplicaId, progress: Progress, probe = false): void {
  const { tuning, slots } = paxos;
  if (progress.mode === "snapshot") return;
  // Its next slot is not in the log any more: the shell moves a snapshot, accepts pause meanwhile.
  if (progress.next <= slots.baseIndex && (probe || canSend(progress, NO_BOUNDS))) {
    awaitSnapshot(progress);
    paxos.out.push({ kind: "send_snapshot", to: id, indexMin: slots.baseIndex });
    return;
  }
  const bounds = { appendsMax: tuning.inflightAppendsMax, appendBytesMax: tuning.appendBytesMax };
  let sent = false;
  while (progress.next <= slots.lastIndex && canSend(progress, bounds)) {
    const entries = cachedEntries(slots, progress.next, slots.lastIndex, {
      entriesMax: tuning.appendEntriesMax,
      bytesMax: tuning.appendBytesMax,
    });
    if (entries === null && progress.mode === "replicate") {
      const last = Math.min(progress.next + tuning.appendEntriesMax, nextCached(slots, progress.next)) - 1;
      progress.loadToken = requestLoad(paxos, progress.next, last);
      leadership.loads.set(progress.loadToken, id);
      return;
    }
    // While it is searched where the follower stands, nothing is read from the store: an empty accept asks as well.
    sendAccept(paxos, id, progress, entries ?? []);
    sent = true;
  }
  if (probe && !sent && progress.loadToken === null) sendAccept(paxos, id, progress, []);
}

/** `id` has installed a snapshot of `index`, or not (null). */
export function handleSnapshotEnd(paxos: Paxos, id: ReplicaId, index: LogIndex | null): void {
  const progress = paxos.leadership?.progress.get(id);
  // It got there in another way, or this leader is not the one that asked.
  if (paxos.leadership === null || progress?.mode !== "snapshot") return;
  endSnapshot(progress, index === null ? null : index + 1);
  if (index !== null) sendAccepts(paxos, paxos.leadership, id, progress, true);
}

/** The store's answer to a load: goes to the follower that it was for. */
export function takeLoaded(paxos: Paxos, token: number, entries: readonly Entry[]): void {
  const { leadership } = paxos;
  const load = leadership && takeLoad(leadership, token);
  if (!load) return;
  const { id, progress } = load;
  if (entries.length === 0 || entries.some(({ index }, i) => index !== progress.next + i)) return;
  sendAccept(paxos, id, progress, entries.slice(0, paxos.tuning.appendEntriesMax));
  sendAccepts(paxos, leadership, id, progress);
}

/** The follower stays where it is; its next heartbeat reply tries again. */
export function forgetLoad({ leadership }: Paxos, token: number): void {
  if (leadership !== null) takeLoad(leadership, token);
}

function sendAccept(paxos: Paxos, id: ReplicaId, progress: Progress, held: readonly Entry[]): void {
  const previousIndex = progress.next - 1;
  const { epoch } = paxos.hardState;
  let bytes = 0;
  for (const entry of held) bytes += entry.payload.byteLength;
  noteSent(progress, held.length, bytes);
  progress.commitTold = paxos.commit;
  const entries = held.map((entry) => (entry.epoch === epoch ? entry : { ...entry, epoch }));
  send(paxos, id, { kind: "accept", epoch, previousIndex, commit: paxos.commit, entries });
}
