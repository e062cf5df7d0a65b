/**
 * Owns how a batch of chosen entries becomes rows: pure, over rows loaded beforehand.
 *
 * A batch comes to what its entries come to one by one (I13): each command sees the changes of those before it, and the
 * first outcome of a command id is its only one (I12). A store calls `needsOfBatch`, loads those rows and recorded
 * outcomes, calls `applyBatch`, and writes what it returns in one transaction.
 */
import { decodeCommand, readStamp } from "../model/commands.ts";
import type { Command, CommandKind } from "../model/commands.ts";
import { invariant, isShardpactError, ShardpactError } from "../model/errors.ts";
import type { ErrorJson } from "../model/errors.ts";
import { hashHexAs } from "../merkle/hash.ts";
import { CHAIN_ZERO, chainNext, stateDigestNext } from "./chain.ts";
import { decide, needs } from "./decide.ts";
import type { Decision } from "./decide.ts";
import type { Outcome } from "./outcome.ts";
import type { Change, Need, Row } from "./rows.ts";
import { mergeNeeds, openOverlay, putChanges, rowKey, viewOf } from "./view.ts";
import type { Overlay } from "./view.ts";

export type { Outcome };

/** What is recorded, in the same transaction as the rows, about how far the log is applied. */
export interface AppliedState {
  readonly index: number;
  /** Hex, 32 bytes; 64 zeros before the first entry. Cᵢ = hashAs("chain", Cᵢ₋₁ ‖ u64le i ‖ u8 kind ‖ payload). */
  readonly chain: string;
  /** Hex: chains a digest of the changes that each apply made. */
  readonly stateDigest: string;
  /** Log time: max of all entries' times so far, in ms. */
  readonly timeMs: number;
}

export const APPLIED_ZERO: AppliedState = { index: 0, chain: CHAIN_ZERO, stateDigest: CHAIN_ZERO, timeMs: 0 };

/** One chosen entry, as the log holds it. */
export interface ChosenEntry {
  readonly index: number;
  readonly epoch: number;
  readonly kind: "noop" | "config" | "command";
  readonly payload: Uint8Array;
}

/** One ledger row: one per index, for ever. */
export interface LedgerRow {
  readonly index: number;
  readonly epoch: number;
  readonly timeMs: number;
  /** `noop` and `config` entries have no actor and no command id. */
  readonly kind: CommandKind | "noop" | "config" | "invalid";
  readonly actor: string | null;
  /** Null for a retry and for a reused id: unique otherwise. */
  readonly commandId: string | null;
  /** Index at which the command was applied first; null for a first. */
  readonly retryOf: number | null;
  readonly bodyDigest: string | null;
  readonly payload: Uint8Array;
  readonly outcome: Outcome;
  readonly chain: string;
}

/** What the shell needs to answer a client. */
export interface AppliedEntry {
  readonly index: number;
  readonly epoch: number;
  readonly commandId: string | null;
  /** True when the command id had been applied before: `outcome` and `firstIndex` are the first's. */
  readonly retry: boolean;
  readonly firstIndex: number;
  readonly outcome: Outcome;
  readonly timeMs: number;
  readonly chain: string;
}

/** What the ledger holds of a command id. */
export interface RecordedOutcome {
  readonly index: number;
  readonly bodyDigest: string;
  readonly outcome: Outcome;
}

export interface BatchInput {
  /** Contiguous, from `state.index` + 1 on. */
  readonly entries: readonly ChosenEntry[];
  readonly state: AppliedState;
  /** What `needsOfBatch` asked for, as far as it exists, in any order. */
  readonly rows: readonly Row[];
  /** By command id, those that the ledger already holds. */
  readonly outcomes: ReadonlyMap<string, RecordedOutcome>;
}

export interface BatchOutput {
  readonly state: AppliedState;
  /** The last put of each primary key, in the order in which keys were first put. */
  readonly changes: readonly Change[];
  readonly ledger: readonly LedgerRow[];
  readonly applied: readonly AppliedEntry[];
}

/**
 * Rows to load, and command ids to look up in the ledger, before `applyBatch`.
 * @throws ShardpactError `upgrade_required` on a command kind or payload version that this build does not know
 */
export function needsOfBatch(entries: readonly ChosenEntry[]): { needs: Need[]; commandIds: string[] } {
  const commands = entries.map(interpret).filter((meaning) => meaning.kind === "command");
  return {
    needs: mergeNeeds(commands.flatMap((meaning) => meaning.needs)),
    commandIds: [...new Set(commands.map(({ command }) => command.id))],
  };
}

/**
 * The command of a payload that this process is about to propose; applying it later does not decode it again.
 * @throws ShardpactError `invalid_argument`, `upgrade_required`
 */
export function admitPayload(payload: Uint8Array): Command {
  const meaning = interpretPayload(payload);
  if (meaning.kind === "invalid") throw ShardpactError.fromJSON({ ...meaning.error, code: "invalid_argument" });
  invariant(meaning.kind === "command", "a payload that is not invalid is a command");
  meanings.set(payload, meaning);
  return meaning.command;
}

/**
 * Decides the entries in order.
 * @throws ShardpactError `upgrade_required` as `needsOfBatch`; `internal` when an invariant does not hold, `damaged` when
 * a loaded row does not decode. Then nothing of the batch may be written.
 */
