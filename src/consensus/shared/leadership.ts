/**
 * Owns the shape of what exists only while a replica leads, and only in the epoch in which it leads.
 */
import type { LogIndex, ReplicaId } from "../engine.ts";
import type { Progress } from "./progress.ts";

/** Linearizable reads under way (read-index.ts). */
export interface Reads {
  /** Tickets that no round carries yet: the epoch has no commit, or a round is out. */
  waiting: number[];
  /** Oldest first. */
  readonly rounds: { readonly round: number; readonly index: LogIndex; readonly tickets: readonly number[] }[];
  lastRound: number;
  pendingCount: number;
}

/** What exists only while this replica leads; thrown away with the epoch. */
export interface Leadership {
  readonly progress: Map<ReplicaId, Progress>;
  readonly reads: Reads;
  /** Followers by the token of the load that is out for them. */
  readonly loads: Map<number, ReplicaId>;
  heartbeatElapsed: number;
  quorumElapsed: number;
  /** A message of its own has told the commit index since the last tick. */
  toldInTick: boolean;
  transfer: { readonly to: ReplicaId; elapsed: number; told: boolean } | null;
  /** The group's commit index is ours: an entry of this epoch is committed (Raft §5.4.2). */
  committedInEpoch: boolean;
}

export function createLeadership(): Leadership {
  return {
    progress: new Map(),
    reads: { waiting: [], rounds: [], lastRound: 0, pendingCount: 0 },
    loads: new Map(),
    heartbeatElapsed: 0,
    quorumElapsed: 0,
    toldInTick: false,
    transfer: null,
    committedInEpoch: false,
  };
}

/** Takes the answer to a load: for whom it is, if that follower still waits for exactly this one. */
export function takeLoad(
  { loads, progress }: Leadership,
  token: number,
): { readonly id: ReplicaId; readonly progress: Progress } | null {
  const id = loads.get(token);
  loads.delete(token);
  const waiting = id === undefined ? undefined : progress.get(id);
  if (id === undefined || waiting?.loadToken !== token) return null;
  waiting.loadToken = null;
  return { id, progress: waiting };
}
