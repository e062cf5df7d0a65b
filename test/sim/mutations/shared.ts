/**
 * Owns the bugs outside the engines (shell, stores, client, catalog): each must be found under either engine. Most have
 * happened to others (etcd, NATS, openraft, jetcd); the links are in docs/simulation.md.
 */
import type { Mutation } from "./mutation.ts";

const FENCE = " || disk.state.boot !== session.boot)";

export const SHARED_MUTATIONS: readonly Mutation[] = [
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
    name: "read-before-first-commit",
    bug: "a new leader answers reads before it has committed in its epoch",
    seedsMax: 120,
    faults: ["untold"],
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
  {
    name: "learner-counts",
    bug: "learners are counted among the voters",
    seedsMax: 60,
    membership: true,
    edits: [
      {
        file: "src/consensus/shared/configuration.ts",
        find: "const incoming = majorityValue(configuration.voters, valueOf);",
        replace: "const incoming = majorityValue([...configuration.voters, ...configuration.learners], valueOf);",
      },
    ],
  },
  {
    name: "compacts-unapplied",
    bug: "the log is shortened to above what is durably applied: a crash of the database takes the applies back",
    seedsMax: 40,
    faults: ["database_crash", "power_loss", "left_behind"],
    edits: [
      {
        file: "src/storage/memory/log-store.ts",
        find: "base: { index, epoch: disk.ledger[index - 1]?.epoch ?? 0 } };\n  disk.unflushed.length = 0;\n",
        replace: "base: { index, epoch: disk.ledger[index - 1]?.epoch ?? 0 } };\n",
      },
    ],
  },
  {
    name: "install-keeps-tail",
    bug: "installing a snapshot leaves entries that do not follow from it in the log",
    seedsMax: 40,
    faults: ["left_behind"],
    edits: [
      {
        file: "src/storage/memory/snapshot.ts",
        find: "    for (const at of disk.log.keys()) if (at <= index) disk.log.delete(at);\n",
        replace: "",
      },
      {
        file: "src/storage/memory/snapshot.ts",
        find: "  disk.log.clear();\n",
        replace: "",
      },
    ],
  },
  {
    name: "damage-is-absence",
    bug: "a log that is cut before a damaged entry is taken for one that never held it: the replica votes",
    seedsMax: 60,
    faults: ["damage", "damage", "isolate", "crash"],
    edits: [
      {
        file: "src/storage/memory/log-boot.ts",
        find: "lastIndex < last || found.promisedLast !== null ? reached : null;",
        replace: "found.promisedLast !== null ? reached : null;",
      },
      {
        file: "src/storage/memory/log-boot.ts",
        find: "damaged: [...unproven, ...above, ...behind] };",
        replace: "damaged: [...unproven, ...behind] };",
      },
    ],
  },
];
