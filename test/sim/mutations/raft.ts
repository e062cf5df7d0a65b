/**
 * Owns the bugs of Raft's engine. Most have happened to others (etcd, NATS, openraft, hashicorp/raft, LogCabin, CCF); the
 * links are in docs/simulation.md.
 */
import type { Mutation } from "./mutation.ts";

export const RAFT_MUTATIONS: readonly Mutation[] = [
  {
    name: "vote-not-persisted",
    bug: "the vote is left out of the write that holds its epoch",
    seedsMax: 10,
    edits: [
      {
        file: "src/consensus/raft/state.ts",
        find: "hardState: draft.hardState ? raft.hardState : null",
        replace: "hardState: draft.hardState ? { ...raft.hardState, votedFor: null } : null",
      },
    ],
  },
  {
    name: "vote-before-durable",
    bug: "votes and epochs leave before they are durable",
    seedsMax: 10,
    edits: [
      {
        file: "src/consensus/raft/state.ts",
        find: "const token = Math.max(afterToken ?? 0, raft.hardStateToken, raft.draft?.hardState === true ? raft.draft.token : 0);",
        replace: "const token = afterToken ?? 0;",
      },
    ],
  },
  {
    name: "earlier-epoch-by-count",
    bug: "a leader commits entries of earlier epochs by counting copies (Raft, Figure 8)",
    seedsMax: 100,
    edits: [
      {
        file: "src/consensus/raft/replication.ts",
        find: "if (index <= raft.commit || epochAt(log, index) !== raft.hardState.epoch) return;",
        replace: "if (index <= raft.commit) return;",
      },
    ],
  },
  {
    name: "minority-quorum",
    bug: "one voter less than a majority is a quorum for commits",
    seedsMax: 10,
    edits: [
      {
        file: "src/consensus/raft/replication.ts",
        find: "const index = quorumValue(activeConfiguration(raft), (id) => durableOn(raft, leadership, id));",
        replace:
          "const index = activeConfiguration(raft).voters.map((id) => durableOn(raft, leadership, id)).sort((a, b) => b - a)[Math.max(0, (activeConfiguration(raft).voters.length >> 1) - 1)] ?? 0;",
      },
    ],
  },
  {
    name: "mismatched-acknowledgement",
    bug: "a follower acknowledges its whole log, also what the leader never compared",
    seedsMax: 120,
    edits: [
      {
        file: "src/consensus/raft/following.ts",
        find: "  const match = previousIndex + entries.length;\n",
        replace: "  const match = log.lastIndex;\n",
      },
      {
        file: "src/consensus/raft/replication.ts",
        find: "  if (message.match > progress.sentMax) return;\n",
        replace: "  if (message.match > raft.log.lastIndex) return;\n",
      },
    ],
  },
  {
    name: "old-append-truncates",
    bug: "an append that came late removes what follows it, committed or not",
    seedsMax: 10,
    edits: [
      {
        file: "src/consensus/raft/following.ts",
        find: "    if (held !== entry.epoch && !(held === null && entry.index <= raft.commit)) break;\n",
        replace: "    if (entry.index > 0 || held === null) break;\n",
      },
      {
        file: "src/consensus/raft/following.ts",
        find: "    if (first.index <= raft.commit) return halt(raft, differsBelowCommit(first.index));\n",
        replace: "",
      },
      {
        file: "src/consensus/raft/state.ts",
        find: "    invariant(first.index > raft.commit, `removing ${first.index}, committed is ${raft.commit}`);\n",
        replace: "",
      },
    ],
  },
  {
    name: "vote-cleared",
    bug: "the vote of an epoch is forgotten within it: a second candidate gets one too",
    seedsMax: 40,
    edits: [
      {
        file: "src/consensus/raft/election.ts",
        find: "const free = votedFor === from || (votedFor === null && raft.leader === null);",
        replace: "const free = votedFor === from || raft.leader === null;",
      },
      {
        file: "src/consensus/raft/state.ts",
        find: "epoch > before.epoch || before.votedFor === null || before.votedFor === votedFor,",
        replace: "epoch >= before.epoch || before.votedFor === votedFor,",
      },
    ],
  },
  {
    name: "no-joint-configuration",
    bug: "voters are exchanged in one step: majorities before and after it need not meet",
    seedsMax: 40,
    membership: true,
    edits: [
      {
        file: "src/consensus/raft/membership.ts",
        find: "const joint = members.voters !== before.voters;",
        replace: "const joint = members.voters.length === 0;",
      },
    ],
  },
  {
    name: "committed-configuration",
    bug: "a configuration is in force when it is committed, not when it is in the log",
    seedsMax: 40,
    membership: true,
    edits: [
      {
        file: "src/consensus/raft/state.ts",
        find: "return (raft.configurations.at(-1) as { configuration: Configuration }).configuration;",
        replace:
          "return (raft.configurations.findLast(({ index }) => index <= raft.commit) ?? raft.configurations[0] as { configuration: Configuration }).configuration;",
      },
    ],
  },
  {
    name: "stale-acknowledgement",
    bug: "an acknowledgement of an earlier epoch is counted in a later one",
    seedsMax: 100,
    replicas: 5,
    faults: ["echo"],
    edits: [
      {
        file: "src/consensus/raft/replication.ts",
        find: `nobody holds what was never sent.
  if (leadership === null || progress === undefined || message.epoch !== raft.hardState.epoch) return;
  if (message.match > progress.sentMax) return;`,
        replace: `nobody holds what was never sent.
  if (leadership === null || progress === undefined) return;`,
      },
      {
        file: "src/consensus/raft/replication.ts",
        find: "noteAccepted(progress, message.match, message.voting);",
        replace: "noteAccepted(progress, Math.min(message.match, log.lastIndex), message.voting);",
      },
    ],
  },
];
