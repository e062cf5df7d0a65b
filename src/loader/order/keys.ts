/**
 * Owns the keys of `sp-order/1`: one per epoch, and the sub-keys drawn from it (`docs/order.md` §1).
 */
import { u64le } from "../../model/bytes.ts";
import type { OrderSpec } from "../../model/commands.ts";
import { hashAs } from "../../merkle/hash.ts";
import { STRENGTH_CODES } from "./spec.ts";

/** What a sub-key is for. */
export const KEY_USES = { rows: 0, blocks: 1, window: 2, augment: 3 } as const;
export type KeyUse = keyof typeof KEY_USES;

/** The key of one epoch: 32 bytes. `root` and `selection` are raw digests of 32 bytes. */
export function epochKey(
  root: Uint8Array,
  selection: Uint8Array,
  order: Pick<OrderSpec, "strength" | "seed">,
  epoch: number | bigint,
): Uint8Array {
  const strength = new Uint8Array([STRENGTH_CODES[order.strength]]);
  return hashAs("order", root, selection, strength, u64le(BigInt(order.seed)), u64le(epoch));
}

/** A sub-key: 32 bytes. `lane` and `window` are 0 where they do not apply; for `augment`, `lane` is the row. */
export function subKey(key: Uint8Array, use: KeyUse, lane = 0, window = 0): Uint8Array {
  return hashAs("orderRound", key, new Uint8Array([KEY_USES[use]]), u64le(lane), u64le(window));
}
