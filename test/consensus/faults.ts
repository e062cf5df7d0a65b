/**
 * Owns the faults of a simulated run.
 */
import { survives } from "./changes.ts";
import { appliedOf, copyOf, crash, restore, type SimNode } from "./node.ts";
import { between, chance, type FaultName, pick, send, type World } from "./world.ts";

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
  restoreBackup,
} satisfies Record<FaultName, (world: World, node: SimNode) => void>;

export function trouble(world: World, node: SimNode): void {
  const { faults } = world.storm;
  FAULTS[faults[Math.floor(world.random() * faults.length)] as FaultName](world, node);
}

function recover(world: World): void {
  world.blocked.clear();
  for (const node of world.nodes.values()) if (!node.disk.voting) toggleVoting(world, node);
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

function toggleVoting(world: World, node: SimNode): void {
  if (node.lost !== null) return;
  node.disk.voting = !node.disk.voting;
  send(world, node, { kind: "voting", allowed: node.disk.voting });
}

function restoreBackup(world: World, node: SimNode): void {
  if (chance(world, 0.3)) node.backup = copyOf(node.disk);
  else setBack(world, node);
}

/**
 * A database that is set back to an older state, and knows it. Peers refuse what an earlier boot sent, so what is on its
 * way is lost. Does nothing when the voters that would be left could not elect.
 */
export function setBack(world: World, node: SimNode): boolean {
  if (node.destroyed || !survives(world, node.id)) return false;
  crash(node, world.environment, between(world, 0, node.writes.length + 1), appliedOf(node).index);
  restore(node);
  world.ledger.commits.set(node.id, 0);
  world.count.restores += 1;
  world.network = world.network.filter((flight) => flight.from !== node.id);
  // Slots of the sample may be empty.
  const others = Object.values(world.ancient).filter((flight) => flight.from !== node.id);
  world.ancient.splice(0, world.ancient.length, ...others);
  return true;
}
