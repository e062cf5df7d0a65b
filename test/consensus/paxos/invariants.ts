/**
 * Owns the invariants of Multi-Paxos, checked from the outside like Raft's (../invariants.ts) and under the same numbers
 * where they are the same. What is chosen is not asked of any engine: it is counted from what reached the disks.
 *
 *  P1 one value per slot is ever chosen: accepted durably by a quorum in one ballot, by brute force over all disks
 *  P2 one proposer per ballot, and it proposes one value per slot
 *  P3 the promised ballot never falls, and nothing is accepted in another ballot than the promised one
 *  P5 who decides a slot is known when it is proposed: all slots up to α below it are chosen, and, when it is the first of
 *     a configuration, all below it
 *  P6 a chosen configuration is one change away from the one chosen before it
 *  P4 a new leader holds every value that was chosen in a lower ballot
 *  I5 a commit index is announced first by a leader, for slots that are chosen in its ballot
 *  I6 a chosen value never leaves a disk that holds it
 *  I7, I8, I10, I11 as in Raft
 *  I9 nothing is promised before it is durable: ballots, acceptances, and what a promise tells
 */
import type { Configuration, Entry, Epoch, LogIndex, ReplicaId } from "../../../src/consensus/engine.ts";
import type { Placed } from "../../../src/consensus/shared/membership.ts";
import { check, checkRead, type InvariantChecks, type Ledger } from "../invariants.ts";
import { checkInForce, isQuorum, noteConfigurations } from "../membership-invariants.ts";
import { decodeConfiguration, type Persist, type SimMessage, type SimNode } from "../node.ts";

interface Slot {
  /** By ballot: the value proposed, and who has accepted it durably. */
  readonly ballots: Map<Epoch, { readonly entry: Entry; readonly accepted: Set<ReplicaId> }>;
  chosen: { readonly entry: Entry; readonly ballot: Epoch } | null;
}

/** How far back an acknowledgement is compared with the disk: all of it would be quadratic. */
const COMPARED_SLOTS = 40;

/** What is chosen, as the disks say. */
interface Chosen {
  readonly alpha: number;
  readonly slots: Map<LogIndex, Slot>;
  /** Chosen ones, oldest first. */
  readonly configurations: Placed[];
  /** Every slot up to here is chosen. */
  upTo: LogIndex;
}

