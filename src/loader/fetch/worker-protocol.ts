/**
 * Owns what a loader and its reading worker say to each other. Bytes never travel: they lie in shared memory.
 *
 *   loader ── map, read, forget, close ──▶ worker        worker ── done, failed ──▶ loader
 *   loader ◀── passed_over ── worker                     of a store that did not help
 *   loader ◀── open, fill, release, quarantine ── worker  for stores that the worker can't open itself; answered by answer
 */
import type { MessagePort } from "node:worker_threads";
import type { ErrorJson } from "../../model/errors.ts";
import type { Digest } from "../../model/bytes.ts";
import type { StoreSpec } from "../../shards/port.ts";
import type { ShardRef, ShardWhere } from "../../shards/shard-ref.ts";
import type { Hashing, Part, ShardMap } from "./reads.ts";

/** A place in shared memory. */
export interface SharedBytes {
  readonly memory: SharedArrayBuffer;
  readonly offset: number;
  readonly bytes: number;
}

/** What a worker is started with. */
export interface WorkerSetup {
  /** All that the two say goes over this one: what has come can be taken off it without a turn of the event loop. */
  readonly port: MessagePort;
  readonly where: ShardWhere;
  readonly hashing: Hashing;
  readonly indexBytesMax: number | undefined;
  /** In order of preference; `spec` null: the loader is asked for its bytes. */
  readonly stores: readonly { readonly url: string; readonly spec: StoreSpec | null }[];
}

export type WorkerCall =
  | { readonly kind: "map"; readonly shard: ShardRef }
  | {
      readonly kind: "read";
      readonly shard: ShardRef;
      readonly segment: number;
      readonly parts: readonly Part[];
      readonly target: SharedBytes;
    }
  | { readonly kind: "forget" }
  | { readonly kind: "close" };

export type StoreCall =
  | { readonly kind: "open"; readonly store: number; readonly digest: Digest }
  | { readonly kind: "fill"; readonly handle: number; readonly position: number; readonly target: SharedBytes }
  | { readonly kind: "release"; readonly handle: number }
  | { readonly kind: "quarantine"; readonly store: number; readonly digest: Digest; readonly reason: string };

/** What `open` answers; the others answer a number of bytes or nothing. */
export interface OpenedHandle {
  readonly handle: number;
  readonly bytes: number;
}

export type Outcome<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: ErrorJson };

export type ToWorker =
  /** What was called at a stretch: waking a thread costs more than a call. */
  | { readonly kind: "calls"; readonly calls: readonly { readonly id: number; readonly call: WorkerCall }[] }
  | { readonly kind: "answer"; readonly id: number; readonly outcome: Outcome<unknown> };

export type FromWorker =
  | { readonly kind: "ready" }
  /** `verifiedBytes`: all so far. */
  | {
      readonly kind: "done";
      readonly id: number;
      readonly outcome: Outcome<ShardMap | null>;
      readonly verifiedBytes: number;
    }
  | { readonly kind: "passed_over"; readonly store: string; readonly error: ErrorJson }
  | { readonly kind: "ask"; readonly id: number; readonly call: StoreCall };

/** A view of shared memory as it travels. */
export function shareBytes(view: Uint8Array): SharedBytes {
  return { memory: view.buffer as unknown as SharedArrayBuffer, offset: view.byteOffset, bytes: view.byteLength };
}

export function viewOf({ memory, offset, bytes }: SharedBytes): Uint8Array {
  return new Uint8Array(memory as unknown as ArrayBuffer, offset, bytes);
}
