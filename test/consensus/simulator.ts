/**
 * Owns the seeded simulation of a whole group: one random source decides every delivery, loss, crash and flush, so a
 * seed is a run. Invariants (invariants.ts) are checked at every step. After the storm the group is healed and must
 * commit on every replica.
 */
import type { EngineKind } from "../../src/consensus/engine.ts";
import { raftEngine } from "../../src/consensus/raft/index.ts";
import { change, moveSnapshot, newestLeader, repair } from "./changes.ts";
import { setBack, trouble } from "./faults.ts";
import { check, checkApplied } from "./invariants.ts";
import { answerLoad, apply, appliedOf, flush, type SimMessage, type SimNode, start } from "./node.ts";
import { tellCompactions } from "./snapshots.ts";
import { between, chance, createWorld, isLeader, isPaused, maybeLeader, pick, send, type World } from "./world.ts";

export interface SimulationReport {
  readonly seed: number;
  readonly elections: number;
  readonly commits: number;
  readonly crashes: number;
  readonly reads: number;
  readonly dropped: number;
  readonly removals: number;
  readonly loads: number;
  readonly restores: number;
  readonly compactions: number;
  readonly installs: number;
  /** Machines lost for good. */
  readonly destroyed: number;
  /** Configurations that were chosen after the first. */
  readonly changes: number;
  readonly healSteps: number;
  /** Equal for equal runs. */
  readonly traceHash: number;
}

const HEAL_STEPS_MAX = 20_000;

/** Runs a seed. @throws Error naming the invariant, the seed and the step */
export function simulate(seed: number, steps: number, kind: EngineKind<SimMessage> = raftEngine): SimulationReport {
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
      restores: count.restores,
      compactions: count.compactions,
      installs: count.installs,
      destroyed: count.destroyed,
      changes: ledger.chosen.filter(({ entry }) => entry.kind === "config").length - 1,
      healSteps,
      traceHash: count.hash,
    };
  } catch (error) {
    const folder = kind.name === "raft" ? "" : `${kind.name}/`;
    const replay = `SIM_SEED=${seed} npx vitest run --project unit test/consensus/${folder}simulation.test.ts`;
    throw new Error(`seed ${seed}, step ${world.step}: ${(error as Error).message}\nreplay: ${replay}`, {
      cause: error,
    });
  }
}

/** One random action of the storm. */
function act(world: World): void {
  const { faultRate, replayRate } = world.storm;
  const node = pick(world, world.ids);
  if (chance(world, faultRate / 1000)) return trouble(world, maybeLeader(world, node));
  if (chance(world, replayRate / 1000)) return replay(world);
  if (world.membership && chance(world, world.storm.changeRate / 1000)) return change(world);
  const dice = world.random() * 1000;
  if (dice < 460) deliver(world);
  else if (dice < 640) tick(world, node);
  else if (dice < 820) disk(world, node);
  else if (dice < 880) applySome(world, node);
  else if (dice < 950) propose(world, maybeLeader(world, node));
  else read(world, maybeLeader(world, node));
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
  tellCompactions(node, world.environment);
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

/**
 * Ends all faults and requires that a new entry is applied everywhere, also where the disk was set back. Then sets one
 * more follower back while nobody proposes: it must catch up with the leader that it has. Returns the steps that it took.
 */
function heal(world: World): number {
  world.calm = true;
  world.blocked.clear();
  world.pausedUntil.clear();
  world.slowUntil.clear();
  for (const node of world.nodes.values()) {
    if (node.engine === null) start(node, world.environment);
    node.disk.voting = node.lost === null;
    send(world, node, { kind: "voting", allowed: node.disk.voting });
  }
  const goal = world.ledger.chosen.length + 3;
  const steps = settle(world, goal, true);
  const follower = [...members(world)].find((node) => !isLeader(node) && setBack(world, node));
  if (follower === undefined) return steps;
  start(follower, world.environment);
  return steps + settle(world, goal, false);
}

/** The replicas that must get everything: those of the newest leader's configuration, or all when nothing changes. */
function members(world: World): readonly SimNode[] {
  const nodes = [...world.nodes.values()];
  const status = world.membership ? newestLeader(world)?.engine.status() : undefined;
  if (status === undefined) return nodes;
  const { voters, votersOutgoing, learners } = status.configuration;
  return nodes.filter(({ id }) => [...voters, ...votersOutgoing, ...learners].includes(id));
}

/** Runs without faults until every member has applied `goal`. */
function settle(world: World, goal: number, proposing: boolean): number {
  for (let i = 0; i < HEAL_STEPS_MAX; i += 1) {
    world.step += 1;
    const node = world.nodes.get(world.ids[i % world.ids.length] as string) as SimNode;
    if (i % 24 < world.ids.length) tick(world, node);
    tellCompactions(node, world.environment);
    flush(node, world.environment);
    load(world, node, false);
    apply(node, world.environment);
    checkApplied(world.ledger, node);
    for (let n = 0; n < 3; n += 1) deliver(world);
    moveSnapshot(world, node);
    const repaired = i % 40 === 0 ? repair(world) : false;
    const proposes = proposing && i % 50 === 0;
    if (proposes) for (const each of world.nodes.values()) if (isLeader(each)) propose(world, each);
    if (repaired && members(world).every((each) => appliedOf(each).index >= goal)) return i;
  }
  const where = [...world.nodes.values()]
    .map((node) => `${node.id} ${JSON.stringify(node.engine?.status())}`)
    .join("\n");
  check(false, `no progress after healing: goal ${goal}\n${where}`);
}
