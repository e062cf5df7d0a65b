/**
 * Owns `run.begin`, `run.receipt` and `run.end`: what a run fixed for all its ranks, and what it really consumed.
 */
import { canonicalJson } from "../model/commands.ts";
import type { OrderSpec, RunPlan } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { requirePinKeeps } from "./pin.ts";
import { accept, requireNotRevoked, requireRoot, requireVersion, versionNeeds } from "./rule.ts";
import type { Rule } from "./rule.ts";
import type { Need, RunEpochRow, RunRow } from "./rows.ts";
import type { View } from "./view.ts";

/**
 * Get-or-create: the first rank fixes the plan, every other must come with the same. One that comes later to a run that
 * follows its dataset must stand on what the run agreed on for that epoch.
 */
export const runBegin: Rule<"run.begin"> = {
  needs({ body: { run, plan, epoch = 0 } }) {
    const following: readonly Need[] = [
      { kind: "run_epoch", run, epoch },
      { kind: "pin", dataset: plan.dataset, run },
    ];
    return [{ kind: "run", run }, ...versionNeeds(plan.dataset, plan.version), ...(plan.follow ? following : [])];
  },

  decide(view, { body: { run, plan, meta, epoch = 0 }, actor }, { index, timeMs }) {
    const old = view.run(run);
    if (old) requireSamePlan(old, plan, plan.follow ? { epoch, row: view.runEpoch(run, epoch) } : null);
    if (old && old.endIndex !== null) throw ended(old);
    const row = requireVersion(view, plan.dataset, plan.version);
    requireRoot(row, plan.root);
    requireNotRevoked(view, plan.dataset, plan.version);
    if (plan.follow) requirePinKeeps(view.pin(plan.dataset, run), null);
    if (old) return accept({ run, index: old.index, created: false });
    const { dataset, version, order: orderSpec } = plan;
    const at = { actor, index, timeMs };
    const begun: RunRow = { table: "run", run, plan, meta, ...at, endIndex: null, outcome: null };
    const first: RunEpochRow = { table: "run_epoch", run, epoch, dataset, version, root: row.root, orderSpec, ...at };
    return accept({ run, index, created: true }, begun, ...(plan.follow ? [first] : []));
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

const PLAN_FIELDS = [
  "dataset",
  "follow",
  "version",
  "root",
  "selection",
  "order",
  "world",
  "batchSize",
  "last",
] as const;
const ORDER_FIELDS = ["alg", "strength", "seed", "n", "K", "g"] as const;

interface Standing {
  readonly epoch: number;
  readonly row: RunEpochRow | null;
}

/** @throws `plan_mismatch` naming the first field that differs */
function requireSamePlan({ run, plan }: RunRow, got: RunPlan, standing: Standing | null): void {
  const expected = { ...plan, follow: plan.follow ?? false };
  const other = { ...got, follow: got.follow ?? false };
  if (standing !== null && expected.follow) {
    const { epoch, row } = standing;
    if (row === null) throw notReached(run, epoch);
    Object.assign(expected, { version: row.version, root: row.root, order: row.orderSpec });
  }
  for (const field of PLAN_FIELDS) {
    if (canonicalJson(expected[field]) === canonicalJson(other[field])) continue;
    if (field === "order") requireSameOrder(run, expected.order, other.order);
    throw mismatch(run, field, expected[field], other[field]);
  }
}

/** @throws `plan_mismatch` naming the first field that differs */
export function requireSameOrder(run: string, expected: OrderSpec, got: OrderSpec): void {
  const field = ORDER_FIELDS.find((name) => expected[name] !== got[name]);
  if (field) throw mismatch(run, `order.${field}`, expected[field], got[field]);
}

/** Epochs come one after the other, from the one on that the run began with. */
export function notReached(run: string, epoch: number): ShardpactError {
  return new ShardpactError("plan_mismatch", `run '${run}' has no epoch ${epoch} yet`, {
    details: { run, field: "epoch", got: epoch },
    hint: "Ranks go from one epoch to the next; what was another run's goes on under a run id of its own.",
  });
}

export function mismatch(run: string, field: string, expected: unknown, got: unknown): ShardpactError {
  return new ShardpactError("plan_mismatch", `run '${run}' has ${field} ${String(expected)}, not ${String(got)}`, {
    details: { run, field, expected, got },
    hint: "All ranks of a run need the same plan; use another run id for another.",
  });
}

/** @throws `not_found` */
export function requireRun(view: View, run: string): RunRow {
  const row = view.run(run);
  if (row) return row;
  throw new ShardpactError("not_found", `there is no run '${run}'`, { details: { run } });
}

export function ended({ run, outcome, endIndex }: RunRow): ShardpactError {
  return new ShardpactError("run_ended", `run '${run}' ended as ${outcome} at index ${endIndex}`, {
    details: { run, outcome, endIndex },
    hint: "Begin a run under another id.",
  });
}
