/**
 * Owns a bounded map that forgets what was not used lately, in two generations: what is used stands in the young one, and
 * when that is full, it becomes the old one and the old one goes. An entry's use costs no removal, as keeping all of
 * them in the order of their use would.
 */
export interface RecentMap<T> {
  /** Undefined: not known here (any more). Counts as a use. */
  get(key: string): T | undefined;
  set(key: string, value: T): void;
  delete(key: string): void;
  clear(): void;
}

/** Holds the last `entriesMax / 2` entries that were used, and at most `entriesMax`. */
export function createRecentMap<T>(entriesMax: number): RecentMap<T> {
  let young = new Map<string, T>();
  let old = new Map<string, T>();

  function set(key: string, value: T): void {
    young.set(key, value);
    if (young.size < entriesMax / 2) return;
    old = young;
    young = new Map();
  }

  return {
    get(key) {
      const value = young.get(key);
      if (value !== undefined) return value;
      const older = old.get(key);
      if (older !== undefined) set(key, older);
      return older;
    },
    set,
    delete(key) {
      young.delete(key);
      old.delete(key);
    },
    clear() {
      young.clear();
      old.clear();
    },
  };
}
