/**
 * Owns what Raft's log is held to (docs/spec.md: I2, I3, I5, I6, I9), counted on durable disks.
 */
import type { Entry, Epoch, LogIndex } from "../../src/consensus/engine.ts";
import type { RaftMessage } from "../../src/consensus/raft/index.ts";
import type { MemoryDisk, MemoryState } from "../../src/storage/memory/disk.ts";
import { checkHardState, type LogRules, mapIn, type RulesWorld, sameValue } from "./log-rules.ts";

interface Written {
  readonly entry: Entry;
  /** Epoch of the entry before it. */
  readonly previous: Epoch;
}

export function createRaftRules(world: RulesWorld): LogRules<RaftMessage> {
  const check: RulesWorld["check"] = world.check;
  const written = new Map<Epoch, Map<LogIndex, Written>>();
  /** By index, by epoch: the replicas whose disks hold it durably. Damage later takes nothing back. */
  const holders = new Map<LogIndex, Map<Epoch, Set<string>>>();
  /** By epoch: the highest index of that epoch that a quorum has held. */
  const covered = new Map<Epoch, LogIndex>();

  /** I3, and who holds what. */
  function noteHeld(replica: string, { log, state }: MemoryDisk, index: LogIndex): void {
    const entry = log.get(index)?.entry;
    check(entry !== undefined, `I3 ${replica}: the log has a hole at ${index}`);
    const { base } = state as MemoryState;
    const previous = index === base.index + 1 ? base.epoch : (log.get(index - 1)?.entry.epoch ?? 0);
    const ofEpoch = mapIn(written, entry.epoch, () => new Map<LogIndex, Written>());
    const known = ofEpoch.get(index);
    if (!known) ofEpoch.set(index, { entry, previous });
    else {
      check(sameValue(known.entry, entry), `I3 ${replica} holds another entry ${index} of epoch ${entry.epoch}`);
      // What was damaged before it is the predecessor's matter.
      const fine = !world.healthy(replica) || previous === known.previous;
      check(fine, `I3 ${replica} holds another entry before ${index} of epoch ${entry.epoch}`);
    }
    const ofIndex = mapIn(holders, index, () => new Map<Epoch, Set<string>>());
    const holding = mapIn(ofIndex, entry.epoch, () => new Set<string>());
    holding.add(replica);
    if (index > (covered.get(entry.epoch) ?? 0) && world.isQuorum(index, holding)) covered.set(entry.epoch, index);
  }

  /** What a quorum held may have become one by a configuration that was written later: the leader counts by its newest. */
  function isCoveredNow(from: LogIndex, epoch: Epoch): boolean {
    for (let index = from; holders.has(index); index++) {
      if (world.isQuorum(index, holders.get(index)?.get(epoch))) return true;
    }
    return false;
  }

  return {
    appended(append) {
      const { replica, disk, from, replaced } = append;
      checkHardState(append, check);
      for (const { index, epoch } of replaced) {
        if (disk.log.get(index)?.entry.epoch === epoch) continue;
        const isLost = world.chosenAt(index)?.epoch === epoch;
        check(!isLost, `I6 ${replica} removes the committed entry ${index} of epoch ${epoch}`);
        holders.get(index)?.get(epoch)?.delete(replica);
      }
      const { lastIndex } = disk.state as MemoryState;
      for (let index = from; index <= lastIndex; index++) noteHeld(replica, disk, index);
    },
    choose(replica, { index, epoch }, reign) {
      const isHeld = world.isQuorum(index, holders.get(index)?.get(epoch));
      check(isHeld, `I5 ${replica} applied ${index}, which no quorum holds durably`);
      if (reign === null || index <= reign.commit) return;
      // Figure 8: a leader commits what is older only underneath an entry of its own epoch. Not its own disk counts:
      // that may be the slowest.
      const isCovered = (covered.get(reign.epoch) ?? 0) >= index || isCoveredNow(index, reign.epoch);
      check(isCovered, `I5 ${replica} leads epoch ${reign.epoch} and committed ${index} without an entry of its own`);
    },
    leaves: (from, to, disk, message) => checkPromise(check, from, to, disk, message),
    isSame: (stored, chosen) => stored.epoch === chosen.epoch && sameValue(stored, chosen),
  };
}

function checkPromise(
  check: RulesWorld["check"],
  from: string,
  to: string,
  { state }: MemoryDisk,
  message: RaftMessage,
): void {
  const { epoch, votedFor } = state?.hardState ?? { epoch: 0, votedFor: null };
  if (message.kind === "vote_request" && message.pre) return;
  check(message.epoch <= epoch, `I9 ${from} speaks for epoch ${message.epoch}, durable is ${epoch}`);
  if (message.epoch < epoch) return;
  switch (message.kind) {
    case "vote_request":
      return check(votedFor === from, `I9 ${from} campaigns in ${epoch}, its durable vote is ${votedFor}`);
    case "vote_reply":
      if (!message.granted || message.pre) return;
      return check(votedFor === to, `I9 ${from} votes for ${to} in ${epoch}, its durable vote is ${votedFor}`);
    case "append_accepted": {
      const lastIndex = state?.lastIndex ?? 0;
      return check(message.match <= lastIndex, `I9 ${from} acknowledges ${message.match}, durable are ${lastIndex}`);
    }
    default:
  }
}
