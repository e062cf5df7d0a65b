/**
 * Owns the election timer: how long a replica waits for a leader before it asks who would follow itself.
 */
import type { EngineTuning } from "../engine.ts";

export interface ElectionTimer {
  readonly tuning: Pick<EngineTuning, "electionTicksMin" | "electionTicksMax" | "randomU32">;
  electionElapsed: number;
  electionTimeout: number;
}

/** Restarts it with a new timeout in [min, max) ticks, so that candidates part (Raft §5.2; "Paxos Made Simple" §2.4). */
export function rollElectionTimeout(timer: ElectionTimer): void {
  const { electionTicksMin: min, electionTicksMax: max, randomU32 } = timer.tuning;
  timer.electionElapsed = 0;
  timer.electionTimeout = min + Math.floor((randomU32() / 2 ** 32) * (max - min));
}
