/**
 * Owns the bugs that the simulator must find: each a change of text in a copy of the sources. Most have happened to
 * others (etcd, NATS, openraft, hashicorp/raft, LogCabin, jetcd, CCF); the links are in docs/simulation.md.
 *
 * The one thing to know: a text that is no longer there fails the gate, so a bug can't be forgotten by a refactoring.
 */

import type { Fault } from "./nemesis.ts";

export interface Edit {
  readonly file: string;
  /** Must stand in the file exactly once. */
  readonly find: string;
  readonly replace: string;
}

export interface Mutation {
  readonly name: string;
  readonly bug: string;
  /** It must be caught within this many seeds, from 0 on. */
  readonly seedsMax: number;
  /** The storm that is meant for it, where the usual mixture would take many more seeds. */
  readonly faults?: readonly Fault[];
  readonly edits: readonly Edit[];
}

const FENCE = " || disk.state.boot !== session.boot)";

export const MUTATIONS: readonly Mutation[] = [
  {
    name: "crash-loses-acknowledged",
    bug: "a crash of the database takes an acknowledged log record along (fsync off)",
    seedsMax: 40,
    edits: [
      {
        file: "test/sim/database.ts",
        find: "      checker.rolledBack(replica, disk);\n",
        replace: `      checker.rolledBack(replica, disk);
      const last = disk.state?.lastIndex ?? 0;
      if (disk.state && last > disk.applied.index) {
        disk.log.delete(last);
        disk.state = { ...disk.state, lastIndex: last - 1 };
      }
`,
      },
    ],
  },
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
    name: "reply-before-flush",
    bug: "the shell sends an acknowledgement before the write that it promises is durable",
    seedsMax: 10,
    edits: [
      {
        file: "src/replica/effects.ts",
        find: "if (effect.afterToken === null || effect.afterToken <= durableToken) ports.send",
        replace: "if (effect.afterToken === null || effect.afterToken <= Infinity) ports.send",
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
    seedsMax: 40,
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
    name: "read-before-first-commit",
    bug: "a new leader answers reads before it has committed in its epoch",
    seedsMax: 120,
    edits: [
      {
        file: "src/replica/confirm.ts",
        find: "  if (!committedInEpoch) {",
        replace: "  if (!committedInEpoch && commit < 0) {",
      },
    ],
  },
  {
    name: "stale-read-after-pause",
    bug: "voters answer for a leader whose term is over (it was paused, and does not know)",
    seedsMax: 120,
    faults: ["stale_leader", "clock_drift", "clock_drift"],
    edits: [
      {
        file: "src/replica/confirm.ts",
        find: "  if (!voting || epoch !== term) return;\n",
        replace: "  if (!voting || epoch < 0 || term < 0) return;\n",
      },
    ],
  },
  {
    name: "answer-of-one",
    bug: "a client takes one voter's answer for the group's",
    seedsMax: 120,
    edits: [
      {
        file: "src/client/tally.ts",
        find: "return members.size > 0 && count > members.size / 2;",
        replace: "return members.size > 0 && count > 0;",
      },
      {
        file: "src/replica/confirm.ts",
        find: `  if (role !== "leader") throw`,
        replace: `  if (role === "candidate") throw`,
      },
      {
        file: "src/replica/confirm.ts",
        find: "  if (!committedInEpoch) {",
        replace: "  if (!committedInEpoch && commit < 0) {",
      },
    ],
  },
  {
    name: "applied-index-not-atomic",
    bug: "a crash takes rows back and leaves the applied index",
    seedsMax: 20,
    edits: [{ file: "src/storage/memory/disk.ts", find: "    disk.applied = undo.applied;\n", replace: "" }],
  },
  {
    name: "retry-runs-twice",
    bug: "a command that comes again under its id has its effect again",
    seedsMax: 20,
    edits: [
      {
        file: "src/catalog/apply.ts",
        find: "  if (before && before.bodyDigest === bodyDigest) return { ...plain, outcome: before.outcome, retryOf: before.index };\n",
        replace: "",
      },
      {
        file: "src/catalog/apply.ts",
        find: "  if (before) return { ...plain, outcome:",
        replace: "  if (before && before.index < 0) return { ...plain, outcome:",
      },
    ],
  },
  {
    name: "no-fence",
    bug: "a process that was replaced goes on writing to its database",
    seedsMax: 40,
    edits: [{ file: "src/storage/memory/disk.ts", find: FENCE, replace: ")" }],
  },
  {
    name: "fenced-answer",
    bug: "a replica that was replaced tells clients so as the outcome of their commands (found by this simulator)",
    seedsMax: 40,
    edits: [
      {
        file: "src/replica/shell.ts",
        find: `await dropSession(new ShardpactError("unavailable", why));`,
        replace: `await dropSession(error ?? new ShardpactError("unavailable", why));`,
      },
    ],
  },
  {
    name: "lost-connection-never-sent",
    bug: "a client whose connection is lost after a command had left says that it was not applied (found by this simulator)",
    seedsMax: 120,
    faults: ["nats_disconnect"],
    edits: [{ file: "src/client/propose.ts", find: ` || error.details["sent"] === true`, replace: "" }],
  },
  {
    name: "late-hello",
    bug: "a greeting that comes late proves that its sender lost promises (found by this simulator)",
    seedsMax: 40,
    edits: [
      {
        file: "src/replica/identity.ts",
        find: " || peer.durableLife === life) return KEPT;",
        replace: ") return KEPT;",
      },
    ],
  },
];
