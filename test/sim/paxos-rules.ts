/**
 * Owns what the log of Multi-Paxos is held to, counted on durable disks; numbers as in test/consensus/paxos/invariants.ts.
 *
 *  P1 one value per slot is ever chosen: accepted by a quorum in one ballot, by brute force over all disks
 *  P2 one value per slot and ballot
 *  P3 the promised ballot never falls, and nothing is accepted below it
 *  P4 once a value is chosen, whatever is accepted in a higher ballot is that value ("Paxos Made Simple" §2.2, P2b)
 *  I5 what is applied is chosen     I6 a chosen value never leaves a disk that holds it     I9 no promise before its write
 */
import type { Entry, Epoch, LogIndex } from "../../src/consensus/engine.ts";
import type { PaxosMessage } from "../../src/consensus/paxos/index.ts";
import type { MemoryDisk, MemoryState } from "../../src/storage/memory/disk.ts";
import { type Append, checkHardState, type LogRules, mapIn, type RulesWorld, sameValue } from "./log-rules.ts";

interface Slot {
  /** By ballot: the value proposed, and who has accepted it durably. What was accepted once was accepted. */
  readonly ballots: Map<Epoch, { readonly entry: Entry; readonly accepted: Set<string> }>;
  chosen: { readonly entry: Entry; readonly ballot: Epoch } | null;
}

/** How far back an acknowledgement is compared with the disk: all of it would be quadratic. */
const COMPARED_SLOTS = 40;

export function createPaxosRules(world: RulesWorld): LogRules<PaxosMessage> {
  const check: RulesWorld["check"] = world.check;
  const slots = new Map<LogIndex, Slot>();

  function accept(replica: string, entry: Entry): void {
    const { index, epoch } = entry;
    const slot = mapIn(slots, index, (): Slot => ({ ballots: new Map(), chosen: null }));
    const ballot = mapIn(slot.ballots, epoch, () => ({ entry, accepted: new Set<string>() }));
    check(sameValue(ballot.entry, entry), `P2 ${replica} accepts another value for ${index} in ballot ${epoch}`);
    if (slot.chosen !== null && epoch > slot.chosen.ballot) {
      const kept = sameValue(slot.chosen.entry, entry);
      check(kept, `P4 ${replica} accepts ${index} in ${epoch}; another value was chosen in ${slot.chosen.ballot}`);
    }
    if (ballot.accepted.has(replica)) return;
    ballot.accepted.add(replica);
    if (world.isQuorum(index, ballot.accepted)) choose(slot, entry);
  }

  function choose(slot: Slot, entry: Entry): void {
    const { index, epoch } = entry;
    const known = slot.chosen;
    if (known !== null) check(sameValue(known.entry, entry), `P1 two values are chosen for ${index}`);
    if (known !== null && known.ballot <= epoch) return;
    slot.chosen = { entry, ballot: epoch };
    for (const [ballot, later] of slot.ballots) {
      const fine = ballot < epoch || sameValue(later.entry, entry);
      check(fine, `P4 ${index} is chosen in ${epoch}; another value was proposed in ${ballot}`);
    }
  }

  function appended(append: Append): void {
    const { replica, disk, before, from, replaced } = append;
    checkHardState(append, check);
    const { hardState, lastIndex, base } = disk.state as MemoryState;
    check(lastIndex >= (before?.lastIndex ?? 0), `P3 ${replica}: the log gets shorter, ${lastIndex}`);
    const promised = before?.hardState.epoch ?? 0;
    const old = new Map(replaced.map((entry) => [entry.index, entry]));
    for (let index = Math.max(from, base.index + 1); index <= lastIndex; index++) {
      const entry = disk.log.get(index)?.entry;
      check(entry !== undefined, `I3 ${replica}: the log has a hole at ${index}`);
      const held = old.get(index);
      if (held === entry) continue;
      const fair = entry.epoch >= promised && entry.epoch <= hardState.epoch;
      check(fair, `P3 ${replica} accepts ${index} in ${entry.epoch}, promised are ${promised} to ${hardState.epoch}`);
      const chosen = slots.get(index)?.chosen?.entry;
      const isKept = !sameValue(held, chosen) || sameValue(entry, chosen);
      check(isKept, `I6 ${replica} overwrites the chosen ${index}`);
      accept(replica, entry);
    }
  }

  return {
    appended,
    choose(replica, entry) {
      const chosen = slots.get(entry.index)?.chosen?.entry;
      check(chosen !== undefined, `I5 ${replica} applied ${entry.index}, which no quorum has accepted in one ballot`);
      check(sameValue(entry, chosen), `I6 ${replica} applied another value at ${entry.index}`);
    },
    leaves(from, _to, disk, message) {
      const isChosen = (index: LogIndex, held: Entry | undefined): boolean =>
        sameValue(held, slots.get(index)?.chosen?.entry);
      // A damaged disk holds less than it acknowledged; whether it still counts is what P1 finds.
      if (world.healthy(from)) checkPromise(check, isChosen, from, disk, message);
    },
    isSame: sameValue,
  };
}

function checkPromise(
  check: RulesWorld["check"],
  isChosen: (index: LogIndex, held: Entry | undefined) => boolean,
  from: string,
  { state, log }: MemoryDisk,
  message: PaxosMessage,
): void {
  const promised = state?.hardState.epoch ?? 0;
  const base = state?.base.index ?? 0;
  if (message.kind === "prepare" && message.pre) return;
  check(message.epoch <= promised, `I9 ${from} speaks for ballot ${message.epoch}, durable is ${promised}`);
  // After a higher promise the disk may hold more than the message says, and of later ballots.
  if (promised !== message.epoch) return;
  if (message.kind === "promise" && message.granted && !message.pre) {
    for (const { index, epoch } of message.entries) {
      // Or the same flush brought what it accepted after the promise, in the ballot that it promised.
      const held = log.get(index)?.entry.epoch;
      const fair = held === epoch || held === promised || index <= base;
      check(fair, `I9 ${from} tells ${index}@${epoch}, its disk holds ${held}`);
    }
  }
  if (message.kind !== "accepted") return;
  for (let index = Math.max(base + 1, message.match - COMPARED_SLOTS); index <= message.match; index++) {
    const held = log.get(index)?.entry;
    const kept = held?.epoch === message.epoch || isChosen(index, held);
    check(kept, `I9 ${from} acknowledges ${index} in ${message.epoch}, its disk holds ballot ${held?.epoch}`);
  }
}
