/**
 * Every bug of the gate still fits the sources, and one of each engine's is found. CI's campaign tries more of them,
 * `npm run sim -- --mutations` all.
 */
import { describe, expect, it } from "vitest";
import type { EngineName } from "./engines.ts";
import { checkEdits, tryMutation } from "./gate.ts";
import { MUTATIONS } from "./mutations/index.ts";

const BOTH: readonly EngineName[] = ["raft", "paxos"];
/** Found by the first seed. */
const QUICK: Readonly<Record<EngineName, string>> = { raft: "minority-quorum", paxos: "minority-chooses" };

describe.each(BOTH)("mutations under %s", (engine) => {
  it("all fit the sources as they are", () => {
    expect(MUTATIONS[engine].length).toBeGreaterThan(20);
    for (const mutation of MUTATIONS[engine]) expect(() => checkEdits(mutation)).not.toThrow();
  });

  it(`${QUICK[engine]} is caught`, { timeout: 240_000 }, async () => {
    const name = QUICK[engine];
    const mutation = MUTATIONS[engine].find((each) => each.name === name);
    if (mutation === undefined) throw new Error(`there is no mutation ${name}`);
    const { seed, what } = await tryMutation({ engine, mutation: { ...mutation, seedsMax: 3 } });
    expect(seed, what).not.toBeNull();
  });
});
