/**
 * Owns the copies of one shard in several stores: which is read next, and what becomes of one that is bad or fails.
 */
import { ShardpactError, toShardpactError } from "../model/errors.ts";
import type { ObjectHandle, ReadableStore } from "./port.ts";
import { quarantine, type PassedOver, type ShardRef, type ShardWhere } from "./shard-ref.ts";
import { untilAborted } from "./until-aborted.ts";

export interface CopiesOptions {
  readonly entry: ShardRef;
  readonly where: ShardWhere;
  /** In order of preference. They stay open. */
  readonly stores: readonly ReadableStore[];
  readonly signal?: AbortSignal;
  /** Told when another store gave what this one should have: nobody would learn of it otherwise. */
  readonly onPassedOver?: (passed: PassedOver) => void;
}

export interface Copies {
  /** The handle of the first store that is neither tried nor known to be bad. @throws what the last one failed with */
  next(
    tried: ReadonlySet<number>,
  ): Promise<{ readonly store: number; readonly url: string; readonly handle: ObjectHandle }>;
  /** Quarantines a corrupt copy for good, forgets a failed handle; rethrows what is not about the store. */
  failed(store: number, error: unknown): Promise<void>;
  /** A read succeeded: tells which stores did not help since the last one that did. */
  tellPassedOver(): void;
  close(): Promise<void>;
}

/** The copies of one shard in several stores, opened when first needed. */
export function openCopies({ entry, where, stores, signal, onPassedOver }: CopiesOptions): Copies {
  const handles = new Map<number, Promise<ObjectHandle>>();
  const retired: Promise<ObjectHandle>[] = [];
  const bad = new Set<number>();
  const passed: PassedOver[] = [];
  const told = new Set<string>(); // a store that fails is asked by each read
  let corruption: ShardpactError | null = null;
  let failure: ShardpactError | null = null;

  async function open(store: ReadableStore): Promise<ObjectHandle> {
    const handle = await untilAborted(signal, store.open(entry.digest, signal), (late) => late.close());
    if (handle.bytes === entry.bytes) return handle;
    await handle.close();
    throw wrongSize(entry, where, handle.bytes, store.url);
  }

  const copies: Copies = {
    async next(tried) {
      for (const [i, store] of stores.entries()) {
        if (tried.has(i) || bad.has(i)) continue;
        try {
          const opening = handles.get(i) ?? open(store);
          handles.set(i, opening);
          return { store: i, url: store.url, handle: await opening };
        } catch (error) {
          await copies.failed(i, error);
        }
      }
      throw corruption ?? failure ?? notFound(entry, where, stores);
    },

    async failed(i, error) {
      const typed = toShardpactError(error, "store_failed");
      if (typed.code === "aborted" || typed.code === "closed" || typed.code === "internal") throw typed;
      const opening = handles.get(i);
      handles.delete(i);
      if (opening) retired.push(opening);
      if (typed.code === "shard_corrupt") {
        corruption ??= typed;
        if (!bad.has(i)) await quarantine(stores[i], entry.digest, typed);
        bad.add(i);
      } else if (typed.code !== "not_found") {
        failure = typed;
      } else return;
      const store = stores[i]?.url ?? "";
      passed.push({ store, error: typed });
    },

    tellPassedOver() {
      for (const why of passed.splice(0)) {
        const key = `${why.store} ${why.error.code}`;
        if (!told.has(key)) onPassedOver?.(why);
        told.add(key);
      }
    },

    async close() {
      const open = [...retired.splice(0), ...handles.values()];
      handles.clear();
      await Promise.all(open.map((opening) => opening.then((handle) => handle.close()).catch(() => undefined)));
    },
  };
  return copies;
}

function wrongSize(entry: ShardRef, where: ShardWhere, got: number, store: string): ShardpactError {
  return new ShardpactError(
    "shard_corrupt",
    `${where.dataset}@v${where.version}: shard ${entry.name} in ${store} has ${got} of ${entry.bytes} bytes`,
    {
      details: { ...where, shard: entry.name, digest: entry.digest, bytes: entry.bytes, gotBytes: got, store },
      hint: "The copy was quarantined; fetch the shard again from a good store.",
    },
  );
}

function notFound(entry: ShardRef, where: ShardWhere, stores: readonly ReadableStore[]): ShardpactError {
  return new ShardpactError(
    "not_found",
    `${where.dataset}@v${where.version}: shard ${entry.name} (${entry.digest.slice(0, 11)}…) is in none of ` +
      `${stores.length} stores: ${stores.map((s) => s.url).join(", ")}`,
    {
      details: { ...where, shard: entry.name, digest: entry.digest, stores: stores.map((s) => s.url) },
      hint: "Name a store that holds it, or sync one from where it was published.",
    },
  );
}
