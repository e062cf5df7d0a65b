/**
 * Owns the bugs of Multi-Paxos's engine: the ways in which phase 1 and phase 2 go wrong ("Paxos Made Simple" §2.2; most
 * of "Paxos Made Live" §5), and the counterparts of Raft's.
 */
import type { Mutation } from "./mutation.ts";

export const PAXOS_MUTATIONS: readonly Mutation[] = [
  {
    name: "promise-not-persisted",
    bug: "the promise is left out of the write that should hold it",
    seedsMax: 10,
    edits: [
      {
        file: "src/consensus/paxos/state.ts",
        find: "const hardState = draft.hardState ? paxos.hardState : null;",
        replace: "const hardState = draft.hardState && paxos.hardState.epoch < 0 ? paxos.hardState : null;",
      },
    ],
  },
  {
    name: "promise-before-durable",
    bug: "promises and ballots leave before they are durable",
    seedsMax: 10,
    edits: [
      {
        file: "src/consensus/paxos/state.ts",
        find: "const token = Math.max(afterToken ?? 0, paxos.hardStateToken);",
        replace: "const token = afterToken ?? 0;",
      },
    ],
  },
  {
    name: "accept-below-promise",
    bug: "an acceptor accepts in a ballot below the one that it has promised",
    seedsMax: 40,
    edits: [
      {
        file: "src/consensus/paxos/accepting.ts",
        find: `    send(paxos, from, { kind: "refused", epoch: promised });
    return false;`,
        replace: `    paxos.hardState = { epoch, votedFor: from };
    return true;`,
      },
    ],
  },
  {
    name: "phase-1-lowest-ballot",
    bug: "of what phase 1 found for a slot, the value of the lowest ballot is proposed",
    seedsMax: 200,
    edits: [
      {
        file: "src/consensus/paxos/campaign.ts",
        find: "if (known === undefined || entry.epoch > known.epoch) found[at] = entry;",
        replace: "if (known === undefined || entry.epoch < known.epoch) found[at] = entry;",
      },
    ],
  },
  {
    name: "phase-1-own-first",
    bug: "a new leader prefers what it has accepted itself to what the others report",
    seedsMax: 100,
    faults: ["isolate", "split", "crash"],
    edits: [
      {
        file: "src/consensus/paxos/campaign.ts",
        find: "if (known === undefined || entry.epoch > known.epoch) found[at] = entry;",
        replace: "if (known === undefined || from === paxos.id) found[at] = entry;",
      },
    ],
  },
  {
    name: "phase-1-minority",
    bug: "phase 1 is over when one acceptor less than a quorum has reported",
    seedsMax: 40,
    edits: [
      {
        file: "src/consensus/paxos/campaign.ts",
        find: "placed.every(({ configuration }) => hasQuorum(configuration, done));",
        replace:
          "placed.every(({ configuration: { voters } }) => voters.filter(done).length * 2 >= voters.length - 1);",
      },
    ],
  },
  {
    name: "mixed-ballots",
    bug: "acceptances in an earlier ballot are counted in a later one",
    seedsMax: 100,
    replicas: 5,
    faults: ["echo"],
    edits: [
      {
        file: "src/consensus/paxos/proposing.ts",
        find: `says nothing about this one.
  if (leadership === null || progress === undefined || message.epoch !== paxos.hardState.epoch) return;`,
        replace: `says nothing about this one.
  if (leadership === null || progress === undefined) return;`,
      },
    ],
  },
  {
    name: "old-ballot-acknowledged",
    bug: "after a new promise an acceptor still acknowledges, and believes chosen, what it accepted in older ballots",
    seedsMax: 40,
    edits: [
      {
        file: "src/consensus/paxos/state.ts",
        find: "  paxos.matched = paxos.commit;\n",
        replace: "  paxos.matched = paxos.slots.lastIndex;\n",
      },
    ],
  },
  {
    name: "own-acceptance-not-durable",
    bug: "a leader counts its own acceptance before it is on its disk",
    seedsMax: 40,
    edits: [
      {
        file: "src/consensus/paxos/proposing.ts",
        find: "return paxos.voting ? durableIndex(paxos.slots) : 0;",
        replace: "return paxos.voting ? Math.max(durableIndex(paxos.slots), paxos.slots.lastIndex) : 0;",
      },
    ],
  },
  {
    name: "acceptance-before-durable",
    bug: "an acceptance leaves before the write that holds it",
    seedsMax: 10,
    edits: [
      {
        file: "src/consensus/paxos/accepting.ts",
        find: `send(paxos, from, { kind: "accepted", epoch, match, voting }, writeCovering(slots, match));`,
        replace: `send(paxos, from, { kind: "accepted", epoch, match, voting }, writeCovering(slots, 0));`,
      },
    ],
  },
  {
    name: "minority-chooses",
    bug: "one acceptor less than a majority chooses a value",
    seedsMax: 10,
    edits: [
      {
        file: "src/consensus/paxos/quorums.ts",
        find: "Math.min(lastSlot, quorumValue(configuration, acceptedOn))",
        replace:
          "Math.min(lastSlot, configuration.voters.map(acceptedOn).sort((a, b) => b - a)[Math.max(0, (configuration.voters.length >> 1) - 1)] ?? 0)",
      },
    ],
  },
  {
    name: "alpha-ignored",
    bug: "a configuration decides from the slot after its own on: slots that the old one decides too are under way",
    seedsMax: 40,
    membership: true,
    edits: [
      {
        file: "src/consensus/paxos/quorums.ts",
        find: "const at = configurations.findLastIndex(({ index }) => index + alpha <= slot);",
        replace: "const at = configurations.findLastIndex(({ index }) => index + Math.min(1, alpha) <= slot);",
      },
    ],
  },
  {
    name: "same-ballot",
    bug: "two proposers draw the same ballot",
    seedsMax: 40,
    edits: [
      {
        file: "src/consensus/paxos/ballot.ts",
        find: "return round * ORDINALS + ordinal;",
        replace: "return round * ORDINALS + Math.min(1, ordinal);",
      },
    ],
  },
  {
    name: "read-before-suffix",
    bug: "a new leader answers reads before all that phase 1 found is chosen",
    seedsMax: 120,
    faults: ["untold"],
    edits: [
      {
        file: "src/consensus/paxos/reads.ts",
        find: "if (leadership.committedInEpoch || paxos.commit < leadership.suffixEnd) return;",
        replace: "if (leadership.committedInEpoch || leadership.suffixEnd < 0) return;",
      },
    ],
  },
];