export function applyBatch({ entries, state, rows, outcomes }: BatchInput): BatchOutput {
  const overlay = openOverlay(rows);
  const recorded = new Map(outcomes);
  const changes = new Map<string, Change>();
  const ledger: LedgerRow[] = [];
  const applied: AppliedEntry[] = [];
  let now = state;
  for (const entry of entries) {
    invariant(entry.index === now.index + 1, `entry ${entry.index} follows ${now.index}`);
    const meaning = interpret(entry);
    const timeMs = Math.max(now.timeMs, meaning.timeMs);
    const step = settle(meaning, { index: entry.index, timeMs }, overlay, recorded);
    putChanges(overlay, step.changes);
    for (const change of step.changes) changes.set(rowKey(change.row), change);
    now = {
      index: entry.index,
      timeMs,
      chain: chainNext(now.chain, entry),
      stateDigest: stateDigestNext(now.stateDigest, { index: entry.index, timeMs }, step),
    };
    ledger.push(ledgerRow(entry, now, meaning, step));
    applied.push(appliedEntry(entry, now, meaning, step));
  }
  for (const { payload } of entries) meanings.delete(payload);
  return { state: now, changes: [...changes.values()], ledger, applied };
}

/** An entry's payload, understood. `timeMs` is 0 where it has none, which moves no log time. */
type Meaning =
  | { readonly kind: "noop" | "config"; readonly timeMs: 0 }
  | { readonly kind: "invalid"; readonly timeMs: number; readonly error: ErrorJson }
  | {
      readonly kind: "command";
      readonly timeMs: number;
      readonly command: Command;
      readonly needs: readonly Need[];
      readonly bodyDigest: string;
    };

/** What was understood once is kept with its payload until it is applied: nobody writes into a payload. */
const meanings = new WeakMap<Uint8Array, Meaning>();

function interpret(entry: ChosenEntry): Meaning {
  if (entry.kind !== "command") return { kind: entry.kind, timeMs: 0 };
  let meaning = meanings.get(entry.payload);
  if (!meaning) meanings.set(entry.payload, (meaning = interpretPayload(entry.payload)));
  return meaning;
}

function interpretPayload(payload: Uint8Array): Meaning {
  let timeMs = 0;
  try {
    const stamp = readStamp(payload);
    timeMs = stamp.timeMs;
    const command = decodeCommand(stamp.encoded);
    const bodyDigest = hashHexAs("commandBody", stamp.encoded);
    return { kind: "command", timeMs, command, needs: needs(command), bodyDigest };
  } catch (error) {
    if (!isShardpactError(error, "damaged") && !isShardpactError(error, "invalid_argument")) throw error;
    return { kind: "invalid", timeMs, error: error.toJSON() };
  }
}

interface Step extends Decision {
  /** Set when the command id was applied before, with the same body. */
  readonly retryOf: number | null;
  /** True when the outcome is recorded under the command's id. */
  readonly first: boolean;
}

function settle(
  meaning: Meaning,
  at: { index: number; timeMs: number },
  overlay: Overlay,
  recorded: Map<string, RecordedOutcome>,
): Step {
  const plain = { changes: [], retryOf: null, first: false };
  if (meaning.kind === "invalid") return { ...plain, outcome: { ok: false, error: meaning.error } };
  if (meaning.kind !== "command") return { ...plain, outcome: { ok: true, result: {} } };
  const { command, bodyDigest } = meaning;
  const before = recorded.get(command.id);
  if (before && before.bodyDigest === bodyDigest) return { ...plain, outcome: before.outcome, retryOf: before.index };
  if (before) return { ...plain, outcome: { ok: false, error: reused(command.id, before.index).toJSON() } };
  const decision = decide(viewOf(overlay, meaning.needs), command, at);
  recorded.set(command.id, { index: at.index, bodyDigest, outcome: decision.outcome });
  return { ...decision, retryOf: null, first: true };
}

function ledgerRow(entry: ChosenEntry, now: AppliedState, meaning: Meaning, step: Step): LedgerRow {
  const command = meaning.kind === "command" ? meaning.command : null;
  return {
    index: entry.index,
    epoch: entry.epoch,
    timeMs: now.timeMs,
    kind: command ? command.kind : (meaning.kind as "noop" | "config" | "invalid"),
    actor: command?.actor ?? null,
    commandId: command && step.first ? command.id : null,
    retryOf: step.retryOf,
    bodyDigest: meaning.kind === "command" ? meaning.bodyDigest : null,
    payload: entry.payload,
    outcome: step.outcome,
    chain: now.chain,
  };
}

function appliedEntry(entry: ChosenEntry, now: AppliedState, meaning: Meaning, step: Step): AppliedEntry {
  return {
    index: entry.index,
    epoch: entry.epoch,
    commandId: meaning.kind === "command" ? meaning.command.id : null,
    retry: step.retryOf !== null,
    firstIndex: step.retryOf ?? entry.index,
    outcome: step.outcome,
    timeMs: now.timeMs,
    chain: now.chain,
  };
}

function reused(commandId: string, index: number): ShardpactError {
  return new ShardpactError(
    "command_id_reused",
    `command id ${commandId} was used at index ${index} for another body`,
    {
      details: { commandId, index },
      hint: "Give every new command an id of its own.",
    },
  );
}
