/**
 * Owns the world of one simulated run: replicas, network, what is blocked, paused or slow, and its one random source.
 */
import type { Configuration, EngineKind, EngineTuning, ReplicaId } from "../../src/consensus/engine.ts";
import { createLedger, type InvariantChecks, type Ledger, raftChecks } from "./invariants.ts";
import {
  createNode,
  decodeConfiguration,
  delayOf,
  encodeConfiguration,
  feed,
  type NodeEnvironment,
  type Persist,
  type SimMessage,
  type SimNode,
} from "./node.ts";
import { paxosChecks } from "./paxos/invariants.ts";
import type { Shipment } from "./snapshots.ts";

/** A seed draws how often each comes (swarm testing: runs with few kinds of fault go deeper). */
export const FAULT_NAMES = [
  "crash",
  "blockOneWay",
  "isolate",
  "recover",
  "pause",
  "slowDisk",
  "transfer",
  "stepDown",
  "toggleVoting",
  "restoreBackup",
] as const;
export type FaultName = (typeof FAULT_NAMES)[number];

const FLIGHTS_MAX = 120;

const ANCIENT_MAX = 40;

/** Replicas that the group's first configuration does not name. */
const SPARES = ["P", "Q", "R"];

export interface Flight {
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  readonly message: SimMessage;
}

export interface World {
  readonly random: () => number;
  readonly storm: Storm;
  readonly nodes: Map<ReplicaId, SimNode>;
  readonly ids: readonly ReplicaId[];
  readonly ledger: Ledger;
  readonly checks: InvariantChecks;
  readonly environment: NodeEnvironment;
  /** Members change, logs are compacted, machines are lost for good. */
  readonly membership: boolean;
  /** Snapshots on their way, oldest first. */
  readonly shipments: Shipment[];
  network: Flight[];
  /** A sample of what was ever sent. */
  readonly ancient: Flight[];
  readonly blocked: Set<string>;
  /** Step until which a replica does nothing at all, and until which its disk completes nothing. */
  readonly pausedUntil: Map<ReplicaId, number>;
  readonly slowUntil: Map<ReplicaId, number>;
  step: number;
  ticket: number;
  calm: boolean;
  readonly count: Counts;
}

export interface Counts {
  crashes: number;
  dropped: number;
  removals: number;
  loads: number;
  restores: number;
  compactions: number;
  installs: number;
  destroyed: number;
  hash: number;
}

export interface Storm {
  /** Each as often as it weighs. */
  readonly faults: readonly FaultName[];
  /** Faults in a thousand actions. */
  readonly faultRate: number;
  readonly dropRate: number;
  readonly replayRate: number;
  /** Changes of members, compactions and moves of snapshots in a thousand actions. */
  readonly changeRate: number;
}

export function createWorld(seed: number, kind: EngineKind<SimMessage>): World {
  const randomU32 = createRandomU32(seed);
  const random = (): number => randomU32() / 2 ** 32;
  const membership = random() < 0.5;
  const shape = configurationOf(kind.name === "paxos" && membership && seed % SHAPES.length === JOINT ? 0 : seed);
  const configuration = membership && random() < 0.7 ? { ...shape, learners: [...shape.learners, "P"] } : shape;
  const members = [...configuration.voters, ...configuration.votersOutgoing, ...configuration.learners];
  const ids = [...new Set([...members, ...(membership ? SPARES : [])])];
  const tuning: EngineTuning = {
    heartbeatTicks: 1,
    electionTicksMin: 4,
    electionTicksMax: 8,
    // Wider where learners have to catch up.
    appendEntriesMax: membership ? 10 : 3,
    appendBytesMax: membership ? 700 : 64,
    inflightAppendsMax: 3,
    proposalsInFlightMax: 24,
    // The shortest pipelines see the most changes.
    alpha: !membership ? 24 : Math.floor(seed / SHAPES.length) % 2 === 0 ? 12 : 3,
    logCacheBytesMax: random() < 0.5 ? 900 : 5_000,
    randomU32,
    decodeConfiguration,
    ...(membership ? { encodeConfiguration } : {}),
  };
  const world: World = {
    random,
    storm: drawStorm(random),
    nodes: new Map(ids.map((id) => [id, createNode(id)])),
    ids,
    ledger: createLedger(configuration),
    checks: kind.name === "raft" ? raftChecks : paxosChecks(configuration, delayOf({ kind, tuning })),
    environment: {
      kind,
      tuning,
      configuration,
      released: (node, to, message) => release(world, node, to, message),
      effect: (node, effect) => {
        mix(world, effect.kind.length * 31 + node.id.charCodeAt(0));
        if (effect.kind === "persist" && rewrites(node, effect)) world.count.removals += 1;
        if (effect.kind === "load") world.count.loads += 1;
        world.checks.effect(world.ledger, world.nodes, node, effect);
      },
      flushing: (node, write) => world.checks.flush(world.ledger, node, write),
    },
    membership,
    shipments: [],
    network: [],
    ancient: [],
    blocked: new Set(),
    pausedUntil: new Map(),
    slowUntil: new Map(),
    step: 0,
    ticket: 0,
    calm: false,
    count: {
      crashes: 0,
      dropped: 0,
      removals: 0,
      loads: 0,
      restores: 0,
      compactions: 0,
      installs: 0,
      destroyed: 0,
      hash: 0,
    },
  };
  return world;
}

