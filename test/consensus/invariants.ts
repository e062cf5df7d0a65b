/**
 * Owns the invariants that hold after every step of any run, whatever the faults. They are checked from the outside:
 * from effects, released messages and disks, never from the engine's own state.
 *
 *  I1 one leader per epoch                          I2 a durable vote is write-once in its epoch; the epoch never falls
 *  I3 log matching: (index, epoch) names one entry and one predecessor
 *  I4 leader completeness: a leader holds whatever earlier epochs committed
 *  I5 what commits is on a quorum of durable disks, by brute-force recount
 *  I6 committed entries never change, on any replica, and never leave a disk that holds them
 *  I7 commit never falls within an engine's life     I8 a read's index ≥ everything committed before it was asked
 *  I9 nothing is promised before it is durable: votes, acknowledgements, epochs (content of messages against the disk)
 *  I10 equal applied index, equal chain              I11 no healthy replica halts
 * These are Raft's; those of Multi-Paxos are in paxos/invariants.ts and keep the numbers of what they share.
 */
import type { Effect, Entry, Epoch, LogIndex, ReplicaId } from "../../src/consensus/engine.ts";
import { check, type Ledger } from "./ledger.ts";
import {
  checkBase,
  checkBaseEpoch,
  checkConfigurations,
  checkInForce,
  configurationIn,
  isQuorum,
} from "./membership-invariants.ts";
import { appliedOf, type Persist, type SimMessage, type SimNode } from "./node.ts";

export { check, createLedger, type Ledger } from "./ledger.ts";

/** What one kind of engine is held to: at every effect, message that leaves, and write that reaches a disk. */
export interface InvariantChecks {
  effect(ledger: Ledger, nodes: ReadonlyMap<ReplicaId, SimNode>, node: SimNode, effect: Effect<SimMessage>): void;
  released(ledger: Ledger, node: SimNode, to: ReplicaId, message: SimMessage): void;
  flush(ledger: Ledger, node: SimNode, write: Persist): void;
}

export const raftChecks: InvariantChecks = { effect: checkEffect, released: checkReleased, flush: checkFlush };

function checkEffect(
  ledger: Ledger,
  nodes: ReadonlyMap<ReplicaId, SimNode>,
  node: SimNode,
  effect: Effect<SimMessage>,
): void {
  switch (effect.kind) {
    case "persist":
      checkConfigurations(ledger, node, effect.removeFrom, effect.put);
      return checkLogMatching(ledger, node, effect.removeFrom, effect.put);
    case "commit":
      checkInForce(ledger, node);
      checkBaseEpoch(ledger, node);
      return checkCommit(ledger, nodes, node, effect.index);
    case "status":
      if (effect.status.role === "leader") checkLeader(ledger, node, effect.status.epoch);
      return;
    case "read_ready":
      return checkRead(ledger, effect);
    case "halt":
      throw new Error(`I11 ${node.id} halted: ${effect.reason}`);
    default:
  }
}

/** I9: compares what a message promises with what is on the sender's disk at this moment. */
function checkReleased(ledger: Ledger, node: SimNode, to: ReplicaId, message: SimMessage): void {
  const { hardState, entries } = node.disk;
  if (message.kind === "vote_request" && message.pre) return;
  check(
    message.epoch <= hardState.epoch,
    `I9 ${node.id} speaks for epoch ${message.epoch}, durable is ${hardState.epoch}`,
  );
  if (message.kind === "vote_reply" && message.granted && !message.pre && hardState.epoch === message.epoch) {
    check(hardState.votedFor === to, `I9 ${node.id} votes for ${to}, durable is ${hardState.votedFor}`);
  }
  if (message.kind !== "append_accepted" || hardState.epoch !== message.epoch) return;
  if (message.match <= node.disk.base.index) return;
  const held = entries[message.match - 1];
  const sent = ledger.leaders.get(message.epoch) === to ? ledger.written.get(message.epoch) : undefined;
  check(held !== undefined, `I9 ${node.id} acknowledges ${message.match}, durable are ${entries.length}`);
  // An entry of the leader's epoch at or below the acknowledged index must be the one on the disk.
  if (sent?.has(message.match))
    check(held.epoch === message.epoch, `I9 ${node.id} acknowledges a foreign ${message.match}`);
}

function checkFlush(ledger: Ledger, node: SimNode, write: Persist): void {
  const { hardState: before, entries } = node.disk;
  const after = write.hardState;
  if (after !== null) {
    check(after.epoch >= before.epoch, `I2 ${node.id}: epoch falls from ${before.epoch} to ${after.epoch}`);
    const kept = after.epoch > before.epoch || before.votedFor === null || before.votedFor === after.votedFor;
    check(kept, `I2 ${node.id} votes twice in ${after.epoch}`);
  }
  check((write.removeFrom ?? Infinity) > node.disk.base.index, `I34 ${node.id} removes what it purged`);
  for (let i = (write.removeFrom ?? Infinity) - 1; i < entries.length; i += 1) {
    const chosen = ledger.chosen[i];
    check(chosen?.entry.epoch !== entries[i]?.epoch, `I6 ${node.id} removes committed ${i + 1}`);
  }
}

