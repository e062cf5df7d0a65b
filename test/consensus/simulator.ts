/**
 * Owns the seeded simulation of a whole group: one random source decides every delivery, loss, crash and flush, so a
 * seed is a run. Invariants (invariants.ts) are checked at every step. After the storm the group is healed and must
 * commit on every replica.
 */
import type { Configuration, EngineKind, EngineTuning, ReplicaId } from "../../src/consensus/engine.ts";
import { type RaftMessage, raftEngine } from "../../src/consensus/raft/index.ts";
import {
  check,
  checkApplied,
  checkEffect,
  checkFlush,
  checkReleased,
  createLedger,
  type Ledger,
} from "./invariants.ts";
import {
  answerLoad,
  apply,
  appliedOf,
  crash,
  createNode,
  decodeConfiguration,
  feed,
  flush,
  type NodeEnvironment,
  type SimNode,
  start,
} from "./node.ts";

export interface SimulationReport {
  readonly seed: number;
  readonly elections: number;
  readonly commits: number;
  readonly crashes: number;
  readonly reads: number;
  readonly dropped: number;
  readonly removals: number;
  readonly loads: number;
  readonly healSteps: number;
  /** Equal for equal runs. */
  readonly traceHash: number;
}

interface Flight {
  readonly from: ReplicaId;
  readonly to: ReplicaId;
  readonly message: RaftMessage;
}

interface World {
  readonly random: () => number;
  readonly storm: Storm;
  readonly nodes: Map<ReplicaId, SimNode>;
  readonly ids: readonly ReplicaId[];
  readonly ledger: Ledger;
  readonly environment: NodeEnvironment;
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
  readonly count: { crashes: number; dropped: number; removals: number; loads: number; hash: number };
}

const FLIGHTS_MAX = 120;
const ANCIENT_MAX = 40;
const HEAL_STEPS_MAX = 20_000;

/** Runs a seed. @throws Error naming the invariant, the seed and the step */
export function simulate(seed: number, steps: number, kind: EngineKind<RaftMessage> = raftEngine): SimulationReport {
  const world = createWorld(seed, kind);
  try {
    for (const node of world.nodes.values()) start(node, world.environment);
    for (world.step = 0; world.step < steps; world.step += 1) act(world);
    const healSteps = heal(world);
    const { count, ledger } = world;
    return {
      seed,
      elections: ledger.leaders.size,
      commits: ledger.chosen.length,
      crashes: count.crashes,
      reads: ledger.readsDone,
      dropped: count.dropped,
      removals: count.removals,
      loads: count.loads,
      healSteps,
      traceHash: count.hash,
    };
  } catch (error) {
    const replay = `SIM_SEED=${seed} npx vitest run --project unit test/consensus/simulation.test.ts`;
    throw new Error(`seed ${seed}, step ${world.step}: ${(error as Error).message}\nreplay: ${replay}`, {
      cause: error,
    });
  }
}

