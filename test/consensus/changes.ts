/**
 * Owns what operators and shells do to a simulated group: change its members, lose machines for good, compact logs, bring
 * snapshots. The operators know which machines are gone; what they ask for could always recover.
 */
import type { Configuration, MembershipChange, ReplicaId } from "../../src/consensus/engine.ts";
import { membersAfter } from "../../src/consensus/shared/membership.ts";
import { checkApplied } from "./invariants.ts";
import { isQuorum } from "./membership-invariants.ts";
import { appliedOf, crash, delayOf, feed, type SimNode } from "./node.ts";
import { compactTo, install, takeSnapshot, tellCompactions } from "./snapshots.ts";
import { between, chance, isLeader, isPaused, pick, send, type World } from "./world.ts";

const VOTERS_MAX = 5;
const DESTROYED_MAX = 3;
const NOTHING = new Uint8Array(0);

/** One random act of an operator or a shell. */
export function change(world: World): void {
  const node = pick(world, world.ids);
  const dice = world.random();
  if (dice < 0.05) sendUnasked(world, node);
  else if (dice < 0.25) compactSome(world, node);
  else if (dice < 0.6) moveSnapshot(world, node);
  else if (dice < 0.97) configureSomehow(world, anyLeader(world) ?? node);
  else destroy(world, node);
}

/** Sends what is wanted, then lets the oldest arrive. */
export function moveSnapshot(world: World, node: SimNode): void {
  const { environment, shipments } = world;
  const [wanted] = node.snapshotsWanted;
  if (wanted !== undefined && node.engine !== null && !isPaused(world, node.id)) {
    const [to, indexMin] = wanted;
    node.snapshotsWanted.delete(to);
    const index = world.calm ? appliedOf(node).index : between(world, indexMin, appliedOf(node).index + 1);
    // Its own log may begin later by now: such a snapshot is of no use, and the next is asked for.
    const snapshot = takeSnapshot(node, environment, Math.max(index, node.disk.base.index));
    shipments.push({ from: node.id, to, engine: node.engine, snapshot });
    return;
  }
  const shipment = shipments.shift();
  if (shipment === undefined) return;
  const { from, to, engine, snapshot } = shipment;
  const [sender, receiver] = [world.nodes.get(from) as SimNode, world.nodes.get(to) as SimNode];
  const lost = receiver.engine === null || isPaused(world, to) || (!world.calm && chance(world, 0.2));
  if (!lost) {
    if (install(receiver, environment, snapshot, between(world, 0, receiver.writes.length + 1))) {
      world.count.installs += 1;
      world.ledger.commits.set(to, 0);
    }
    checkApplied(world.ledger, receiver);
  }
  // The report reaches only the engine that asked.
  if (sender.engine !== engine) return;
  feed(
    sender,
    environment,
    lost ? { kind: "snapshot_failed", to } : { kind: "snapshot_sent", to, index: snapshot.base.index },
  );
}

/** An operator may bring any replica a snapshot of any other: whatever is applied somewhere is chosen. */
function sendUnasked(world: World, node: SimNode): void {
  const to = pick(world, world.ids).id;
  if (node.engine === null || to === node.id) return;
  const index = between(world, node.disk.base.index, appliedOf(node).index + 1);
  const snapshot = takeSnapshot(node, world.environment, index);
  world.shipments.push({ from: node.id, to, engine: node.engine, snapshot });
}

/** A configuration that could still be in force, or come into force, can elect and commit without these. */
export function survives(world: World, without: ReplicaId): boolean {
  const { chosen, configurations } = world.ledger;
  const inForceUpTo = chosen.length - delayOf(world.environment);
  const newest =
    chosen.findLast(({ entry }) => entry.kind === "config" && entry.index <= inForceUpTo)?.entry.index ?? 0;
  return configurations
    .filter(({ index }) => index >= newest)
    .every(({ configuration }) => isViable(world, configuration, without));
}

