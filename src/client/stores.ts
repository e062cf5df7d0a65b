/**
 * Owns which shard stores a client uses, in which order: the caller's, the settings', a lock file's, the replicas' hints.
 *
 * Each store is opened once and closed with the group. Hints and lock files come from other machines: a folder of
 * theirs that is not here is passed over, never made.
 */
import { ShardpactError, toShardpactError } from "../model/errors.ts";
import { openCachedStore } from "../shards/cache/cached-store.ts";
import type { ShardStore } from "../shards/port.ts";
import { mayBeHere, openStore, storeUrl } from "../shards/stores/open-store.ts";
import type { Notice } from "./session.ts";
import type { CacheSettings } from "./settings.ts";

export interface Stores extends AsyncDisposable {
  /** URLs of what is configured and hinted at, in order. */
  urls(): readonly string[];
  /** To read from: `named` by the caller (must open), configured ones, then those `found` elsewhere that are here. */
  readable(named?: readonly string[], found?: readonly string[]): Promise<readonly ShardStore[]>;
  /** To publish into: the first named, configured or hinted. @throws ShardpactError `config_invalid`, `store_failed` */
  writable(named?: readonly string[]): Promise<ShardStore>;
  close(): Promise<void>;
}

export interface StoresOptions {
  readonly configured: readonly string[];
  readonly hints: readonly string[];
  readonly onNotice: (notice: Notice) => void;
  /** Remote stores are read through it. */
  readonly cache: CacheSettings | null;
  /** NKey seed for stores in NATS. */
  readonly seed?: string;
}

export function openStores({ configured, hints, onNotice, cache, seed }: StoresOptions): Stores {
  const opened = new Map<string, Promise<ShardStore>>();
  const openOnce = (key: string, opener: () => Promise<ShardStore>): Promise<ShardStore> => {
    const known = opened.get(key);
    if (known) return known;
    const opening = opener();
    opened.set(key, opening);
    opening.catch(() => opened.delete(key)); // the next call tries again
    return opening;
  };
  const open = (url: string) => openOnce(url, () => openStore(url, seed === undefined ? {} : { seed }));
  const openFound = async (url: string): Promise<ShardStore | null> => {
    if (!(await mayBeHere(url))) return null;
    return open(url).catch((error: unknown) => {
      onNotice({
        code: "store_skipped",
        message: `the store ${url} is not used: ${toShardpactError(error).message}`,
        details: { url },
      });
      return null;
    });
  };

  /** The cache stands before the first remote store; the stores themselves stay behind it. */
  const throughCache = async (found: readonly ShardStore[]): Promise<readonly ShardStore[]> => {
    const remote = found.filter(({ url }) => !url.startsWith("file:"));
    if (cache === null || remote.length === 0) return found;
    const key = ["cache", ...remote.map(({ url }) => url)].join(" ");
    const cached = await openOnce(key, () => openCachedStore(remote, cache));
    return found.flatMap((store) => (store === remote[0] ? [cached, store] : [store]));
  };

  const stores: Stores = {
    urls: () => distinct([...configured, ...hints].map(storeUrl)),
    readable: async (named = [], found = []) => {
      const sure = distinct([...named, ...configured].map(storeUrl));
      const maybe = distinct([...found, ...hints].map(storeUrl)).filter((url) => !sure.includes(url));
      const all = await Promise.all([...sure.map(open), ...maybe.map(openFound)]);
      return throughCache(all.filter((store) => store !== null));
    },
    writable: async (named = []) => {
      const [first] = [...named, ...configured];
      if (first !== undefined) return open(storeUrl(first));
      for (const hint of hints) {
        const store = await openFound(storeUrl(hint));
        if (store) return store;
      }
      throw new ShardpactError("config_invalid", "there is no shard store to write to", {
        details: { hints },
        hint: 'Name one: --store DIR, connect({ stores: [DIR] }), or "stores" in shardpact.json.',
      });
    },
    close: async () => {
      const all = await Promise.allSettled(opened.values());
      opened.clear();
      await Promise.all(all.flatMap((r) => (r.status === "fulfilled" ? [r.value.close()] : [])));
    },
    [Symbol.asyncDispose]: () => stores.close(),
  };
  return stores;
}

function distinct(values: readonly string[]): string[] {
  return [...new Set(values)];
}
