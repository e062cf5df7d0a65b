/**
 * Owns rows, bytes and shards per split of a confirmed version: from the root's totals, or, where splits are positional,
 * computed from the pages (no shard is read).
 */
import type { VersionAnswer } from "../model/api.ts";
import type { SplitRule } from "../model/commands.ts";
import { heldOutNames, positionalTotals } from "../shards/positional.ts";
import type { PageRows, ShardEntry, SplitSummary } from "./types.ts";

export interface SplitTotals {
  /** One per split, in the order of the version's `splits`; splits without rows included. */
  readonly splits: readonly SplitSummary[];
  /** Of positional splits. */
  readonly pageRows: PageRows | null;
}

/** @param pages read once, and only where splits are positional */
export async function summarizeSplits(
  version: Pick<VersionAnswer, "splits" | "totals">,
  rule: SplitRule,
  pages: () => AsyncIterable<readonly ShardEntry[]>,
): Promise<SplitTotals> {
  if (rule.kind !== "positional") {
    const splits = version.splits.map((name, split) => {
      const { rows, bytes, shards } = version.totals.find((t) => t.split === split) ?? { rows: 0, bytes: 0, shards: 0 };
      return { name, rows, bytes, shards };
    });
    return { splits, pageRows: null };
  }
  const heldOut = heldOutNames(rule);
  const rest = version.splits.find((name) => !heldOut.includes(name));
  const sums = new Map<string, SplitSummary>();
  const pageRows = Object.fromEntries(version.splits.map((name): [string, number[]] => [name, []]));
  for await (const entries of pages()) {
    for (const total of positionalTotals(rule, entries)) {
      const name = total.name ?? rest;
      if (name === undefined) continue; // everything is held out: nothing remains to be named
      pageRows[name]?.push(total.rows);
      const old = sums.get(name) ?? { name, rows: 0, bytes: 0, shards: 0 };
      sums.set(name, {
        name,
        rows: old.rows + total.rows,
        bytes: old.bytes + total.bytes,
        shards: old.shards + total.shards,
      });
    }
  }
  return { splits: version.splits.map((name) => sums.get(name) ?? { name, rows: 0, bytes: 0, shards: 0 }), pageRows };
}
