/**
 * Owns how a batch of chosen entries becomes rows: pure, over rows loaded beforehand.
 * (Types first: stores and the shell build on them.)
 */
import type { CommandKind } from "../model/commands.ts";
import type { ErrorJson } from "../model/errors.ts";

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

export const APPLIED_ZERO: AppliedState = { index: 0, chain: "0".repeat(64), stateDigest: "0".repeat(64), timeMs: 0 };

/** One ledger row: one per index, for ever. */
export interface LedgerRow {
  readonly index: number;
  readonly epoch: number;
  readonly timeMs: number;
  /** `noop` and `config` entries have no actor and no command id. */
  readonly kind: CommandKind | "noop" | "config" | "invalid";
  readonly actor: string | null;
  /** Null for a retry: `retryOf` then names the index of the first. Unique otherwise. */
  readonly commandId: string | null;
  readonly retryOf: number | null;
  readonly bodyDigest: string | null;
  readonly payload: Uint8Array;
  readonly outcome: Outcome;
  readonly chain: string;
}

/** What a command came to. A rejection is recorded like a success: the retry gets the same answer. */
export type Outcome =
  | { readonly ok: true; readonly result: Readonly<Record<string, unknown>> }
  | { readonly ok: false; readonly error: ErrorJson };

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
