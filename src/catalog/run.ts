/**
 * Owns `run.begin`, `run.receipt` and `run.end`: what a run fixed for all its ranks, and what it really consumed.
 */
import { canonicalJson } from "../model/commands.ts";
import type { RunPlan } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { accept, requireNotRevoked, requireRoot, requireVersion, versionNeeds } from "./rule.ts";
import type { Rule } from "./rule.ts";
import type { RunRow } from "./rows.ts";
import type { View } from "./view.ts";

/** Get-or-create: the first rank fixes the plan, every other must come with the same. */
export const runBegin: Rule<"run.begin"> = {
  needs: ({ body: { run, plan } }) => [{ kind: "run", run }, ...versionNeeds(plan.dataset, plan.version)],

  decide(view, { body: { run, plan, meta }, actor }, { index, timeMs }) {
    const old = view.run(run);
    if (old) requireSamePlan(old, plan);
    if (old && old.endIndex !== null) throw ended(old);
    const row = requireVersion(view, plan.dataset, plan.version);
    requireRoot(row, plan.root);
    requireNotRevoked(view, plan.dataset, plan.version);
    if (old) return accept({ run, index: old.index, created: false });
    return accept(
      { run, index, created: true },
      { table: "run", run, plan, meta, actor, index, timeMs, endIndex: null, outcome: null },
    );
  },
};

/** Receipts are also taken after the run's end: ranks report at their own pace. */
export const runReceipt: Rule<"run.receipt"> = {
  needs: ({ body: { run } }) => [{ kind: "run", run }],

  decide(view, { body: { run, rank, receipt } }, { index, timeMs }) {
    const { plan } = requireRun(view, run);
    if (rank >= plan.world) {
      throw new ShardpactError("invalid_argument", `rank ${rank} is not in run '${run}' of ${plan.world} ranks`, {
        details: { run, rank, world: plan.world },
      });
    }
    return accept({ run, rank, index }, { table: "receipt", run, rank, index, timeMs, receipt });
  },
};

export const runEnd: Rule<"run.end"> = {
  needs: ({ body: { run } }) => [{ kind: "run", run }],

  decide(view, { body: { run, outcome } }, { index }) {
    const old = requireRun(view, run);
    if (old.endIndex === null) return accept({ run, outcome, endIndex: index }, { ...old, endIndex: index, outcome });
    if (old.outcome !== outcome) throw ended(old);
    return accept({ run, outcome, endIndex: old.endIndex });
  },
};

const PLAN_FIELDS = ["dataset", "version", "root", "selection", "order", "world", "batchSize", "last"] as const;
const ORDER_FIELDS = ["alg", "strength", "seed", "n", "K", "g"] as const;

/** @throws `plan_mismatch` naming the first field that differs */
function requireSamePlan({ run, plan }: RunRow, got: RunPlan): void {
  for (const field of PLAN_FIELDS) {
    if (canonicalJson(plan[field]) === canonicalJson(got[field])) continue;
    const inner = field === "order" ? ORDER_FIELDS.find((name) => plan.order[name] !== got.order[name]) : undefined;
    const expected = inner ? plan.order[inner] : plan[field];
    const other = inner ? got.order[inner] : got[field];
    const name = inner ? `order.${inner}` : field;
    throw new ShardpactError("plan_mismatch", `run '${run}' has ${name} ${String(expected)}, not ${String(other)}`, {
      details: { run, field: name, expected, got: other },
      hint: "All ranks of a run need the same plan; use another run id for another.",
    });
  }
}

function requireRun(view: View, run: string): RunRow {
  const row = view.run(run);
  if (row) return row;
  throw new ShardpactError("not_found", `there is no run '${run}'`, { details: { run } });
}

function ended({ run, outcome, endIndex }: RunRow): ShardpactError {
  return new ShardpactError("run_ended", `run '${run}' ended as ${outcome} at index ${endIndex}`, {
    details: { run, outcome, endIndex },
    hint: "Begin a run under another id.",
  });
}
