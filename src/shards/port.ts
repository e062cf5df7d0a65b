/**
 * Owns the port `ShardStore`: immutable objects (shards and segment indexes) under the BLAKE3 digest of their bytes.
 *
 * A store is never believed: whoever reads hashes what came. Every adapter passes `test/contract/shard-store.ts`.
 */
import type { Digest } from "../model/bytes.ts";

export interface ObjectInfo {
  readonly digest: Digest;
  readonly bytes: number;
}

/** An open object. Reads may overlap. */
export interface ObjectHandle extends AsyncDisposable {
  readonly bytes: number;
  /**
   * Fills `target` from `position` on; resolves with the bytes read, fewer only at the end of the object. Ends within a deadline of
   * the store's own; once it has ended, `target` is not written to any more. @throws `store_failed`
   */
  readInto(target: Uint8Array, position: number): Promise<number>;
  close(): Promise<void>;
}

export interface PutOptions {
  /**
   * How the digest is made of the bytes: `plain` BLAKE3 (shards, the default), or under the context of segment indexes
   * (`segmentIndexDigest`). Both live in one space of digests.
   */
  readonly context?: "plain" | "segmentIndex";
  /** The object's size, when it is known: if a whole copy is there, the source is not read at all. */
  readonly bytes?: number;
  /** Told of each piece of the source that was written, or of the copy there that was read. */
  readonly onBytes?: (bytes: number) => void;
  readonly signal?: AbortSignal;
  /**
   * From when on the object outlasts a power loss: once the put has ended (the default), or once the store is `settled`, for puts of
   * many objects. Before, a power loss may take it away whole; part of one is never seen.
   */
  readonly lasts?: Lasts;
}

export type Lasts = "put" | "settled";

/** What another thread of this process needs to open the same store: plain data, for `openStoreAgain`. */
export type StoreSpec = { readonly kind: "directory"; readonly url: string };

/** What verified reading asks of a store. */
export type ReadableStore = Pick<ShardStore, "url" | "spec" | "open" | "quarantine">;

export interface ShardStore extends AsyncDisposable {
  /** For messages: where the bytes are (`file:///…`). */
  readonly url: string;
  /** How a reading thread opens it for itself. Without it, the thread asks this one for the bytes. */
  readonly spec?: StoreSpec;
  /** @throws `not_found`, `store_failed`, `aborted` */
  open(digest: Digest, signal?: AbortSignal): Promise<ObjectHandle>;
  stat(digest: Digest): Promise<ObjectInfo | null>;
  /**
   * Sees to it that a whole copy is there. One that is there already is read and hashed, and replaced when it is damaged;
   * else the source is written aside, hashed, made durable, then renamed. @throws `shard_corrupt` when the bytes do not hash to `digest`, `store_failed`
   */
  put(digest: Digest, source: AsyncIterable<Uint8Array>, options?: PutOptions): Promise<"stored" | "present">;
  /**
   * Makes everything last that any opening of this store has put to last when `settled`. Absent where puts last at once.
   * @throws `store_failed`
   */
  settle?(): Promise<void>;
  list(): AsyncIterable<ObjectInfo>;
  /** Moves a bad copy aside, so that it is never read again; keeps it as evidence. */
  quarantine(digest: Digest, reason: string): Promise<void>;
  close(): Promise<void>;
}
