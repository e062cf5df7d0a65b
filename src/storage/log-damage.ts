/**
 * Owns what both log stores must do alike about damage: find where a log is still certain, prove an entry by the ledger,
 * and tell whether the record of what a replica promised is the one that it wrote.
 *
 * Damaged is not absent. A log that is damaged above what is applied goes on from before the damage, and the store
 * remembers, durably, how far it once reached (`promisedLast`): until the replica has been given back, or released from,
 * everything up to there, it must not vote. What lies beyond the cut stays where it is until then.
 */
import { CHAIN_ZERO, chainNext } from "../catalog/chain.ts";
import type { AppliedState, LedgerRow } from "../catalog/apply.ts";
import type { Entry, EpochRun, HardState, LogIndex } from "../consensus/engine.ts";
import { hashBytes } from "../merkle/hash.ts";
import { concatBytes, u64le, utf8 } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { CHECKSUM_BYTES } from "./log-record.ts";

/** Applied entries whose checksums a boot looks at; the ones before are looked at when they are used. */
export const CHECK_APPLIED_MAX = 8_192;

/** What a replica promised besides the entries themselves. */
export interface PromiseRecord {
  readonly hardState: HardState;
  readonly voting: boolean;
  /** Null where the store proves the log's end in another way. */
  readonly lastIndex: LogIndex | null;
  readonly promisedLast: LogIndex | null;
}

/** BLAKE3 over the record, its first 16 bytes: stored beside it. */
export function promiseChecksum({ hardState, voting, lastIndex, promisedLast }: PromiseRecord): Uint8Array {
  const { epoch, votedFor } = hardState;
  const flags = new Uint8Array([voting ? 1 : 0, votedFor === null ? 0 : 1, promisedLast === null ? 0 : 1]);
  const numbers = [epoch, lastIndex ?? 0, promisedLast ?? 0].map(u64le);
  return hashBytes(concatBytes([flags, ...numbers, utf8(votedFor ?? "")])).subarray(0, CHECKSUM_BYTES);
}

/** The last index that is certain: of what is damaged, only what is above the applied index cuts the log. */
export function certainEnd(damaged: readonly LogIndex[], applied: LogIndex, lastIndex: LogIndex): LogIndex {
  const first = damaged.find((index) => index > applied);
  return first === undefined ? lastIndex : first - 1;
}

/** An applied entry out of its ledger row, if the chain proves that it is the one that was chosen; else null. */
export function entryOfLedger(
  row: Pick<LedgerRow, "index" | "epoch" | "kind" | "payload" | "chain">,
  chainBefore: string | null,
): Entry | null {
  const { index, epoch, payload } = row;
  const kind = row.kind === "noop" || row.kind === "config" ? row.kind : "command";
  const before = index === 1 ? CHAIN_ZERO : chainBefore;
  if (before === null || chainNext(before, { index, kind, payload }) !== row.chain) return null;
  return { index, epoch, kind, payload };
}

/**
 * The highest epoch that a log and what is applied give witness of. A replica whose record of promises is damaged goes
 * on listening from there; it does not vote, so it breaks none of what it has forgotten.
 */
export function witnessedEpoch(runs: readonly EpochRun[], appliedEpoch: number): number {
  return Math.max(appliedEpoch, ...runs.map(({ epoch }) => epoch));
}

/** What a boot sees of the tables: where the applied state stands, and what the ledger says. */
export interface TablesSeen {
  readonly applied: Pick<AppliedState, "index" | "chain" | "timeMs">;
  readonly ledgerRows: number;
  readonly newest: Pick<LedgerRow, "index" | "chain" | "timeMs"> | null;
}

/** Why the applied state and the ledger contradict each other; null when they don't. */
export function whyTablesDamaged({ applied, ledgerRows, newest }: TablesSeen): string | null {
  const { index, chain, timeMs } = applied;
  if ((newest?.index ?? 0) !== index) return `applied is ${index}, the ledger ends at ${newest?.index ?? 0}`;
  if (ledgerRows !== index) return `the ledger has ${ledgerRows} rows for ${index} applied entries`;
  if (newest !== null && newest.chain !== chain) return `the ledger's chain at ${index} is not the applied one`;
  if (newest !== null && newest.timeMs !== timeMs) return `log time is ${timeMs}, the ledger says ${newest.timeMs}`;
  return null;
}

/**
 * What an engine may say of the applied index when applied state and ledger contradict each other: no more than both hold,
 * and the chain that the ledger has there. It only serves to follow on until the tables are taken anew.
 */
export function believedApplied(
  applied: AppliedState,
  at: { readonly index: LogIndex; readonly row: Pick<LedgerRow, "chain" | "timeMs"> | null },
): AppliedState {
  const { index, row } = at;
  return { ...applied, index, chain: row?.chain ?? CHAIN_ZERO, timeMs: row?.timeMs ?? 0 };
}

export const PROMISES_DAMAGED = "the record of its term, its vote and its log's end is damaged";
export const PROMISES_MISSING =
  "the record of its term, its vote and its log's end is gone, and what it has applied is not";

/** What `rebuild` throws when the ledger is damaged too. */
export function unprovenEntries(replica: string, indexes: readonly LogIndex[]): ShardpactError {
  return new ShardpactError(
    "damaged",
    `log of replica ${replica}: entry ${indexes.join(", ")} is damaged, and so is its ledger row`,
    { details: { replica, ledger: indexes }, hint: "The replica takes its tables anew from its peers." },
  );
}
