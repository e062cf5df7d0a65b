/**
 * Owns the bugs of runs that follow their dataset: each must be found under either engine, by simulated ranks.
 */
import type { Mutation } from "./mutation.ts";

export const FOLLOWING_MUTATIONS: readonly Mutation[] = [
  {
    name: "epoch-agreed-again",
    bug: "a rank that comes later with a newer version changes what the run agreed on for an epoch",
    seedsMax: 10,
    ranks: true,
    edits: [
      {
        file: "src/catalog/epoch-cut.ts",
        find: "    if (old) return accept(resultOf(old, false));\n",
        replace: "    if (old && old.version >= version) return accept(resultOf(old, false));\n",
      },
    ],
  },
  {
    name: "own-proposal-believed",
    bug: "a rank takes its own proposal for what the run agreed on",
    seedsMax: 10,
    ranks: true,
    edits: [
      {
        file: "src/client/run-calls.ts",
        find: "  await following.propose(run, { epoch, ...(await choose()) }, signal);\n",
        replace: `  const own = { epoch, ...(await choose()) };
  await following.propose(run, own, signal);
  if (epoch > 0) return own;
`,
      },
    ],
  },
];
