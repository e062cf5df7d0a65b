/**
 * Owns the state machine's door: which rule reads and decides which kind of command.
 *
 * A rejection is an outcome like any other, recorded and repeated to retries; only a broken invariant is thrown.
 */
import type { Command, CommandKind } from "../model/commands.ts";
import { isShardpactError } from "../model/errors.ts";
import { configurationSign } from "./configuration-sign.ts";
import { epochCut } from "./epoch-cut.ts";
import { readerLease } from "./lease.ts";
import type { Outcome } from "./outcome.ts";
import { pagePut } from "./page-put.ts";
import { pinCreate, pinRelease } from "./pin.ts";
import { shardRevoke, versionRevoke } from "./revoke.ts";
import type { LogPoint, Rule } from "./rule.ts";
import type { Change, Need } from "./rows.ts";
import { runBegin, runEnd, runReceipt } from "./run.ts";
import { tagMove } from "./tag.ts";
import { versionCommit } from "./version-commit.ts";
import type { View } from "./view.ts";

const RULES: { readonly [K in CommandKind]: Rule<K> } = {
  "page.put": pagePut,
  "version.commit": versionCommit,
  "tag.move": tagMove,
  "pin.create": pinCreate,
  "pin.release": pinRelease,
  "run.begin": runBegin,
  "epoch.cut": epochCut,
  "run.receipt": runReceipt,
  "run.end": runEnd,
  "version.revoke": versionRevoke,
  "shard.revoke": shardRevoke,
  "reader.lease": readerLease,
  "configuration.sign": configurationSign,
};

export interface Decision {
  readonly changes: readonly Change[];
  readonly outcome: Outcome;
}

/** The rows that `decide` will read, and no others. */
export function needs(command: Command): readonly Need[] {
  return ruleOf(command).needs(command);
}

/**
 * What the command comes to at this point of the log.
 * @throws ShardpactError `internal` on a broken invariant, `damaged` when a stored row does not decode: both are this
 * replica's trouble, not an outcome that the others would come to as well
 */
export function decide(view: View, command: Command, at: LogPoint): Decision {
  try {
    const { changes, result } = ruleOf(command).decide(view, command, at);
    return { changes, outcome: { ok: true, result } };
  } catch (error) {
    if (!isShardpactError(error) || error.code === "internal" || error.code === "damaged") throw error;
    return { changes: [], outcome: { ok: false, error: error.toJSON() } };
  }
}

/** The table pairs each kind with its rule; TypeScript can't follow that pairing through an index, hence the cast. */
function ruleOf(command: Command): Rule<CommandKind> {
  return RULES[command.kind] as unknown as Rule<CommandKind>;
}
