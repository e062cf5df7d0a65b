/**
 * Owns what is known of a simulated run from the outside: everything written, chosen, applied and led so far.
 */
import type { Configuration, Entry, Epoch, LogIndex, ReplicaId } from "../../src/consensus/engine.ts";

export interface Ledger {
  readonly configuration: Configuration;
  readonly leaders: Map<Epoch, ReplicaId>;
  /** Every configuration ever written anywhere. */
  readonly configurations: { readonly index: LogIndex; readonly configuration: Configuration }[];
  /** Every entry ever written anywhere, by epoch and index. */
  readonly written: Map<Epoch, Map<LogIndex, { readonly entry: Entry; readonly previousEpoch: Epoch }>>;
  /** `chosen[i]` has index i + 1; `by` is the epoch of the leader that committed it. */
  readonly chosen: { readonly entry: Entry; readonly by: Epoch }[];
  readonly chains: string[];
  readonly commits: Map<ReplicaId, LogIndex>;
  /** Floor of each read under way: what was committed when it was asked. */
  readonly readFloors: Map<number, LogIndex>;
  readsDone: number;
}

export function createLedger(configuration: Configuration): Ledger {
  return {
    configuration,
    leaders: new Map(),
    configurations: [{ index: 0, configuration }],
    written: new Map(),
    chosen: [],
    chains: ["start"],
    commits: new Map(),
    readFloors: new Map(),
    readsDone: 0,
  };
}

export function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}
