/**
 * Owns what an engine's log is held to, as seen from the disks: the interface behind which `raft-rules.ts` and
 * `paxos-rules.ts` count. The checker asks it at every durable write, first application and message that leaves.
 */
import type { Entry, Epoch, LogIndex } from "../../src/consensus/engine.ts";
import { bytesEqual } from "../../src/model/bytes.ts";
import type { MemoryDisk, MemoryState } from "../../src/storage/memory/disk.ts";

export interface Append {
  readonly replica: string;
  readonly disk: MemoryDisk;
  readonly before: MemoryState | null;
  /** The first index that the write touched. */
  readonly from: LogIndex;
  /** What stood there and after it before the write. */
  readonly replaced: readonly Entry[];
}

/** What the checker knows that the rules need. */
export interface RulesWorld {
  check(condition: boolean, message: string): asserts condition;
  /** Do these replicas decide over the slot, in every configuration that has a say? */
  isQuorum(index: LogIndex, replicas: ReadonlySet<string> | undefined): boolean;
  /** What is known to be chosen at an index. */
  chosenAt(index: LogIndex): Entry | undefined;
  healthy(replica: string): boolean;
}

/** A leader as it was first seen: what it knew to be committed when it won. */
export interface Reign {
  readonly epoch: Epoch;
  readonly commit: LogIndex;
}

export interface LogRules<M> {
  /** A write of the log is durable. */
  appended(append: Append): void;
  /** `replica` is the first to apply `entry`; `reign` when it leads: the disks must say that it is chosen. */
  choose(replica: string, entry: Entry, reign: Reign | null): void;
  /** A message between replicas leaves (I9): what it promises is on its sender's disk. */
  leaves(from: string, to: string, disk: MemoryDisk, message: M): void;
  /** A stored entry says what is chosen at its index. */
  isSame(stored: Entry, chosen: Entry): boolean;
}

export function sameValue(a: Entry | undefined, b: Entry | undefined): boolean {
  return a !== undefined && b !== undefined && a.kind === b.kind && bytesEqual(a.payload, b.payload);
}

export function mapIn<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}

/** I2: a durable vote is written once in its epoch, and no epoch falls. */
export function checkHardState({ replica, disk, before }: Append, check: RulesWorld["check"]): void {
  const { hardState: now } = disk.state as MemoryState;
  const old = before?.hardState ?? { epoch: 0, votedFor: null };
  check(now.epoch >= old.epoch, `I2 ${replica}: the durable epoch falls from ${old.epoch} to ${now.epoch}`);
  const kept = now.epoch > old.epoch || old.votedFor === null || old.votedFor === now.votedFor;
  check(kept, `I2 ${replica}: the vote of epoch ${now.epoch} changes from ${old.votedFor} to ${now.votedFor}`);
}
