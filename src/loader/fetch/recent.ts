/**
 * Owns a table of what was made recently, bounded in bytes: the longest unused goes first; what failed is made again.
 */
export interface Recent<K, V> {
  get(key: K, make: () => Promise<V>): Promise<V>;
  /** The value of a key takes another amount of memory now. */
  resized(key: K): void;
  /** What all values take, about. */
  readonly bytes: number;
  clear(): void;
}

interface Entry<V> {
  value: Promise<V>;
  /** Once it is made. */
  measure: (() => number) | null;
  bytes: number;
}

/** @param bytesOf what a value takes; the one that was made last stays, however much that is */
export function createRecent<K, V>(bytesMax: number, bytesOf: (value: V) => number): Recent<K, V> {
  const all = new Map<K, Entry<V>>(); // the longest unused first
  let total = 0;

  function resize(key: K, entry: Entry<V>): void {
    if (all.get(key) !== entry || entry.measure === null) return;
    const bytes = entry.measure();
    total += bytes - entry.bytes;
    entry.bytes = bytes;
    for (const [oldest, other] of all) {
      if (total <= bytesMax) break;
      if (other === entry || other.measure === null) continue;
      all.delete(oldest);
      total -= other.bytes;
    }
  }

  function start(key: K, make: () => Promise<V>): Entry<V> {
    const entry: Entry<V> = { value: make(), measure: null, bytes: 0 };
    entry.value.then(
      (made) => {
        entry.measure = () => bytesOf(made);
        resize(key, entry);
      },
      () => {
        if (all.get(key) === entry) all.delete(key);
      },
    );
    return entry;
  }

  return {
    get(key, make) {
      const known = all.get(key);
      if (known) all.delete(key);
      const entry = known ?? start(key, make);
      all.set(key, entry);
      return entry.value;
    },
    resized(key) {
      const entry = all.get(key);
      if (entry) resize(key, entry);
    },
    get bytes() {
      return total;
    },
    clear() {
      all.clear();
      total = 0;
    },
  };
}
