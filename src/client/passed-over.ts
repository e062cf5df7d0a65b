/**
 * Owns saying, once each, which copies and stores did not give what they should have while another one did.
 */
import type { PassedOver } from "../shards/shard-ref.ts";
import type { Notice } from "./session.ts";

/** Of a decaying disk so many are told, then that there are more. */
const TOLD_MAX = 64;

/** @param notice as `Session.notice` */
export function createPassedOverNotices(notice: (notice: Notice) => void): (passed: PassedOver) => void {
  const told = new Set<string>();
  return ({ store, error }) => {
    const { code, details, message } = error;
    const isBad = code === "shard_corrupt";
    const key = isBad ? `${store} ${String(details["digest"])}` : store;
    if (told.has(key) || told.size > TOLD_MAX) return;
    told.add(key);
    const isLast = told.size > TOLD_MAX;
    const more = isLast ? "; there are more, which are not told: check with `shardpact verify`" : "";
    notice({
      code: isBad ? "bad_copy" : "store_failed",
      message: isBad
        ? `${message}; another store has a good copy, and this one was set aside where the store allows it${more}`
        : `${store} was passed over, another store gave the bytes: ${message}${more}`,
      details: { store, error: error.toJSON() },
    });
  };
}
