/**
 * Owns what a shell does around the log's prefix: compaction, and snapshots from a leader to a follower.
 */
import type { Engine, Entry, LogBase, LogIndex, ReplicaId } from "../../src/consensus/engine.ts";
import type { Placed } from "../../src/consensus/shared/membership.ts";
import { configurationIn } from "./membership-invariants.ts";
import {
  appliedOf,
  crash,
  delayOf,
  type Disk,
  feed,
  type NodeEnvironment,
  type SimMessage,
  type SimNode,
  start,
} from "./node.ts";

export interface Snapshot {
  readonly base: LogBase;
  /** In force at the base, and what may have followed by then. */
  readonly configurations: readonly Placed[];
  /** Stands for the applied state. */
  readonly chains: readonly string[];
}

/** A snapshot under way; `engine` is who asked for it. */
export interface Shipment {
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  readonly engine: Engine<SimMessage>;
  readonly snapshot: Snapshot;
}

/** The applied state at `index`, which the log or its base must still know. */
export function takeSnapshot(node: SimNode, environment: NodeEnvironment, index: LogIndex): Snapshot {
  const { disk } = node;
  const epoch = index === disk.base.index ? disk.base.epoch : (disk.entries[index - 1] as Entry).epoch;
  return {
    base: { index, epoch },
    configurations: configurationsAt(disk, environment, index),
    chains: disk.chains.slice(0, index + 1),
  };
}

/** Drops the log up to `index`; the engine is told at once or later. Applied state below must be safe from a crash. */
export function compactTo(node: SimNode, environment: NodeEnvironment, index: LogIndex): void {
  const { base, configurations } = takeSnapshot(node, environment, index);
  dropPrefix(node, base, configurations);
  node.compactions.push(base);
}

export function tellCompactions(node: SimNode, environment: NodeEnvironment): void {
  for (const base of node.compactions.splice(0)) feed(node, environment, { kind: "compacted", ...base });
}

/**
 * Takes the place of applied state and log, in one transaction, and restarts the engine from there. A log that holds the
 * snapshot's last entry keeps what follows it, any other goes (Raft §7); an acceptor of Multi-Paxos keeps what it accepted
 * above. Returns false when it is no news.
 */
export function install(node: SimNode, environment: NodeEnvironment, snapshot: Snapshot, writesKept: number): boolean {
  const { base, configurations, chains } = snapshot;
  if (base.index <= appliedOf(node).index) return false;
  crash(node, environment, writesKept, appliedOf(node).index);
  const { disk } = node;
  const keeps = environment.kind.name === "paxos" || disk.entries[base.index - 1]?.epoch === base.epoch;
  if (!keeps) disk.entries.length = 0;
  disk.entries.length = Math.max(disk.entries.length, base.index);
  dropPrefix(node, base, configurations);
  disk.chains = [...chains];
  disk.appliedFlushed = base.index;
  if (disk.hardState.epoch < base.epoch) disk.hardState = { epoch: base.epoch, votedFor: null };
  start(node, environment);
  return true;
}

function configurationsAt(disk: Disk, environment: NodeEnvironment, index: LogIndex): readonly Placed[] {
  const at = (upTo: LogIndex): Placed => configurationIn(disk, disk.entries, environment.configuration, upTo);
  const inForce = at(index - delayOf(environment));
  const placed = [at(index)];
  while ((placed[0]?.index ?? 0) > inForce.index) placed.unshift(at((placed[0]?.index ?? 0) - 1));
  return placed;
}

function dropPrefix({ disk }: SimNode, base: LogBase, configurations: readonly Placed[]): void {
  for (let i = disk.base.index; i < base.index; i += 1) Reflect.deleteProperty(disk.entries, i);
  disk.base = base;
  disk.baseConfigurations = configurations;
}
