/**
 * Owns the door through which shard bytes reach a loader, whichever thread reads and hashes them.
 *
 * `createInlineReads` works in the caller's thread, `createWorkerReads` in a thread of its own; both pass the same tests.
 * Nothing comes out of a `read` that did not match the agreed index.
 */
import type { SegmentIndex } from "../../merkle/segment-index.ts";
import type { ShardRef } from "../../shards/shard-ref.ts";

/** Bytes [from, to) of a segment, and where in the target they go. */
export interface Part {
  readonly from: number;
  readonly to: number;
  readonly at: number;
}

export interface ShardReads {
  /** What the shard is made of. @throws `shard_corrupt`, `shard_malformed`, `not_found`, `store_failed`, `closed` */
  map(shard: ShardRef): Promise<ShardMap>;
  /**
   * Copies parts of a segment, in the order of their bytes, into `target`, each leaf that they touch verified first.
   * @throws `shard_corrupt`, `not_found`, `store_failed`, `worker_failed`, `aborted`, `closed`
   */
  read(shard: ShardRef, segment: number, parts: readonly Part[], target: Uint8Array): Promise<void>;
  /** Verified bytes so far, leaf by leaf: what was read for what was wanted. */
  readonly verifiedBytes: number;
  /** Settles what other threads have read by now, which else waits for a turn of the event loop. */
  takeAnswers(): void;
  /** Closes all shards that are open; the next read opens them again. */
  forget(): Promise<void>;
  /** Ends what runs. Idempotent. */
  close(): Promise<void>;
}

/** A checked segment index without its digests. */
export type ShardMap = Pick<SegmentIndex, "segments" | "dictionaryIds">;

/** How leaves are checked. `none` is for benchmarks: no public option leads there. */
export type Hashing = "blake3" | "none";

/** A whole segment of `bytes` bytes as one part. */
export const wholePart = (bytes: number): readonly Part[] => [{ from: 0, to: bytes, at: 0 }];
