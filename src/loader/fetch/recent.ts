/**
 * Owns a bounded table of what was made recently: the longest unused goes first; what failed is made again.
 */
export interface Recent<K, V> {
  get(key: K, make: () => V): V;
  clear(): void;
}

export function createRecent<K, V extends Promise<unknown>>(countMax: number): Recent<K, V> {
  const all = new Map<K, V>(); // the longest unused first
  return {
    get(key, make) {
      const known = all.get(key);
      if (known) all.delete(key);
      const value = known ?? make();
      all.set(key, value);
      if (known) return value;
      value.catch(() => {
        if (all.get(key) === value) all.delete(key);
      });
      for (const oldest of all.keys()) {
        if (all.size <= countMax) break;
        all.delete(oldest);
      }
      return value;
    },
    clear: () => all.clear(),
  };
}
