/**
 * Owns the log's loss of its prefix: what a snapshot holds need not be in the log (Raft §7).
 *
 * The one thing to know: purged ≤ applied ≤ commit, always. So nothing that is gone can be asked for by a truncation,
 * and the configuration in force at the base stays known.
 */
import type { Epoch, LogIndex } from "../engine.ts";
import { invariant } from "../shared/fault.ts";
import { compactView, epochAt } from "./log-view.ts";
import type { Raft } from "./state.ts";

/** The store holds `index` and what is before it in its applied state only. */
export function compact({ log, configurations, points }: Raft, index: LogIndex, epoch: Epoch): void {
  if (index <= log.base.index) return;
  invariant(index <= points.latest.index, `compacting at ${index}, applied is ${points.latest.index}`);
  invariant(epochAt(log, index) === epoch, `compacting at ${index}@${epoch}, which the log does not hold`);
  compactView(log, index);
  while ((configurations[1]?.index ?? Infinity) <= index) configurations.shift();
}