/** I8 */
export function checkRead(
  ledger: Ledger,
  { ticket, index }: { readonly ticket: number; readonly index: LogIndex },
): void {
  const floor = ledger.readFloors.get(ticket);
  check(floor !== undefined && index >= floor, `I8 read ${ticket} at ${index}, floor ${floor}`);
  ledger.readsDone += 1;
}

export function checkApplied(ledger: Ledger, node: SimNode): void {
  checkBase(node);
  const { index, chain } = appliedOf(node);
  const known = ledger.chains[index];
  if (known !== undefined) check(known === chain, `I10 ${node.id} differs at ${index}`);
  else for (let i = ledger.chains.length; i <= index; i += 1) ledger.chains.push(node.disk.chains[i] as string);
}

function checkLogMatching(ledger: Ledger, node: SimNode, removeFrom: LogIndex | null, put: readonly Entry[]): void {
  const first = put[0];
  if (first === undefined) return;
  const end = Math.min(node.view.length, (removeFrom ?? Infinity) - 1);
  check(first.index === end + 1, `I3 ${node.id} writes ${first.index} after ${end}`);
  const { base } = node.disk;
  let previousEpoch = first.index === base.index + 1 ? base.epoch : (node.view[first.index - 2]?.epoch ?? -1);
  for (const entry of put) {
    let ofEpoch = ledger.written.get(entry.epoch);
    if (ofEpoch === undefined) ledger.written.set(entry.epoch, (ofEpoch = new Map()));
    const known = ofEpoch.get(entry.index);
    if (known === undefined) ofEpoch.set(entry.index, { entry, previousEpoch });
    else {
      check(known.previousEpoch === previousEpoch, `I3 ${node.id}: another entry before ${entry.index}`);
      check(
        known.entry.kind === entry.kind && Buffer.compare(known.entry.payload, entry.payload) === 0,
        `I3 ${node.id}: another entry at ${entry.index} in epoch ${entry.epoch}`,
      );
    }
    previousEpoch = entry.epoch;
  }
}

function checkCommit(ledger: Ledger, nodes: ReadonlyMap<ReplicaId, SimNode>, node: SimNode, index: LogIndex): void {
  const before = ledger.commits.get(node.id) ?? 0;
  check(index >= before, `I7 ${node.id}: commit falls from ${before} to ${index}`);
  ledger.commits.set(node.id, index);
  check(index <= node.view.length, `I7 ${node.id} commits ${index}, its log ends at ${node.view.length}`);
  const known = ledger.chosen.length;
  for (let i = Math.max(before, node.disk.base.index); i < Math.min(index, known); i += 1) {
    check(node.view[i]?.epoch === ledger.chosen[i]?.entry.epoch, `I6 ${node.id} commits another entry ${i + 1}`);
  }
  if (index <= known) return;
  const status = node.engine?.status();
  const leads = status !== undefined && ledger.leaders.get(status.epoch) === node.id;
  check(leads, `I5 ${node.id} commits ${index} first, and does not lead`);
  for (let i = known; i < index; i += 1) ledger.chosen.push({ entry: node.view[i] as Entry, by: status.epoch });
  const epoch = (node.view[index - 1] as Entry).epoch;
  // A disk that was set back did hold it, and its replica never votes again: quorums still meet in another one.
  const holds = (id: ReplicaId): boolean =>
    [nodes.get(id)?.disk.entries, nodes.get(id)?.lost].some((held) => held?.[index - 1]?.epoch === epoch);
  // A configuration is in force from the moment it is in the leader's log; one that this commit led to is not yet.
  const { configuration } = configurationIn(node.disk, node.view, ledger.configuration, node.lastBefore);
  check(isQuorum(configuration, holds), `I5 ${index} is on no quorum of disks: ${JSON.stringify(configuration)}`);
}

function checkLeader(ledger: Ledger, node: SimNode, epoch: Epoch): void {
  const known = ledger.leaders.get(epoch);
  check(known === undefined || known === node.id, `I1 ${known} and ${node.id} lead in epoch ${epoch}`);
  if (known !== undefined) return;
  ledger.leaders.set(epoch, node.id);
  for (let i = ledger.chosen.length - 1; i >= 0; i -= 1) {
    const chosen = ledger.chosen[i];
    if (i < node.disk.base.index) return;
    if (chosen === undefined || chosen.by >= epoch) continue;
    check(node.view[i]?.epoch === chosen.entry.epoch, `I4 ${node.id} leads in ${epoch} without committed ${i + 1}`);
    return;
  }
}
