/**
 * Owns the invariants of Multi-Paxos, checked from the outside like Raft's (../invariants.ts) and under the same numbers
 * where they are the same. What is chosen is not asked of any engine: it is counted from what reached the disks.
 *
 *  P1 one value per slot is ever chosen: accepted durably by a quorum in one ballot, by brute force over all disks
 *  P2 one proposer per ballot, and it proposes one value per slot
 *  P3 the promised ballot never falls, and nothing is accepted in another ballot than the promised one
 *  P4 a new leader holds every value that was chosen in a lower ballot
 *  I5 a commit index is announced first by a leader, for slots that are chosen in its ballot
 *  I6 a chosen value never leaves a disk that holds it
 *  I7, I8, I10, I11 as in Raft
 *  I9 nothing is promised before it is durable: ballots, acceptances, and what a promise tells
 */
import type { Entry, Epoch, LogIndex, ReplicaId } from "../../../src/consensus/engine.ts";
import { check, checkRead, type InvariantChecks, type Ledger } from "../invariants.ts";
import { decodeConfiguration, type Persist, type SimMessage, type SimNode } from "../node.ts";

interface Slot {
  /** By ballot: the value proposed, and who has accepted it durably. */
  readonly ballots: Map<Epoch, { readonly entry: Entry; readonly accepted: Set<ReplicaId> }>;
  chosen: { readonly entry: Entry; readonly ballot: Epoch } | null;
}

/** How far back an acknowledgement is compared with the disk: all of it would be quadratic. */
const COMPARED_SLOTS = 40;

export function paxosChecks(): InvariantChecks {
  const slots = new Map<LogIndex, Slot>();
  const proposers = new Map<Epoch, ReplicaId>();
  return {
    effect(ledger, _nodes, node, effect) {
      switch (effect.kind) {
        case "persist":
          noteConfigurations(ledger, effect.put);
          return checkPersist(slots, node, effect);
        case "commit":
          return checkCommit(ledger, slots, node, effect.index);
        case "status":
          if (effect.status.role === "leader") checkLeader(ledger, slots, proposers, node, effect.status.epoch);
          return;
        case "read_ready":
          return checkRead(ledger, effect);
        case "halt":
          throw new Error(`I11 ${node.id} halted: ${effect.reason}`);
        default:
      }
    },
    released: (_ledger, node, _to, message) => checkReleased(slots, node, message),
    flush: (ledger, node, write) => checkFlush(ledger, slots, node, write),
  };
}

function slotAt(slots: Map<LogIndex, Slot>, index: LogIndex): Slot {
  let slot = slots.get(index);
  if (slot === undefined) slots.set(index, (slot = { ballots: new Map(), chosen: null }));
  return slot;
}

export function sameValue(a: Entry | undefined, b: Entry | undefined): boolean {
  return a !== undefined && b !== undefined && a.kind === b.kind && Buffer.compare(a.payload, b.payload) === 0;
}

/** Whoever breaks machines has to know which configurations may decide. */
function noteConfigurations({ configurations }: Ledger, put: readonly Entry[]): void {
  for (const { index, kind, payload } of put) {
    if (kind !== "config" || configurations.some((known) => known.index === index)) continue;
    configurations.push({ index, configuration: decodeConfiguration(payload) });
  }
}

/** P2, P3 */
function checkPersist(slots: Map<LogIndex, Slot>, node: SimNode, { removeFrom, put, hardState }: Persist): void {
  check(removeFrom === null, `P3 ${node.id} removes from ${removeFrom}`);
  const promised = hardState?.epoch ?? node.engine?.status().epoch;
  for (const entry of put) {
    const { index, epoch } = entry;
    check(epoch === promised, `P3 ${node.id} accepts ${index} in ${epoch}, promised is ${promised}`);
    const { ballots } = slotAt(slots, index);
    const known = ballots.get(epoch);
    if (known === undefined) ballots.set(epoch, { entry, accepted: new Set() });
    else check(sameValue(known.entry, entry), `P2 two values for ${index} in ballot ${epoch}`);
  }
}

