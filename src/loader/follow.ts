/**
 * Owns how a run that follows its dataset comes to its next epoch: on which version all ranks train there.
 *
 *   majority: agreed on already? ── no ──▶ newest version, does it fit? ──▶ propose (the first rank wins)
 *          └── yes ─────────────────────────────── majority: what was agreed on ──▶ that version, confirmed and planned
 *
 * A rank proposes only what it could train on itself, so a version that does not fit is never agreed on by a rank that can
 * tell. All of it can be done again: an epoch's version is fixed once.
 */
import { agreeOn } from "../client/run-calls.ts";
import type { RunEpoch } from "../client/types.ts";
import { ShardpactError, toShardpactError } from "../model/errors.ts";
import type { LoaderPorts } from "./internal.ts";
import { planStage, requireSameBatches, type Stage, type StageOptions } from "./stage.ts";
import { sleep } from "./watch.ts";

export interface FollowOptions {
  readonly run: string;
  readonly stage: StageOptions;
  /** What happens when the newest version does not fit: an error, or one more epoch on the present one. */
  readonly onUnfit: "stop" | "stay";
  readonly onUnconfirmed: "pause" | "stop";
  readonly ports: LoaderPorts;
  readonly signal: AbortSignal;
}

/**
 * The stage of an epoch that is about to begin; `before` itself when the run stays. While the group can't be asked it
 * waits as a running loader does.
 * @throws ShardpactError what makes the newest version unfit (`shape_differs`, `budget_too_small`, … naming the column or the
 * figures), `plan_mismatch`, `revoked`, `pin_conflict`, `run_ended`, `no_quorum`, `aborted`
 */
export async function nextStage(before: Stage, epoch: number, o: FollowOptions): Promise<Stage> {
  const { ports, signal } = o;
  const giveUpMs = ports.nowMs() + ports.pauseMsMax;
  for (let tries = 0; ; tries++) {
    try {
      return await settle(before, epoch, o);
    } catch (error) {
      const typed = toShardpactError(error);
      if (signal.aborted) throw new ShardpactError("aborted", "loading was aborted", { cause: signal.reason });
      if (!typed.retryable || o.onUnconfirmed === "stop" || ports.nowMs() >= giveUpMs) throw typed;
      if (tries === 0) ports.warn(`run ${o.run} waits to agree on the version of epoch ${epoch}: ${typed.message}`);
      await sleep(ports.retryMs, signal);
    }
  }
}

async function settle(before: Stage, epoch: number, o: FollowOptions): Promise<Stage> {
  let wanted: Stage | null = null;
  const choose = async (): Promise<Omit<RunEpoch, "epoch">> => {
    wanted = await chooseStage(before, epoch, o);
    const { version, plan } = wanted;
    return { version: version.version, root: version.root, order: plan.order };
  };
  const agreed = await agreeOn(before.version.following, o.run, epoch, choose, o.signal);
  const stage = await stageOf(agreed, [before, wanted], o);
  requireAgreedOrder(o.run, agreed, stage);
  return stage;
}

/** What this rank would train on: the newest version, if it fits. */
async function chooseStage(before: Stage, epoch: number, o: FollowOptions): Promise<Stage> {
  const newest = await before.version.following.newest(o.signal);
  if (newest.version === before.version.version) return before;
  try {
    const stage = planStage(newest, o.stage);
    requireSameBatches(before, stage);
    return stage;
  } catch (error) {
    const unfit = unfitError(newest.dataset, newest.version, epoch, toShardpactError(error));
    if (o.onUnfit === "stop") throw unfit;
    o.ports.warn(`${unfit.message}; run ${o.run} stays on ${before.plan.dataset}`);
    return before;
  }
}

async function stageOf(agreed: RunEpoch, known: readonly (Stage | null)[], o: FollowOptions): Promise<Stage> {
  const same = known.find((s) => s?.version.version === agreed.version && s.version.root === agreed.root);
  if (same) return same;
  const [before] = known as readonly [Stage];
  const version = await before.version.following.open(agreed, o.signal);
  try {
    const stage = planStage(version, o.stage);
    requireSameBatches(before, stage);
    return stage;
  } catch (error) {
    throw unfitError(version.dataset, version.version, agreed.epoch, toShardpactError(error), AGREED);
  }
}

const AGREED =
  "Another rank of the run could take it, and the version of an epoch is fixed once: give all ranks the same options.";
const MAY_STAY = "With onUnfit: 'stay' the run stays on the version that it has.";

function unfitError(
  dataset: string,
  version: number,
  epoch: number,
  cause: ShardpactError,
  hint = MAY_STAY,
): ShardpactError {
  const what = `${dataset}@v${version} cannot be trained on in epoch ${epoch}`;
  return new ShardpactError(cause.code, `${what}: ${cause.message}`, {
    details: { ...cause.details, dataset, version, epoch },
    hint: `${cause.hint} ${hint}`.trim(),
    cause,
  });
}

/** @throws ShardpactError `plan_mismatch` when this rank's options give another order than the first rank's */
function requireAgreedOrder(run: string, { epoch, order }: RunEpoch, { plan }: Stage): void {
  for (const field of Object.keys(order) as (keyof RunEpoch["order"])[]) {
    if (order[field] === plan.order[field]) continue;
    throw new ShardpactError(
      "plan_mismatch",
      `run '${run}' agreed on order.${field} ${order[field]} for epoch ${epoch}, not ${plan.order[field]}`,
      {
        details: { run, epoch, field: `order.${field}`, expected: order[field], got: plan.order[field] },
        hint: "All ranks of a run need the same shuffle, window, lanes and seed.",
      },
    );
  }
}
