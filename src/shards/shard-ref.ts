/**
 * Owns what readers must know of a shard, how errors name it, and setting a bad copy of it aside.
 */
import type { Digest } from "../model/bytes.ts";
import { isShardpactError, type ShardpactError } from "../model/errors.ts";
import type { PageEntry } from "../merkle/page.ts";
import type { ReadableStore } from "./port.ts";

/** A page entry without its split. */
export type ShardRef = Omit<PageEntry, "split">;

/** Where a shard stands, for messages. */
export interface ShardWhere {
  readonly dataset: string;
  readonly version: number;
}

/** Why a read went on with another store: its copy is bad (`shard_corrupt`), or it failed. */
export interface PassedOver {
  /** Its URL. */
  readonly store: string;
  readonly error: ShardpactError;
}

/** Sets a bad copy aside; a store that cannot (read-only) is simply not asked again by this reader. */
export async function quarantine(store: ReadableStore | undefined, digest: Digest, reason: Error): Promise<void> {
  try {
    await store?.quarantine(digest, reason.message);
  } catch (failure) {
    if (!isShardpactError(failure)) throw failure;
  }
}