export function paxosChecks(first: Configuration, alpha: number): InvariantChecks {
  const slots = new Map<LogIndex, Slot>();
  const known: Chosen = { alpha, slots, configurations: [{ index: 0, configuration: first }], upTo: 0 };
  const proposers = new Map<Epoch, ReplicaId>();
  return {
    effect(ledger, _nodes, node, effect) {
      switch (effect.kind) {
        case "persist":
          noteConfigurations(ledger, effect.put);
          return checkPersist(known, node, effect);
        case "commit":
          checkInForce(ledger, node, effect.index - alpha);
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
    flush: (_ledger, node, write) => checkFlush(known, node, write),
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

/** P2, P3 */
function checkPersist(chosen: Chosen, node: SimNode, { removeFrom, put, hardState }: Persist): void {
  check(removeFrom === null, `P3 ${node.id} removes from ${removeFrom}`);
  const promised = hardState?.epoch ?? node.engine?.status().epoch;
  for (const entry of put) {
    const { index, epoch } = entry;
    check(epoch === promised, `P3 ${node.id} accepts ${index} in ${epoch}, promised is ${promised}`);
    const { ballots } = slotAt(chosen.slots, index);
    const known = ballots.get(epoch);
    if (known === undefined) {
      checkProposable(chosen, node, index);
      ballots.set(epoch, { entry, accepted: new Set() });
    } else check(sameValue(known.entry, entry), `P2 two values for ${index} in ballot ${epoch}`);
  }
}

/** P5 */
function checkProposable({ alpha, configurations, upTo }: Chosen, node: SimNode, index: LogIndex): void {
  check(index - alpha <= upTo, `P5 ${node.id} proposes ${index}, chosen up to ${upTo}`);
  const deciding = configurations.slice(1).findLast((placed) => placed.index + alpha <= index);
  const lastBefore = (deciding?.index ?? -alpha) + alpha - 1;
  check(
    upTo >= lastBefore,
    `P5 ${node.id} proposes ${index}, its configuration begins after ${lastBefore}, not chosen`,
  );
}

/** P1, P3, I6 */
function checkFlush(chosen: Chosen, node: SimNode, { put, hardState }: Persist): void {
  const before = node.disk.hardState.epoch;
  if (hardState !== null) check(hardState.epoch > before, `P3 ${node.id}: ${hardState.epoch} promised after ${before}`);
  for (const entry of put) {
    const slot = slotAt(chosen.slots, entry.index);
    const held = node.disk.entries[entry.index - 1];
    if (slot.chosen !== null && sameValue(held, slot.chosen.entry)) {
      check(sameValue(entry, held), `I6 ${node.id} overwrites chosen ${entry.index}`);
    }
    // A disk that was set back counts no more.
    if (node.lost === null) slot.ballots.get(entry.epoch)?.accepted.add(node.id);
    choose(chosen, slot, entry);
  }
}

function choose(known: Chosen, slot: Slot, { index, epoch }: Entry): void {
  const ballot = slot.ballots.get(epoch);
  const deciding = known.configurations.findLast((placed) => placed.index === 0 || placed.index + known.alpha <= index);
  if (ballot === undefined || deciding === undefined) return;
  if (!isQuorum(deciding.configuration, (id) => ballot.accepted.has(id))) return;
  const { chosen } = slot;
  if (chosen !== null) check(sameValue(chosen.entry, ballot.entry), `P1 two values are chosen for ${index}`);
  if (chosen === null || epoch < chosen.ballot) slot.chosen = { entry: ballot.entry, ballot: epoch };
  if (chosen === null && ballot.entry.kind === "config" && index > 1) noteChosen(known, ballot.entry);
  while ((known.slots.get(known.upTo + 1)?.chosen ?? null) !== null) known.upTo += 1;
}

/** P6 */
function noteChosen({ configurations }: Chosen, { index, payload }: Entry): void {
  const before = configurations.at(-1) as Placed;
  const configuration = decodeConfiguration(payload);
  const text = `${JSON.stringify(before)}, then ${JSON.stringify({ index, configuration })}`;
  check(
    before.index < index && isOneChange(before.configuration, configuration),
    `P6 no change of one member: ${text}`,
  );
  configurations.push({ index, configuration });
}

/** Who joins is a learner, and at most one joins, leaves or becomes a voter; a voter never becomes a learner. */
function isOneChange(before: Configuration, after: Configuration): boolean {
  const members = (of: Configuration): string[] => [...of.voters, ...of.learners];
  const joined = members(after).filter((id) => !members(before).includes(id));
  const left = members(before).filter((id) => !members(after).includes(id));
  const raised = after.voters.filter((id) => !before.voters.includes(id));
  const lowered = after.learners.filter((id) => before.voters.includes(id));
  if (lowered.length > 0 || joined.some((id) => !after.learners.includes(id))) return false;
  if (raised.length === 1) return joined.length === 0 && left.length <= 1 && before.learners.includes(raised[0] ?? "");
  return raised.length === 0 && joined.length + left.length === 1;
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
    if (chosen === null || chosen.ballot >= epoch || index <= node.disk.base.index) continue;
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
  for (let i = Math.max(before, node.disk.base.index) + 1; i <= index; i += 1) {
    const entry = node.view[i - 1] as Entry;
    const chosen = slots.get(i)?.chosen ?? null;
    check(chosen !== null, `I5 ${node.id} commits ${i}, which no quorum has accepted in one ballot`);
    check(sameValue(entry, chosen.entry), `I6 ${node.id} commits another value at ${i}`);
    if (i <= ledger.chosen.length) continue;
    // One that is out has given up the lead in the same step.
    const leads = status !== undefined && ledger.leaders.get(status.epoch) === node.id;
    check(leads, `I5 ${node.id} commits ${i} first, and does not lead`);
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
      if (index <= node.disk.base.index) continue;
      const held = entries[index - 1]?.epoch;
      check(held === epoch || held === promised, `I9 ${node.id} tells ${index}@${epoch}, its disk holds ${held}`);
    }
  }
  if (message.kind !== "accepted") return;
  const first = Math.max(node.disk.base.index + 1, message.match - COMPARED_SLOTS);
  for (let index = first; index <= message.match; index += 1) {
    const held = entries[index - 1];
    const kept = held?.epoch === message.epoch || sameValue(held, slots.get(index)?.chosen?.entry);
    check(kept, `I9 ${node.id} acknowledges ${index} in ${message.epoch}, its disk holds ballot ${held?.epoch}`);
  }
}
