/**
 * Every bug of the gate still fits the sources, and one of each engine's is found. CI's campaign tries more of them,
 * `npm run sim -- --mutations` all.
 */
import { rmSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { EngineName } from "./engines.ts";
import { applyEdits, copySources, tryMutation } from "./gate.ts";
import { MUTATIONS } from "./mutations/index.ts";

const BOTH: readonly EngineName[] = ["raft", "paxos"];
/** Found by the first seed. */
const QUICK: Readonly<Record<EngineName, string>> = { raft: "minority-quorum", paxos: "minority-chooses" };

describe.each(BOTH)("mutations under %s", (engine) => {
  it("all fit the sources as they are", { timeout: 120_000 }, () => {
    for (const mutation of MUTATIONS[engine]) {
      const folder = copySources();
      try {
        applyEdits(folder, mutation);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    }
  });

  it(`${QUICK[engine]} is caught`, { timeout: 240_000 }, async () => {
    const name = QUICK[engine];
    const mutation = MUTATIONS[engine].find((each) => each.name === name);
    if (mutation === undefined) throw new Error(`there is no mutation ${name}`);
    const { seed, what } = await tryMutation({ engine, mutation: { ...mutation, seedsMax: 3 } });
    expect(seed, what).not.toBeNull();
  });
});
