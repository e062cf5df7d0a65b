import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Configuration } from "../../src/consensus/engine.ts";
import { hasQuorum, membersOf, quorumValue, voteOutcome } from "../../src/consensus/shared/configuration.ts";

const ids = ["A", "B", "C", "D", "E", "F", "G"];
const half = fc.uniqueArray(fc.constantFrom(...ids), { minLength: 1, maxLength: 7 });
const configurations: fc.Arbitrary<Configuration> = fc.record({
  voters: half,
  votersOutgoing: fc.oneof(fc.constant<string[]>([]), half),
  learners: fc.uniqueArray(fc.constantFrom("X", "Y"), { maxLength: 2 }),
});

/** A majority of each half, counted out. */
function isQuorum(configuration: Configuration, members: ReadonlySet<string>): boolean {
  return [configuration.voters, configuration.votersOutgoing].every(
    (voters) => voters.length === 0 || voters.filter((id) => members.has(id)).length * 2 > voters.length,
  );
}

describe("quorums, against counting (Raft §6, thesis §4.3)", () => {
  it("quorumValue is the highest value that a quorum has reached", () => {
    const values = fc.array(fc.nat({ max: 9 }), { minLength: 9, maxLength: 9 });
    fc.assert(
      fc.property(configurations, values, (configuration, list) => {
        const all = [...ids, "X", "Y"];
        const value = (id: string): number => list[all.indexOf(id)] ?? 0;
        const reached = (bound: number): boolean =>
          isQuorum(configuration, new Set(membersOf(configuration).filter((id) => value(id) >= bound)));
        const expected = Math.max(...[0, ...list].filter((bound) => bound === 0 || reached(bound)));
        expect(quorumValue(configuration, value)).toBe(expected);
      }),
      { numRuns: 2000 },
    );
  });

  it("hasQuorum counts voters only, and two quorums always meet", () => {
    const sets = fc.tuple(fc.subarray([...ids, "X", "Y"]), fc.subarray([...ids, "X", "Y"]));
    fc.assert(
      fc.property(configurations, sets, (configuration, [first, second]) => {
        const [one, two] = [new Set(first), new Set(second)];
        expect(hasQuorum(configuration, (id) => one.has(id))).toBe(isQuorum(configuration, one));
        if (isQuorum(configuration, one) && isQuorum(configuration, two)) {
          expect(configuration.voters.some((id) => one.has(id) && two.has(id))).toBe(true);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it("voteOutcome is won, lost or pending as the missing votes could decide", () => {
    const votes = fc.dictionary(fc.constantFrom(...ids), fc.boolean());
    fc.assert(
      fc.property(configurations, votes, (configuration, given) => {
        const map = new Map(Object.entries(given));
        const granted = new Set(ids.filter((id) => map.get(id) === true));
        const possible = new Set(ids.filter((id) => map.get(id) !== false));
        const expected = isQuorum(configuration, granted)
          ? "won"
          : isQuorum(configuration, possible)
            ? "pending"
            : "lost";
        expect(voteOutcome(configuration, map)).toBe(expected);
      }),
      { numRuns: 2000 },
    );
  });
});
