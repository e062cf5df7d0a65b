/**
 * Owns the recent points (index, chain) of this replica's applied state, and the verdict when two replicas differ.
 *
 * The one thing to know: the chain hashes the whole history, so equal chains at i prove equal histories up to i, and
 * different chains at i differ at every later index too. The minority halts; nobody truncates anything.
 */
import type { AppliedPoint, Configuration, LogIndex, ReplicaId } from "../engine.ts";
import { hasQuorum } from "./configuration.ts";
import { invariant } from "./fault.ts";
import type { Progress } from "./progress.ts";

const POINTS_MAX = 1024;

export interface Points {
  latest: AppliedPoint;
  /** Oldest first. */
  readonly chains: Map<LogIndex, string>;
}

export function createPoints(applied: AppliedPoint): Points {
  return { latest: applied, chains: new Map([[applied.index, applied.chain]]) };
}

export function notePoint(points: Points, point: AppliedPoint): void {
  invariant(point.index >= points.latest.index, `applied ${point.index} after ${points.latest.index}`);
  points.latest = point;
  points.chains.set(point.index, point.chain);
  if (points.chains.size <= POINTS_MAX) return;
  const oldest = points.chains.keys().next().value;
  if (oldest !== undefined) points.chains.delete(oldest);
}

/** The own point that says most about the peer's: the one at its index, or else the latest. */
export function pointToCompare(points: Points, peer: AppliedPoint | null): AppliedPoint {
  const chain = peer === null ? undefined : points.chains.get(peer.index);
  return peer === null || chain === undefined ? points.latest : { index: peer.index, chain };
}

/** Whether this replica itself can see that it differs from a point. */
export function contradicts(points: Points, point: AppliedPoint): boolean {
  const chain = points.chains.get(point.index);
  return chain !== undefined && chain !== point.chain;
}

/** Takes in a follower's point. Returns true when it is known to differ. */
export function comparePoint(points: Points, progress: Progress, point: AppliedPoint): boolean {
  const chain = points.chains.get(point.index);
  const { differs } = progress;
  if (chain === point.chain) {
    progress.agreedIndex = Math.max(progress.agreedIndex, point.index);
    if (differs !== null && point.index >= differs.index) progress.differs = null;
  } else if (
    chain !== undefined &&
    (differs === null || point.index < differs.index || !points.chains.has(differs.index))
  ) {
    progress.differs = point;
  }
  return progress.differs !== null;
}

/** Who is the minority at `index`: a quorum agrees with the leader there, or differs from it, or it is too early to say. */
function judge(
  configuration: Configuration,
  leader: ReplicaId,
  progress: ReadonlyMap<ReplicaId, Progress>,
  index: LogIndex,
): "others" | "leader" | "open" {
  const agrees = (id: ReplicaId): boolean => id === leader || (progress.get(id)?.agreedIndex ?? 0) >= index;
  const disagrees = (id: ReplicaId): boolean => (progress.get(id)?.differs?.index ?? Infinity) <= index;
  if (hasQuorum(configuration, agrees)) return "others";
  return hasQuorum(configuration, disagrees) ? "leader" : "open";
}

/**
 * Every follower that differs is told once a quorum of each configuration agrees with the leader; a leader that a quorum
 * contradicts is told the index instead.
 */
export function settleDifferences(
  { chains }: Points,
  leader: { readonly id: ReplicaId; readonly progress: ReadonlyMap<ReplicaId, Progress> },
  configurations: readonly Configuration[],
  act: { haltLeader(index: LogIndex): void; tell(id: ReplicaId, point: AppliedPoint): void },
): void {
  for (const [id, { differs }] of leader.progress) {
    if (differs === null) continue;
    const { index } = differs;
    const verdicts = configurations.map((each) => judge(each, leader.id, leader.progress, index));
    if (verdicts.includes("leader")) return act.haltLeader(index);
    const chain = chains.get(index);
    if (chain !== undefined && verdicts.every((verdict) => verdict === "others")) act.tell(id, { index, chain });
  }
}