/** Takes what is gone for good out of the group, one change at a time. Returns whether nothing is left to do. */
export function repair(world: World): boolean {
  const leader = newestLeader(world);
  if (leader === undefined) return false;
  const { configuration } = leader.engine.status();
  if (!world.membership) return true;
  const { voters, votersOutgoing, learners } = configuration;
  if (votersOutgoing.length > 0) return false;
  const gone = [...voters, ...learners].find((id) => world.nodes.get(id)?.destroyed);
  if (gone === undefined) return true;
  configure(world, leader, { kind: "remove", id: gone });
  return false;
}

/** One that takes itself for the leader: there can be several, of different epochs. */
function anyLeader(world: World): SimNode | undefined {
  const leaders = [...world.nodes.values()].filter(isLeader);
  return leaders[Math.floor(world.random() * leaders.length)];
}

export function newestLeader(
  world: World,
): (SimNode & { readonly engine: NonNullable<SimNode["engine"]> }) | undefined {
  const leaders = [...world.nodes.values()].filter(isLeader) as (SimNode & {
    engine: NonNullable<SimNode["engine"]>;
  })[];
  return leaders.sort((a, b) => b.engine.status().epoch - a.engine.status().epoch)[0];
}

function compactSome(world: World, node: SimNode): void {
  const { base, appliedFlushed } = node.disk;
  // Applied state that a crash could take back is still needed from the log; so is what waits for the disk.
  if (node.engine === null || appliedFlushed <= base.index || node.writes.length > 0) return;
  compactTo(node, world.environment, between(world, base.index + 1, appliedFlushed + 1));
  world.count.compactions += 1;
  if (chance(world, 0.6)) tellCompactions(node, world.environment);
}

function configureSomehow(world: World, node: SimNode): void {
  if (!isLeader(node) || isPaused(world, node.id)) return;
  const before = node.engine?.status().configuration as Configuration;
  const id = pick(world, world.ids).id;
  const learner = pick(world, before.learners.length > 0 ? before.learners : world.ids).id;
  const promote: MembershipChange = { kind: "promote", id: learner };
  const replace: MembershipChange = { kind: "replace", id: pick(world, before.voters).id, by: learner };
  const kinds: readonly MembershipChange[] =
    before.learners.length > 0
      ? [promote, replace, promote, replace, { kind: "remove", id }]
      : [promote, { kind: "remove", id }, { kind: "add_learner", id }, { kind: "add_learner", id }];
  const asked = kinds[Math.floor(world.random() * kinds.length)] as MembershipChange;
  const next = membersAfter(before, asked);
  const viable = next !== null && [before, { ...next, votersOutgoing: [] }].every((each) => isViable(world, each, ""));
  // Nonsense is asked for as well: it is refused.
  if (next !== null && (!viable || next.voters.length > VOTERS_MAX)) return;
  // A leader of Multi-Paxos may propose it later: who asked keeps the machines that it needs until another is in force.
  if (next !== null && delayOf(world.environment) > 0) {
    const index = world.ledger.chosen.length + 1;
    world.ledger.configurations.push({ index, configuration: { ...next, votersOutgoing: [] } });
  }
  configure(world, node, asked);
}

function configure(world: World, node: SimNode, asked: MembershipChange): void {
  world.ticket += 1;
  send(world, node, { kind: "configure", ticket: world.ticket, change: asked, payload: NOTHING });
}

function destroy(world: World, node: SimNode): void {
  const gone = [...world.nodes.values()].filter(({ destroyed }) => destroyed).length;
  if (node.destroyed || gone >= DESTROYED_MAX || !survives(world, node.id)) return;
  crash(node, world.environment, between(world, 0, node.writes.length + 1), appliedOf(node).index);
  world.ledger.commits.set(node.id, 0);
  node.destroyed = true;
  world.count.destroyed += 1;
}

function isViable(world: World, configuration: Configuration, without: ReplicaId): boolean {
  return isQuorum(configuration, (id) => {
    const node = world.nodes.get(id);
    return id !== without && node?.destroyed === false && node.lost === null;
  });
}
