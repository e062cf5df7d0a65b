/**
 * Owns `epoch.cut`: on which version all ranks of a run that follows its dataset train in an epoch.
 *
 * Get-or-create: the first rank that comes to the end of an epoch fixes the next one, and whoever asks later, or again
 * after a crash, is told the same. Every epoch has a row from the one on that the run began with, so a rank can neither
 * skip one nor go back.
 */
import { canonicalJson, type CommandBody } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { requirePinKeeps } from "./pin.ts";
import { accept, requireNotRevoked, requireRoot, requireVersion, versionNeeds, versionSubject } from "./rule.ts";
import type { Rule } from "./rule.ts";
import type { RunEpochRow, VersionRow } from "./rows.ts";
import { ended, mismatch, notReached, requireRun, requireSameOrder } from "./run.ts";

type Body = CommandBody<"epoch.cut">;

export const epochCut: Rule<"epoch.cut"> = {
  needs: ({ body: { run, epoch, dataset, from, version } }) => [
    { kind: "run", run },
    { kind: "run_epoch", run, epoch },
    { kind: "run_epoch", run, epoch: epoch - 1 },
    { kind: "pin", dataset, run },
    { kind: "version", dataset, version: from },
    ...versionNeeds(dataset, version),
  ],

  decide(view, { body, actor }, { index, timeMs }) {
    const { run, epoch, dataset, version, root, order: orderSpec } = body;
    const begun = requireRun(view, run);
    const { plan } = begun;
    if (dataset !== plan.dataset) throw mismatch(run, "dataset", plan.dataset, dataset);
    if (!plan.follow) throw mismatch(run, "follow", false, true);
    const old = view.runEpoch(run, epoch);
    if (old) return accept(resultOf(old, false));
    if (begun.endIndex !== null) throw ended(begun);
    requireSameOrder(run, { ...orderSpec, seed: plan.order.seed }, orderSpec);
    const before = requireEpochBefore(view.runEpoch(run, epoch - 1), body);
    const row = requireVersion(view, dataset, version);
    requireRoot(row, root);
    requireNotRevoked(view, dataset, version);
    requirePinKeeps(view.pin(dataset, run), version);
    requireFollows(row, requireVersion(view, dataset, before.version));
    if (root === before.root) requireSameOrder(run, before.orderSpec, orderSpec);
    const at = { actor, index, timeMs };
    const cut: RunEpochRow = { table: "run_epoch", run, epoch, dataset, version, root: row.root, orderSpec, ...at };
    return accept(resultOf(cut, true), cut);
  },
};

function resultOf({ run, epoch, dataset, version, root, orderSpec: order, index }: RunEpochRow, created: boolean) {
  return { run, epoch, dataset, version, root, order, index, created };
}

/** The epoch before, on the version that the rank comes from. @throws `plan_mismatch`, `invalid_argument` (an older version) */
function requireEpochBefore(before: RunEpochRow | null, { run, epoch, from, version }: Body): RunEpochRow {
  if (!before) throw notReached(run, epoch - 1);
  if (before.version !== from) throw mismatch(run, "version", before.version, from);
  if (version >= before.version) return before;
  throw new ShardpactError(
    "invalid_argument",
    `run '${run}' is on ${versionSubject(before.dataset, before.version)} and does not go back to v${version}`,
    { details: { run, epoch, from: before.version, version } },
  );
}

/** Within a dataset neither changes (I26); a run's columns and selection rest on both. @throws `schema_differs`, `split_changed` */
function requireFollows(next: VersionRow, before: VersionRow): void {
  const what = `${versionSubject(next.dataset, next.version)} and v${before.version}`;
  if (next.schema !== before.schema) throw new ShardpactError("schema_differs", `${what} have different schemas`);
  if (canonicalJson(next.splitRule) === canonicalJson(before.splitRule)) return;
  throw new ShardpactError("split_changed", `${what} are split by different rules`);
}
