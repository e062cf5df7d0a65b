/**
 * Owns what a command came to.
 */
import type { ErrorJson } from "../model/errors.ts";

/** A rejection is recorded like a success: the retry gets the same answer. */
export type Outcome =
  | { readonly ok: true; readonly result: Readonly<Record<string, unknown>> }
  | { readonly ok: false; readonly error: ErrorJson };
