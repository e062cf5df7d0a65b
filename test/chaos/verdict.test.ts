/**
 * The judgement of chaos finds what it is there for: each test takes a history that is right and makes it wrong.
 */
import { expect, test } from "vitest";
import type { Recorded } from "./history.ts";
import { judgeHistory, type LedgerRow } from "./verdict.ts";

function operation(callMs: number, rest: Pick<Recorded, "input"> & Partial<Recorded>): Recorded {
  const known = { process: `c1.1/w${callMs}`, dataset: "alpha-0", commandId: null, last: false };
  const told = { index: null, error: null, neverSent: false };
  return { ...known, ...told, callMs, returnMs: callMs + 5, output: null, ...rest };
}

const commit = (callMs: number, version: number, rest: Partial<Recorded> = {}): Recorded =>
  operation(callMs, {
    input: { kind: "commit", expected: version === 1 ? null : version - 1, root: `root ${version}` },
    output: { kind: "ok", version, root: `root ${version}` },
    commandId: `commit ${version}`,
    index: version * 10,
    ...rest,
  });

const head = (callMs: number, version: number, rest: Partial<Recorded> = {}): Recorded =>
  operation(callMs, {
    input: { kind: "head" },
    output: { kind: "ok", version, root: `root ${version}` },
    index: version * 10,
    ...rest,
  });

const ledgerOf = (...versions: number[]): Map<string, LedgerRow> =>
  new Map(versions.map((version) => [`commit ${version}`, { index: version * 10, ok: true, version }]));

const RIGHT = [commit(0, 1), head(10, 1), commit(20, 2), head(30, 2)];

test("a history that is right", () => {
  expect(judgeHistory(RIGHT, ledgerOf(1, 2))).toEqual({ lost: [], wrong: [] });
});

test("an acknowledged command that is not in the ledger is lost", () => {
  expect(judgeHistory(RIGHT, ledgerOf(1)).lost).toHaveLength(1);
});

test("another answer than the ledger's, or at another index", () => {
  const ledger = ledgerOf(1, 2).set("commit 2", { index: 20, ok: false, version: 0 });
  expect(judgeHistory(RIGHT, ledger).wrong.join()).toMatch(/another answer/);
  const elsewhere = ledgerOf(1, 2).set("commit 2", { index: 21, ok: true, version: 2 });
  expect(judgeHistory(RIGHT, elsewhere).wrong.join()).toMatch(/another answer/);
});

test("a read that is older than what was acknowledged before it was asked (I8), by index and by content", () => {
  const { wrong } = judgeHistory([...RIGHT, head(40, 1)], ledgerOf(1, 2));
  expect(wrong.join()).toMatch(/I8 20 was answered before/);
  expect(wrong.join()).toMatch(/alpha-0 is not linearizable/);
});

test("a command that nobody was answered: it may have had its effect, and then all must see it", () => {
  const open = commit(32, 3, { returnMs: null, output: null, index: null, error: "timeout" });
  const seen = [...RIGHT, open, head(40, 3)];
  expect(judgeHistory(seen, ledgerOf(1, 2, 3))).toEqual({ lost: [], wrong: [] });
  expect(judgeHistory(seen, ledgerOf(1, 2)).wrong.join()).toMatch(/not linearizable/);
  expect(judgeHistory([...RIGHT, open], ledgerOf(1, 2))).toEqual({ lost: [], wrong: [] });
});

test("a command that was never sent, says its client, and was applied", () => {
  const open = commit(32, 3, { returnMs: null, output: null, index: null, error: "unavailable", neverSent: true });
  expect(judgeHistory([...RIGHT, open], ledgerOf(1, 2, 3)).wrong.join()).toMatch(/never sent/);
});

test("a read after healing that nobody answered", () => {
  const last = head(50, 2, { returnMs: null, output: null, index: null, last: true });
  expect(judgeHistory([...RIGHT, last], ledgerOf(1, 2)).wrong.join()).toMatch(/not answered after healing/);
});