/** P1, P3, I6 */
function checkFlush(ledger: Ledger, slots: Map<LogIndex, Slot>, node: SimNode, { put, hardState }: Persist): void {
  const before = node.disk.hardState.epoch;
  if (hardState !== null) check(hardState.epoch > before, `P3 ${node.id}: ${hardState.epoch} promised after ${before}`);
  for (const entry of put) {
    const slot = slotAt(slots, entry.index);
    const held = node.disk.entries[entry.index - 1];
    if (slot.chosen !== null && sameValue(held, slot.chosen.entry)) {
      check(sameValue(entry, held), `I6 ${node.id} overwrites chosen ${entry.index}`);
    }
    // A disk that was set back counts no more.
    if (node.lost === null) slot.ballots.get(entry.epoch)?.accepted.add(node.id);
    choose(ledger, slot, entry);
  }
}

function choose(ledger: Ledger, slot: Slot, { index, epoch }: Entry): void {
  const ballot = slot.ballots.get(epoch);
  const { voters, votersOutgoing } = ledger.configuration;
  const isChosen = [voters, votersOutgoing].every(
    (half) => half.length === 0 || half.filter((id) => ballot?.accepted.has(id)).length * 2 > half.length,
  );
  if (ballot === undefined || !isChosen) return;
  const { chosen } = slot;
  if (chosen !== null) check(sameValue(chosen.entry, ballot.entry), `P1 two values are chosen for ${index}`);
  if (chosen === null || epoch < chosen.ballot) slot.chosen = { entry: ballot.entry, ballot: epoch };
}

/** P2, P4 */
function checkLeader(
  ledger: Ledger,
  slots: ReadonlyMap<LogIndex, Slot>,
  proposers: Map<Epoch, ReplicaId>,
  node: SimNode,
  epoch: Epoch,
): void {
  const known = proposers.get(epoch);
  check(known === undefined || known === node.id, `P2 ${known} and ${node.id} lead in ballot ${epoch}`);
  if (known !== undefined) return;
  proposers.set(epoch, node.id);
  ledger.leaders.set(epoch, node.id);
  for (const [index, { chosen }] of slots) {
    if (chosen === null || chosen.ballot >= epoch) continue;
    check(sameValue(node.view[index - 1], chosen.entry), `P4 ${node.id} leads in ${epoch} without chosen ${index}`);
  }
}

/** I5, I6, I7 */
function checkCommit(ledger: Ledger, slots: ReadonlyMap<LogIndex, Slot>, node: SimNode, index: LogIndex): void {
  const before = ledger.commits.get(node.id) ?? 0;
  check(index >= before, `I7 ${node.id}: commit falls from ${before} to ${index}`);
  ledger.commits.set(node.id, index);
  check(index <= node.view.length, `I7 ${node.id} commits ${index}, its log ends at ${node.view.length}`);
  const status = node.engine?.status();
  for (let i = before + 1; i <= index; i += 1) {
    const entry = node.view[i - 1] as Entry;
    const chosen = slots.get(i)?.chosen ?? null;
    check(chosen !== null, `I5 ${node.id} commits ${i}, which no quorum has accepted in one ballot`);
    check(sameValue(entry, chosen.entry), `I6 ${node.id} commits another value at ${i}`);
    if (i <= ledger.chosen.length) continue;
    check(status?.role === "leader", `I5 ${node.id} commits ${i} first, and does not lead`);
    ledger.chosen.push({ entry, by: status.epoch });
  }
}

/** I9: compares what a message promises with what is on the sender's disk at this moment. */
function checkReleased(slots: ReadonlyMap<LogIndex, Slot>, node: SimNode, message: SimMessage): void {
  const { hardState, entries } = node.disk;
  if (message.kind === "prepare" && message.pre) return;
  const promised = hardState.epoch;
  check(message.epoch <= promised, `I9 ${node.id} speaks for ballot ${message.epoch}, durable is ${promised}`);
  // After a higher promise the disk may hold more than the message says, and of later ballots.
  if (promised !== message.epoch) return;
  if (message.kind === "promise" && message.granted && !message.pre) {
    for (const { index, epoch } of message.entries) {
      // Or the same flush brought what it accepted after the promise, in the ballot that it promised.
      const held = entries[index - 1]?.epoch;
      check(held === epoch || held === promised, `I9 ${node.id} tells ${index}@${epoch}, its disk holds ${held}`);
    }
  }
  if (message.kind !== "accepted") return;
  for (let index = Math.max(1, message.match - COMPARED_SLOTS); index <= message.match; index += 1) {
    const held = entries[index - 1];
    const kept = held?.epoch === message.epoch || sameValue(held, slots.get(index)?.chosen?.entry);
    check(kept, `I9 ${node.id} acknowledges ${index} in ${message.epoch}, its disk holds ballot ${held?.epoch}`);
  }
}
