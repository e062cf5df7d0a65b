/**
 * Owns the checks between two lives of a replica: is this the database that it had, and would another boot help?
 */
import { bytesEqual } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import type { LogState } from "../storage/port.ts";
import type { Promised } from "./persist-queue.ts";

/** What another boot would answer again. */
export function isFinal(error: ShardpactError): boolean {
  return error.code === "config_invalid" || error.code === "damaged" || error.code === "upgrade_required";
}

/** A snapshot of this very group that is not this replica's history, or not its rows. */
export function isContradicted(error: ShardpactError): boolean {
  return error.code === "group_forked" || error.code === "replica_diverged";
}

/** @throws ShardpactError `config_invalid` when the log begins with another group's first entry. */
export function checkGenesis({ configurations }: LogState, genesisBytes: Uint8Array): void {
  const first = configurations[0];
  if (!first || first.index !== 1 || bytesEqual(first.payload, genesisBytes)) return;
  throw new ShardpactError("config_invalid", "this database holds the log of another group", {
    hint: "Give the replica the genesis that its database was made with, or another database.",
  });
}

/** Why the database behind this process is not the one, or older than the one, that it used before; else null. */
export function wentBack(before: LogState, promised: Promised, now: LogState): string | null {
  if (now.incarnation !== before.incarnation) return "another database took the place of this replica's";
  if (now.boot <= before.boot)
    return `the database went back: boot ${before.boot} was used and now it counts ${now.boot}`;
  const { epoch, votedFor } = promised.hardState;
  if (now.hardState.epoch < epoch) return `the database went back behind epoch ${epoch}, which it held`;
  if (now.hardState.epoch === epoch && votedFor !== null && now.hardState.votedFor !== votedFor)
    return `the database has forgotten its vote of epoch ${epoch}`;
  const reached = Math.max(now.lastIndex, now.promisedLast ?? 0);
  if (reached < promised.lastIndex)
    return `the database held entries up to ${promised.lastIndex} and now ends at ${reached}`;
  return null;
}
