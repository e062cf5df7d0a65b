/**
 * Owns one simulated replica: an engine, the disk under it, and the shell's ordering rules between them.
 *
 * The disk is the only thing that survives `crash`. Writes queue until `flush`; a crash keeps only a prefix of them.
 * Whoever drives the node decides when it flushes, applies, loads, and where released messages go.
 */
import type {
  AppliedPoint,
  Configuration,
  Effect,
  Engine,
  EngineEvent,
  EngineKind,
  EngineTuning,
  Entry,
  EpochRun,
  HardState,
  LogBase,
  LogIndex,
  ReplicaId,
} from "../../src/consensus/engine.ts";
import { ALPHA } from "../../src/consensus/paxos/quorums.ts";
import type { PaxosMessage } from "../../src/consensus/paxos/index.ts";
import type { RaftMessage } from "../../src/consensus/raft/index.ts";
import type { Placed } from "../../src/consensus/shared/membership.ts";

/** A run has one kind of engine; whoever drives it need not know which. */
export type SimMessage = RaftMessage | PaxosMessage;
export type Persist = Extract<Effect<SimMessage>, { kind: "persist" }>;
type Send = Extract<Effect<SimMessage>, { kind: "send" }>;
type Load = Extract<Effect<SimMessage>, { kind: "load" }>;

/** What survives a crash. `entries[i]` has index i + 1; up to `base` a snapshot holds it, and the entries are holes. */
export interface Disk {
  base: LogBase;
  /** In force at `base`, and what may have followed by then; none: the group's first. */
  baseConfigurations: readonly Placed[];
  hardState: HardState;
  entries: Entry[];
  /** Chain after each applied index; `chains[0]` is before the first. */
  chains: string[];
  /** Applies below this cannot be lost any more. */
  appliedFlushed: LogIndex;
  voting: boolean;
}

export interface SimNode {
  readonly id: ReplicaId;
  readonly disk: Disk;
  /** An older state of the disk, to be restored. */
  backup: Disk;
  /** What the disk held when it was set back; it never votes again. Null: it never was. */
  lost: readonly Entry[] | null;
  engine: Engine<SimMessage> | null;
  writes: Persist[];
  gated: Send[];
  loads: Load[];
  /** Followers that the engine wants a snapshot brought to. */
  snapshotsWanted: Map<ReplicaId, LogIndex>;
  /** Bases that the engine is not told of yet. */
  compactions: LogBase[];
  /** The machine is gone for good. */
  destroyed: boolean;
  reportedToken: number;
  commit: LogIndex;
  /** The log as the engine sees it: the disk with every queued write on top; and its end before the step under way. */
  view: Entry[];
  lastBefore: LogIndex;
}

export interface NodeEnvironment {
  readonly kind: EngineKind<SimMessage>;
  readonly tuning: EngineTuning;
  readonly configuration: Configuration;
  /** A message leaves: everything it waits for is on the disk. */
  released(node: SimNode, to: ReplicaId, message: SimMessage): void;
  /** Every effect, in order, before it is carried out. */
  effect(node: SimNode, effect: Effect<SimMessage>): void;
  /** A write reaches the disk, before it changes it. */
  flushing(node: SimNode, write: Persist): void;
}

/** How many slots after its own a configuration takes force. */
export function delayOf({ kind, tuning }: Pick<NodeEnvironment, "kind" | "tuning">): number {
  return kind.name === "paxos" ? (tuning.alpha ?? ALPHA) : 0;
}

export function createNode(id: ReplicaId): SimNode {
  const disk: Disk = {
    base: { index: 0, epoch: 0 },
    baseConfigurations: [],
    hardState: { epoch: 0, votedFor: null },
    entries: [],
    chains: ["start"],
    appliedFlushed: 0,
    voting: true,
  };
  const backup = copyOf(disk);
  return {
    id,
    disk,
    backup,
    lost: null,
    engine: null,
    writes: [],
    gated: [],
    loads: [],
    snapshotsWanted: new Map(),
    compactions: [],
    destroyed: false,
    reportedToken: 0,
    commit: 0,
    view: [],
    lastBefore: 0,
  };
}

export function copyOf(disk: Disk): Disk {
  return { ...disk, entries: [...disk.entries], chains: [...disk.chains] };
}

/** Sets a crashed replica's disk back to its backup: from now on it neither votes nor counts. */
export function restore(node: SimNode): void {
  const held = node.disk.entries;
  node.lost = [...held, ...(node.lost ?? []).slice(held.length)];
  Object.assign(node.disk, copyOf(node.backup), { voting: false });
}

export function encodeConfiguration(configuration: Configuration): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(configuration));
}

export function decodeConfiguration(payload: Uint8Array): Configuration {
  return JSON.parse(new TextDecoder().decode(payload)) as Configuration;
}

export function start(node: SimNode, environment: NodeEnvironment): void {
  if (node.destroyed) return;
  const { disk } = node;
  const first = { index: 0, configuration: environment.configuration };
  const held = disk.entries.slice(disk.base.index);
  node.view = [...disk.entries];
  node.commit = appliedOf(node).index;
  node.engine = environment.kind.create(
    {
      id: node.id,
      hardState: disk.hardState,
      lastIndex: disk.entries.length,
      epochRuns: runsOf(held),
      base: disk.base,
      applied: appliedOf(node),
      configurations: [
        ...(disk.baseConfigurations.length > 0 ? disk.baseConfigurations : [first]),
        ...held
          .filter((entry) => entry.kind === "config")
          .map(({ index, payload }) => ({ index, configuration: decodeConfiguration(payload) })),
      ],
      genesis: encodeConfiguration(environment.configuration),
      voting: disk.voting,
    },
    environment.tuning,
  );
}

