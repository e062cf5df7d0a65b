/**
 * Owns what a loader may be told, and refusing values that mean nothing: they would be passed over in silence, and another
 * model trained. Types say the same to who writes TypeScript; the check is for JavaScript, JSON and casts.
 */
import { ShardpactError } from "../model/errors.ts";
import type { Cols } from "./columns/options.ts";
import type { LoaderState } from "./cursor.ts";
import type { MapColumns } from "./feed.ts";
import type { PlanOptions } from "./plan.ts";
import type { RunOptions } from "./reports.ts";
import type { Reconfirm } from "./watch.ts";

export interface LoaderOptions<S = unknown> extends Omit<PlanOptions, "seed"> {
  readonly xs: Cols<NoInfer<S>>;
  readonly ys?: Cols<NoInfer<S>>;
  /** A u64. Drawn once when missing, told in a warning if the order depends on it, and kept in the state. */
  readonly seed?: number | bigint;
  /** Called with the columns of each batch, on the host; runs ahead of training. */
  readonly map?: MapColumns;
  /** A state to go on from; its order must be the one that these options give. */
  readonly resume?: LoaderState;
  /** The run that this loader belongs to: its plan is fixed by the first rank. */
  readonly run?: RunOptions;
  /** `bytes`: receipts also cover the delivered bytes, at the cost of one more hash over them. */
  readonly receipt?: "order" | "bytes";
  /** When to ask the group again. Default every 30 s. */
  readonly reconfirm?: Reconfirm;
  /** What happens when it can't be asked and the lease has ended. Default `pause`. */
  readonly onUnconfirmed?: "pause" | "stop";
  /**
   * With `follow`, when the newest version cannot be trained on with these options (a column would have another shape, it
   * needs more memory): an error that names the column or the figures, or one more epoch on the present version. Default `stop`.
   */
  readonly onUnfit?: "stop" | "stay";
  readonly signal?: AbortSignal;
}

const CHOICES = {
  receipt: ["order", "bytes"],
  onUnconfirmed: ["pause", "stop"],
  onUnfit: ["stop", "stay"],
} as const;

/** @throws ShardpactError `invalid_argument` */
export function checkOptions(o: LoaderOptions): void {
  for (const [name, choices] of Object.entries(CHOICES)) {
    const value = o[name as keyof typeof CHOICES];
    if (value === undefined || (choices as readonly string[]).includes(value)) continue;
    throw wrong(name, value, `one of ${choices.join(", ")}`);
  }
  const { reconfirm, run, map } = o;
  const isKnown =
    typeof reconfirm === "object"
      ? typeof reconfirm?.everyMs === "number" && reconfirm.everyMs > 0
      : ["open", "epoch", undefined].includes(reconfirm);
  if (!isKnown) {
    throw wrong("reconfirm", reconfirm, "open, epoch or { everyMs }");
  }
  if (run !== undefined && typeof run?.id !== "string") throw wrong("run", run, "what group.run() gives, or { id }");
  if (map !== undefined && typeof map !== "function") throw wrong("map", map, "a function");
}

function wrong(name: string, value: unknown, what: string): ShardpactError {
  return new ShardpactError(
    "invalid_argument",
    `${name} must be ${what}, not ${JSON.stringify(value) ?? typeof value}`,
  );
}