/** 1, 3 and 5 voters, a joint configuration, and voters with a learner. */
export function configurationOf(seed: number): Configuration {
  const shapes: readonly Configuration[] = [
    { voters: ["A", "B", "C"], votersOutgoing: [], learners: [] },
    { voters: ["A", "B", "C", "D", "E"], votersOutgoing: [], learners: [] },
    { voters: ["A", "B", "C"], votersOutgoing: ["C", "D", "E"], learners: [] },
    { voters: ["A", "B", "C"], votersOutgoing: [], learners: ["L"] },
    { voters: ["A", "B", "C"], votersOutgoing: [], learners: [] },
    { voters: ["A"], votersOutgoing: [], learners: [] },
  ];
  return shapes[seed % shapes.length] as Configuration;
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

function createWorld(seed: number, kind: EngineKind<RaftMessage>): World {
  const randomU32 = createRandomU32(seed);
  const random = (): number => randomU32() / 2 ** 32;
  const configuration = configurationOf(seed);
  const ids = [...new Set([...configuration.voters, ...configuration.votersOutgoing, ...configuration.learners])];
  const tuning: EngineTuning = {
    heartbeatTicks: 1,
    electionTicksMin: 4,
    electionTicksMax: 8,
    appendEntriesMax: 3,
    appendBytesMax: 64,
    inflightAppendsMax: 3,
    proposalsInFlightMax: 24,
    logCacheBytesMax: random() < 0.5 ? 900 : 5_000,
    randomU32,
    decodeConfiguration,
  };
  const world: World = {
    random,
    storm: drawStorm(random),
    nodes: new Map(ids.map((id) => [id, createNode(id)])),
    ids,
    ledger: createLedger(configuration),
    environment: {
      kind,
      tuning,
      configuration,
      released: (node, to, message) => release(world, node, to, message),
      effect: (node, effect) => {
        mix(world, effect.kind.length * 31 + node.id.charCodeAt(0));
        if (effect.kind === "persist" && effect.removeFrom !== null) world.count.removals += 1;
        if (effect.kind === "load") world.count.loads += 1;
        checkEffect(world.ledger, world.nodes, node, effect);
      },
      flushing: (node, write) => checkFlush(world.ledger, node, write),
    },
    network: [],
    ancient: [],
    blocked: new Set(),
    pausedUntil: new Map(),
    slowUntil: new Map(),
    step: 0,
    ticket: 0,
    calm: false,
    count: { crashes: 0, dropped: 0, removals: 0, loads: 0, hash: 0 },
  };
  return world;
}

function release(world: World, node: SimNode, to: ReplicaId, message: RaftMessage): void {
  checkReleased(world.ledger, node, to, message);
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

/** One random action of the storm. */
function act(world: World): void {
  const { faultRate, replayRate } = world.storm;
  const node = pick(world, world.ids);
  if (chance(world, faultRate / 1000)) return trouble(world, maybeLeader(world, node));
  if (chance(world, replayRate / 1000)) return replay(world);
  const dice = world.random() * 1000;
  if (dice < 460) deliver(world);
  else if (dice < 640) tick(world, node);
  else if (dice < 820) disk(world, node);
  else if (dice < 880) applySome(world, node);
  else if (dice < 950) propose(world, maybeLeader(world, node));
  else read(world, maybeLeader(world, node));
}

/** Faults by name; a seed draws how often each comes (swarm testing: runs with few kinds of fault go deeper). */
const FAULTS = {
  crash: crashNode,
  blockOneWay: (world: World, node: SimNode) => void world.blocked.add(node.id + pick(world, world.ids).id),
  isolate,
  recover,
  pause: (world: World, node: SimNode) => void world.pausedUntil.set(node.id, world.step + between(world, 50, 600)),
  slowDisk: (world: World, node: SimNode) => void world.slowUntil.set(node.id, world.step + between(world, 20, 400)),
  transfer: (world: World, node: SimNode) => send(world, node, { kind: "transfer", to: pick(world, world.ids).id }),
  stepDown: (world: World, node: SimNode) => send(world, node, { kind: "step_down", reason: "simulated" }),
  toggleVoting,
} as const satisfies Record<string, (world: World, node: SimNode) => void>;

type Fault = keyof typeof FAULTS;

interface Storm {
  readonly faults: readonly Fault[];
  /** Faults in a thousand actions. */
  readonly faultRate: number;
  readonly dropRate: number;
  readonly replayRate: number;
}

function drawStorm(random: () => number): Storm {
  const draw = <T>(choices: readonly T[]): T => choices[Math.floor(random() * choices.length)] as T;
  const faults: Fault[] = ["recover", "recover"];
  for (const fault of Object.keys(FAULTS) as Fault[]) {
    const weight = draw([0, 0, 1, 3]);
    for (let i = 0; i < weight; i += 1) faults.push(fault);
  }
  return { faults, faultRate: draw([4, 10, 30]), dropRate: draw([0, 0.02, 0.1]), replayRate: draw([0, 10, 40]) };
}

function trouble(world: World, node: SimNode): void {
  const { faults } = world.storm;
  FAULTS[faults[Math.floor(world.random() * faults.length)] as Fault](world, node);
}

function deliver(world: World): void {
  // Mostly the oldest, now and then any: reordering and long delays. Those of a paused replica wait.
  const from = world.calm || chance(world, 0.7) ? 0 : Math.floor(world.random() * world.network.length);
  const at = world.network.findIndex((flight, i) => i >= from && !isPaused(world, flight.to));
  const flight = world.network[at];
  if (flight === undefined) return;
  world.network.splice(at, 1);
  const node = world.nodes.get(flight.to) as SimNode;
  send(world, node, { kind: "message", from: flight.from, message: flight.message });
}

/** A message from long ago arrives again. */
function replay(world: World): void {
  const flight = world.ancient[Math.floor(world.random() * world.ancient.length)];
  if (flight !== undefined && !world.blocked.has(flight.from + flight.to)) world.network.push(flight);
}

function tick(world: World, node: SimNode): void {
  if (!isPaused(world, node.id)) send(world, node, { kind: "tick" });
}

function disk(world: World, node: SimNode): void {
  if (isPaused(world, node.id) || (world.slowUntil.get(node.id) ?? 0) > world.step) return;
  if (node.engine !== null && chance(world, 0.5)) load(world, node, chance(world, 0.2));
  if (node.engine === null) start(node, world.environment);
  else flush(node, world.environment, chance(world, 0.5) ? node.writes.length : 1);
}

function applySome(world: World, node: SimNode): void {
  if (node.engine === null || isPaused(world, node.id)) return;
  apply(node, world.environment, between(world, 1, 6));
  checkApplied(world.ledger, node);
  if (chance(world, 0.3)) node.disk.appliedFlushed = appliedOf(node).index;
}

function propose(world: World, node: SimNode): void {
  const proposals = Array.from({ length: between(world, 1, 5) }, () => {
    world.ticket += 1;
    return { ticket: world.ticket, payload: new Uint8Array([world.ticket, world.ticket >> 8, world.ticket >> 16]) };
  });
  if (!isPaused(world, node.id)) send(world, node, { kind: "propose", proposals });
}

function read(world: World, node: SimNode): void {
  if (isPaused(world, node.id) || node.engine === null) return;
  world.ticket += 1;
  world.ledger.readFloors.set(world.ticket, world.ledger.chosen.length);
  send(world, node, { kind: "read", ticket: world.ticket });
}

function load(world: World, node: SimNode, fail: boolean): void {
  if (node.engine !== null) answerLoad(node, world.environment, fail);
}

function crashNode(world: World, node: SimNode): void {
  if (node.engine === null) return;
  world.count.crashes += 1;
  const { appliedFlushed } = node.disk;
  const appliedKept = between(world, appliedFlushed, appliedOf(node).index + 1);
  const writesKept = between(world, 0, node.writes.length + 1);
  crash(node, world.environment, writesKept, appliedKept);
  world.ledger.commits.set(node.id, 0);
}

function isolate(world: World, node: SimNode): void {
  for (const id of world.ids) {
    world.blocked.add(node.id + id);
    world.blocked.add(id + node.id);
  }
}

function recover(world: World): void {
  world.blocked.clear();
  for (const node of world.nodes.values()) if (!node.disk.voting) toggleVoting(world, node);
}

function toggleVoting(world: World, node: SimNode): void {
  node.disk.voting = !node.disk.voting;
  send(world, node, { kind: "voting", allowed: node.disk.voting });
}

/** Ends all faults and requires that a new entry is applied everywhere. Returns the steps that it took. */
function heal(world: World): number {
  world.calm = true;
  world.blocked.clear();
  world.pausedUntil.clear();
  world.slowUntil.clear();
  for (const node of world.nodes.values()) {
    if (node.engine === null) start(node, world.environment);
    node.disk.voting = true;
    send(world, node, { kind: "voting", allowed: true });
  }
  const goal = world.ledger.chosen.length + 3;
  for (let i = 0; i < HEAL_STEPS_MAX; i += 1) {
    world.step += 1;
    const node = world.nodes.get(world.ids[i % world.ids.length] as string) as SimNode;
    if (i % 24 < world.ids.length) tick(world, node);
    flush(node, world.environment);
    load(world, node, false);
    apply(node, world.environment);
    checkApplied(world.ledger, node);
    for (let n = 0; n < 3; n += 1) deliver(world);
    if (i % 50 === 0) for (const each of world.nodes.values()) if (isLeader(each)) propose(world, each);
    if ([...world.nodes.values()].every((each) => appliedOf(each).index >= goal)) return i;
  }
  const where = [...world.nodes.values()]
    .map((node) => `${node.id} ${JSON.stringify(node.engine?.status())}`)
    .join("\n");
  check(false, `no progress after healing: goal ${goal}\n${where}`);
}

function isLeader(node: SimNode): boolean {
  return node.engine?.status().role === "leader";
}

function send(world: World, node: SimNode, event: Parameters<typeof feed>[2]): void {
  feed(node, world.environment, event);
}

/** Half the time one that takes itself for the leader: there can be several, of different epochs. */
function maybeLeader(world: World, node: SimNode): SimNode {
  if (chance(world, 0.5)) return node;
  const leaders = [...world.nodes.values()].filter(isLeader);
  return leaders[Math.floor(world.random() * leaders.length)] ?? node;
}

function isPaused(world: World, id: ReplicaId): boolean {
  return (world.pausedUntil.get(id) ?? 0) > world.step;
}

function pick(world: World, ids: readonly ReplicaId[]): SimNode {
  return world.nodes.get(ids[Math.floor(world.random() * ids.length)] as string) as SimNode;
}

function chance(world: World, probability: number): boolean {
  return world.random() < probability;
}

/** In [from, to). */
function between(world: World, from: number, to: number): number {
  return from + Math.floor(world.random() * (to - from));
}

function mix(world: World, value: number): void {
  world.count.hash = Math.imul(world.count.hash ^ value, 0x01000193) >>> 0;
}
