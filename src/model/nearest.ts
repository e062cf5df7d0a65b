/**
 * Owns the answer to a mistyped name: which known names are near it.
 */

/** Names are compared up to this length, so that a stranger's long name costs little. */
const LENGTH_MAX = 128;

/**
 * Up to `max` of `names` within a third of the wanted name's length (at least 2) edits, or that start with it; nearest
 * first, then by name. Distance: insertions, deletions and replacements (Levenshtein).
 */
export function nearestNames(wanted: string, names: Iterable<string>, max = 3): string[] {
  const distanceMax = Math.max(2, Math.floor(wanted.length / 3));
  const near: { name: string; distance: number }[] = [];
  for (const name of new Set(names)) {
    const distance = editDistance(wanted.slice(0, LENGTH_MAX), name.slice(0, LENGTH_MAX));
    const extends_ = wanted.length > 0 && name.startsWith(wanted);
    if (distance <= distanceMax || extends_) near.push({ name, distance });
  }
  near.sort((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1));
  return near.slice(0, max).map(({ name }) => name);
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replace, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
