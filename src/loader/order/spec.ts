/**
 * Owns the shape of an order: strength, block rows n, lanes K, blocks per lane window g, and how options become it.
 *
 * Everything follows from the version's totals and the caller's options, never from the host: the same call gives the
 * same order on every machine. The result is recorded in `LoaderState` and in the run's plan.
 */
import { ShardpactError } from "../../model/errors.ts";
import type { OrderSpec } from "../../model/commands.ts";

export type Strength = OrderSpec["strength"];

/** What a caller may say about shuffling. `true` is `window`, `false` is `none`. */
export type Shuffle =
  | boolean
  | Strength
  | { readonly strength: Strength; readonly windowBytes?: number; readonly lanes?: number };

/** The number of each strength in the order's key. */
export const STRENGTH_CODES: Readonly<Record<Strength, number>> = { none: 0, block: 1, window: 2, full: 3 };

export const BLOCK_BYTES = 1024 * 1024;
export const BLOCK_ROWS_MAX = 65_536;
export const LANES_DEFAULT = 64;
export const LANES_MAX = 4096;
export const WINDOW_BYTES_DEFAULT = 256 * 1024 * 1024;
/** n·g: the in-window shuffle multiplies a 32-bit word by this, exactly. */
export const WINDOW_ROWS_MAX = 2 ** 20;

/** Rows of a block: as many as fill 1 MiB at the selection's mean row size, at least 1, at most 2¹⁶. */
export function blockRows(rows: number, bytes: number): number {
  if (rows === 0) return 1;
  const rowBytes = Math.max(1, Math.ceil(bytes / rows));
  return Math.min(BLOCK_ROWS_MAX, Math.max(1, Math.floor(BLOCK_BYTES / rowBytes)));
}

/**
 * The order of a selection of `rows` rows and `bytes` bytes.
 * `window` becomes `full` when the window holds the whole selection. @throws ShardpactError `invalid_argument`
 */
export function resolveOrder(rows: number, bytes: number, shuffle: Shuffle | undefined, seed: bigint): OrderSpec {
  const wanted = typeof shuffle === "object" ? shuffle : { strength: strengthOf(shuffle) };
  if (!Object.hasOwn(STRENGTH_CODES, wanted.strength)) {
    throw new ShardpactError("invalid_argument", `'${String(wanted.strength)}' is not a shuffle strength`, {
      hint: "Use none, block, window or full.",
    });
  }
  const lanes = wanted.lanes ?? LANES_DEFAULT;
  if (!Number.isInteger(lanes) || lanes < 1 || lanes > LANES_MAX || !Number.isInteger(Math.log2(lanes))) {
    throw new ShardpactError("invalid_argument", `lanes must be a power of two up to ${LANES_MAX}, not ${lanes}`);
  }
  const windowBytes = wanted.windowBytes ?? WINDOW_BYTES_DEFAULT;
  if (!Number.isSafeInteger(windowBytes) || windowBytes < 1) {
    throw new ShardpactError("invalid_argument", `windowBytes must be a positive integer, not ${windowBytes}`);
  }
  const n = blockRows(rows, bytes);
  const strength = wanted.strength === "window" && windowBytes >= bytes ? "full" : wanted.strength;
  const spec = { alg: "sp-order/1", strength, seed: seed.toString(), n } as const;
  if (strength !== "window") return { ...spec, K: 1, g: 1 };
  const g = Math.max(1, Math.floor(windowBytes / (lanes * BLOCK_BYTES)));
  return { ...spec, K: lanes, g: Math.min(g, Math.floor(WINDOW_ROWS_MAX / n)) };
}

function strengthOf(shuffle: boolean | Strength | undefined): Strength {
  if (shuffle === true) return "window";
  return shuffle === false || shuffle === undefined ? "none" : shuffle;
}

/** A seed as the order takes it. @throws ShardpactError `invalid_argument` outside u64. */
export function parseSeed(seed: number | bigint | string): bigint {
  const valid =
    typeof seed === "number" ? Number.isSafeInteger(seed) : typeof seed === "bigint" || /^\d{1,20}$/.test(seed);
  const value = valid ? BigInt(seed) : -1n;
  if (value < 0n || value >= 2n ** 64n) {
    const isInexact = typeof seed === "number" && Number.isInteger(seed) && seed >= 0;
    throw new ShardpactError("invalid_argument", `the seed ${String(seed)} is not an integer from 0 to 2^64−1`, {
      hint: isInexact ? "As a number it is not exact beyond 2^53−1: write a bigint, 12345678901234567890n." : "",
    });
  }
  return value;
}