export function drawStorm(random: () => number): Storm {
  const draw = <T>(choices: readonly T[]): T => choices[Math.floor(random() * choices.length)] as T;
  const faults: FaultName[] = ["recover", "recover"];
  for (const fault of FAULT_NAMES) {
    const weight = draw([0, 0, 1, 3]);
    for (let n = 0; n < weight; n += 1) faults.push(fault);
  }
  return {
    faults,
    faultRate: draw([4, 10, 30]),
    dropRate: draw([0, 0.02, 0.1]),
    replayRate: draw([0, 10, 40]),
    changeRate: draw([30, 100, 200]),
  };
}

/** Position of the joint configuration: Multi-Paxos can be given one, and cannot change it. */
const JOINT = 2;
const SHAPES: readonly Configuration[] = [
  { voters: ["A", "B", "C"], votersOutgoing: [], learners: [] },
  { voters: ["A", "B", "C", "D", "E"], votersOutgoing: [], learners: [] },
  { voters: ["A", "B", "C"], votersOutgoing: ["C", "D", "E"], learners: [] },
  { voters: ["A", "B", "C"], votersOutgoing: [], learners: ["L"] },
  { voters: ["A", "B", "C"], votersOutgoing: [], learners: [] },
  { voters: ["A"], votersOutgoing: [], learners: [] },
];

/** 1, 3 and 5 voters, a joint configuration, and voters with a learner. */
export function configurationOf(seed: number): Configuration {
  return SHAPES[seed % SHAPES.length] as Configuration;
}

/** Mulberry32: uniform 32-bit integers. */
export function createRandomU32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

function release(world: World, node: SimNode, to: ReplicaId, message: SimMessage): void {
  world.checks.released(world.ledger, node, to, message);
  mix(world, message.epoch * 17 + message.kind.length);
  const lost = world.network.length >= FLIGHTS_MAX || (!world.calm && chance(world, world.storm.dropRate));
  if (lost || world.blocked.has(node.id + to)) {
    world.count.dropped += 1;
    return;
  }
  // Every eighth message goes through its bytes.
  const { kind } = world.environment;
  const seen = world.count.hash % 8 === 0 ? kind.decodeMessage(kind.encodeMessage(message)) : message;
  const flight = { from: node.id, to, message: seen };
  world.network.push(flight);
  if (world.calm) return;
  if (chance(world, 0.05)) world.network.push(flight);
  if (chance(world, 0.1)) world.ancient[Math.floor(world.random() * ANCIENT_MAX)] = flight;
}

/** Something that was in the log goes, or gives way to another entry. */
function rewrites(node: SimNode, { removeFrom, put }: Persist): boolean {
  return removeFrom !== null || (put[0]?.index ?? Infinity) <= node.view.length;
}

export function send(world: World, node: SimNode, event: Parameters<typeof feed>[2]): void {
  feed(node, world.environment, event);
}

export function isLeader(node: SimNode): boolean {
  return node.engine?.status().role === "leader";
}

/** Half the time one that takes itself for the leader: there can be several, of different epochs. */
export function maybeLeader(world: World, node: SimNode): SimNode {
  if (chance(world, 0.5)) return node;
  const leaders = [...world.nodes.values()].filter(isLeader);
  return leaders[Math.floor(world.random() * leaders.length)] ?? node;
}

export function isPaused(world: World, id: ReplicaId): boolean {
  return (world.pausedUntil.get(id) ?? 0) > world.step;
}

export function pick(world: World, ids: readonly ReplicaId[]): SimNode {
  return world.nodes.get(ids[Math.floor(world.random() * ids.length)] as string) as SimNode;
}

export function chance(world: World, probability: number): boolean {
  return world.random() < probability;
}

/** In [from, to). */
export function between(world: World, from: number, to: number): number {
  return from + Math.floor(world.random() * (to - from));
}

export function mix(world: World, value: number): void {
  world.count.hash = Math.imul(world.count.hash ^ value, 0x01000193) >>> 0;
}
