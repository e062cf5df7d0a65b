/**
 * The gate of mutations, short: every bug still fits the sources, and those that a few seeds find are found.
 * `npm run sim -- --mutations` runs them all.
 */
import { rmSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { applyEdits, copySources, tryMutation } from "./gate.ts";
import { MUTATIONS } from "./mutations.ts";

/** Found within two seeds; a second or two each on an idle machine. */
const QUICK = ["vote-not-persisted", "vote-before-durable", "reply-before-flush", "minority-quorum"];

describe("mutations", () => {
  it("all fit the sources as they are", { timeout: 120_000 }, () => {
    for (const mutation of MUTATIONS) {
      const folder = copySources();
      try {
        applyEdits(folder, mutation);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    }
  });

  it.each(QUICK)("%s is caught", { timeout: 240_000 }, async (name) => {
    const mutation = MUTATIONS.find((each) => each.name === name);
    if (mutation === undefined) throw new Error(`there is no mutation ${name}`);
    const { seed, what } = await tryMutation({ ...mutation, seedsMax: 3 });
    expect(seed, what).not.toBeNull();
  });
});
