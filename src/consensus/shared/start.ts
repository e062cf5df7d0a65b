/**
 * Owns what both engines demand of the state that they start from, and when a status is told.
 */
import type { EngineStart, EngineStatus, EngineTuning } from "../engine.ts";
import { invariant } from "./fault.ts";

export function checkStart(start: EngineStart, tuning: EngineTuning): void {
  invariant(tuning.electionTicksMin > tuning.heartbeatTicks && tuning.heartbeatTicks >= 1, "heartbeats beat elections");
  invariant(tuning.electionTicksMax > tuning.electionTicksMin, "election timeouts are a range");
  invariant(start.configurations.length > 0, "a replica knows the group's first configuration");
  invariant(start.applied.index <= start.lastIndex, "what is applied is in the log");
  invariant((start.base?.index ?? 0) <= start.applied.index, "what left the log is applied");
}

/** Commit and last index move all the time: they alone are no news. */
export function isNews(before: EngineStatus | null, after: EngineStatus): boolean {
  return (
    before === null ||
    before.role !== after.role ||
    before.leader !== after.leader ||
    before.epoch !== after.epoch ||
    before.committedInEpoch !== after.committedInEpoch ||
    before.voting !== after.voting ||
    before.configuration !== after.configuration
  );
}