/** Loses everything but the disk, where the first `writesKept` queued writes still arrive unreported. */
export function crash(node: SimNode, environment: NodeEnvironment, writesKept: number, appliedKept: LogIndex): void {
  for (const write of node.writes.slice(0, writesKept)) writeToDisk(node, environment, write);
  node.disk.chains.length = appliedKept + 1;
  node.engine = null;
  node.writes = [];
  node.gated = [];
  node.loads = [];
  node.snapshotsWanted.clear();
  node.compactions = [];
  node.reportedToken = 0;
}

export function feed(node: SimNode, environment: NodeEnvironment, event: EngineEvent<SimMessage>): void {
  const { engine } = node;
  if (engine === null) return;
  node.lastBefore = node.view.length;
  for (const effect of engine.step(event)) {
    environment.effect(node, effect);
    switch (effect.kind) {
      case "persist":
        node.writes.push(effect);
        applyWrite(node.view, effect);
        break;
      case "send":
        if (effect.afterToken === null || effect.afterToken <= node.reportedToken) {
          environment.released(node, effect.to, effect.message);
        } else node.gated.push(effect);
        break;
      case "load":
        node.loads.push(effect);
        break;
      case "commit":
        node.commit = effect.index;
        break;
      case "send_snapshot":
        node.snapshotsWanted.set(effect.to, effect.indexMin);
        break;
      default:
    }
  }
}

/** Makes the first `count` queued writes durable as one transaction, then reports it. */
export function flush(node: SimNode, environment: NodeEnvironment, count = node.writes.length): void {
  const done = node.writes.splice(0, count);
  for (const write of done) writeToDisk(node, environment, write);
  const token = done.at(-1)?.token;
  if (token === undefined) return;
  node.reportedToken = token;
  const ready = node.gated.filter((send) => (send.afterToken ?? 0) <= token);
  node.gated = node.gated.filter((send) => (send.afterToken ?? 0) > token);
  for (const send of ready) environment.released(node, send.to, send.message);
  feed(node, environment, { kind: "persisted", token });
}

/** Applies up to `count` entries that are committed and on the own disk. */
export function apply(node: SimNode, environment: NodeEnvironment, count = Infinity): void {
  const to = Math.min(node.commit, untouchedIndex(node), appliedOf(node).index + count);
  if (to <= appliedOf(node).index) return;
  for (let index = appliedOf(node).index + 1; index <= to; index += 1) {
    node.disk.chains.push(chainAfter(node.disk.chains[index - 1] as string, node.disk.entries[index - 1] as Entry));
  }
  feed(node, environment, { kind: "applied", point: appliedOf(node) });
}

/** Answers the oldest load from the disk, or fails it. */
export function answerLoad(node: SimNode, environment: NodeEnvironment, fail: boolean): void {
  const load = node.loads.shift();
  if (load === undefined) return;
  const entries =
    fail || load.from <= node.disk.base.index ? [] : node.disk.entries.slice(load.from - 1, load.to).slice(0, 4);
  if (entries.length === 0) feed(node, environment, { kind: "load_failed", token: load.token });
  else feed(node, environment, { kind: "loaded", token: load.token, entries });
}

export function appliedOf(node: SimNode): AppliedPoint {
  const index = node.disk.chains.length - 1;
  return { index, chain: node.disk.chains[index] as string };
}

export function runsOf(entries: readonly Entry[]): EpochRun[] {
  const runs: EpochRun[] = [];
  for (const { index, epoch } of entries) {
    if (epoch !== runs.at(-1)?.epoch) runs.push({ epoch, first: index });
  }
  return runs;
}

/** FNV-1a over the chain before, the index, the kind and the payload. */
export function chainAfter(chain: string, entry: Entry): string {
  let hash = 0x811c9dc5;
  const mix = (value: number): void => {
    hash = Math.imul(hash ^ value, 0x01000193) >>> 0;
  };
  for (let i = 0; i < chain.length; i += 1) mix(chain.charCodeAt(i));
  mix(entry.index);
  mix(entry.kind.length);
  for (const byte of entry.payload) mix(byte);
  return hash.toString(16).padStart(8, "0");
}

function writeToDisk(node: SimNode, environment: NodeEnvironment, write: Persist): void {
  environment.flushing(node, write);
  applyWrite(node.disk.entries, write);
  if (write.hardState !== null) node.disk.hardState = write.hardState;
}

function applyWrite(entries: Entry[], write: Persist): void {
  if (write.removeFrom !== null) entries.length = Math.min(entries.length, write.removeFrom - 1);
  for (const entry of write.put) {
    if (entry.index > entries.length + 1) throw new Error(`entry ${entry.index} written after ${entries.length}`);
    entries[entry.index - 1] = entry;
  }
}

/** The disk's entries up to here are what the engine knows: no queued write removes or overwrites one of them. */
function untouchedIndex(node: SimNode): LogIndex {
  let kept = node.disk.entries.length;
  for (const { removeFrom, put } of node.writes) kept = Math.min(kept, (removeFrom ?? put[0]?.index ?? Infinity) - 1);
  return kept;
}
