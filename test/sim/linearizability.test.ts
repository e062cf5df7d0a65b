import { describe, expect, test } from "vitest";
import { datasetModel, type Input, type Output } from "./dataset-model.ts";
import { checkLinearizable, type Operation } from "./linearizability.ts";

type Step = readonly [callMs: number, returnMs: number | null, input: Input, output: Output | null];

const root = (n: number): string => `root ${n}`;
const commit = (expected: number | null, n: number): Input => ({ kind: "commit", expected, root: root(n) });
const ok = (version: number, n = version): Output => ({ kind: "ok", version, root: root(n) });
const head: Input = { kind: "head" };
const none: Output = { kind: "ok", version: 0, root: "" };

function verdict(...steps: readonly Step[]): string {
  const history = steps.map(([callMs, returnMs, input, output], i): Operation<Input, Output> => {
    return { process: `p${i}`, callMs, returnMs, input, output };
  });
  return checkLinearizable(datasetModel, history).result;
}

describe("linearizability", () => {
  test("one after the other", () => {
    expect(verdict([0, 1, head, none], [2, 3, commit(null, 1), ok(1)], [4, 5, head, ok(1)])).toBe("linearizable");
  });

  test("a read that misses an acknowledged write is a violation", () => {
    expect(verdict([0, 1, commit(null, 1), ok(1)], [2, 3, head, none])).toBe("violation");
  });

  test("a read beside a write may see it or not, and then none goes back", () => {
    expect(verdict([0, 9, commit(null, 1), ok(1)], [1, 2, head, none], [3, 4, head, ok(1)])).toBe("linearizable");
    expect(verdict([0, 9, commit(null, 1), ok(1)], [1, 2, head, ok(1)], [3, 4, head, none])).toBe("violation");
  });

  test("an operation without a return may take effect late, or never", () => {
    expect(verdict([0, null, commit(null, 1), null], [1, 2, head, none], [8, 9, head, ok(1)])).toBe("linearizable");
    expect(verdict([0, null, commit(null, 1), null], [1, 2, head, none])).toBe("linearizable");
    expect(verdict([5, null, commit(null, 1), null], [1, 2, head, ok(1)])).toBe("violation");
  });

  test("two commits on one head can't both win", () => {
    const first: Step = [2, 9, commit(1, 2), ok(2)];
    const refused: Output = { kind: "refused", version: 2 };
    expect(verdict([0, 1, commit(null, 1), ok(1)], first, [2, 9, commit(1, 3), refused])).toBe("linearizable");
    expect(verdict([0, 1, commit(null, 1), ok(1)], first, [2, 9, commit(1, 3), ok(2, 3)])).toBe("violation");
    expect(verdict([0, 1, commit(null, 1), ok(1)], first, [2, 9, commit(1, 3), ok(3)])).toBe("violation");
  });

  test("tags and pins", () => {
    const move = (version: number, expected: number | null): Input => ({
      kind: "move",
      tag: "prod",
      version,
      expected,
    });
    const at = (version: number): Output => ({ kind: "ok", version, root: "" });
    const start: Step = [0, 1, commit(null, 1), ok(1)];
    expect(verdict(start, [2, 3, move(1, null), at(1)], [4, 5, { kind: "tag", tag: "prod" }, at(1)])).toBe(
      "linearizable",
    );
    expect(verdict(start, [2, 3, move(1, null), at(1)], [4, 5, move(1, null), at(1)])).toBe("violation");
    const pin: Input = { kind: "pin", run: "r", version: 1 };
    expect(verdict(start, [2, 3, { kind: "unpin", run: "r" }, at(1)], [4, 5, pin, at(1)])).toBe("violation");
  });

  test("a search without an end is unknown, not fine", () => {
    const history = Array.from({ length: 12 }, (_, i): Operation<Input, Output> => {
      const input: Input = { kind: "move", tag: `t${i}`, version: 1, expected: null };
      return { process: `p${i}`, callMs: 0, returnMs: 9, input, output: { kind: "refused", version: 7 } };
    });
    const first: Operation<Input, Output> = {
      ...{ process: "p", callMs: 0, returnMs: 9, input: commit(null, 1), output: ok(1) },
    };
    expect(checkLinearizable(datasetModel, [first, ...history], 5).result).toBe("unknown");
  });
});
