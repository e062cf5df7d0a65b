/**
 * Owns positional splits: rows held out of files that are published as they are, by their place in the file.
 *
 * Each shard is cut in stripes of 1,024 rows. In a stripe of L rows, row i belongs to the held-out split j (names sorted
 * bytewise) iff T(j−1) ≤ P(i) < T(j), where P permutes the stripe under keys from (file digest, salt, stripe) and T adds up the
 * splits' quotas: q(j) = ⌊ppm(j)·end ÷ 10⁶⌋ − ⌊ppm(j)·start ÷ 10⁶⌋, capped so that T never exceeds L. All integers, so totals are
 * exact without a scan, reads stay local, and a file keeps its rows when others are added. Rows of equal content may land
 * on both sides: that is what a split by key, or by folders, is for.
 */
import { concatBytes, parseDigest, u64le, utf8, type Digest } from "../model/bytes.ts";
import type { SplitRule } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { hashAs } from "../merkle/hash.ts";
import { createPermutation } from "../merkle/permutation.ts";

export const STRIPE_ROWS = 1024;
const MILLION = 1_000_000;

export type PositionalRule = Extract<SplitRule, { kind: "positional" }>;

/** What the rule needs to know of a shard. */
export interface PositionalEntry {
  /** Of the file. */
  readonly digest: Digest;
  readonly rows: number;
  readonly bytes: number;
}

export interface PositionalTotals {
  /** Null stands for the rows that no split holds out. */
  readonly name: string | null;
  readonly rows: number;
  /** Each shard's bytes in proportion to its rows, rounded down. */
  readonly bytes: number;
  /** Shards with at least one of the rows. */
  readonly shards: number;
}

/** Names held out by a rule, in the order in which the stripe is dealt. @throws ShardpactError `invalid_argument` above 100 % */
export function heldOutNames(rule: PositionalRule): readonly string[] {
  const names = Object.keys(rule.ppm).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  const sum = names.reduce((total, name) => total + (rule.ppm[name] ?? 0), 0);
  if (sum <= MILLION) return names;
  throw new ShardpactError("invalid_argument", `the splits hold out ${sum} of a million rows`, {
    details: { ppm: rule.ppm },
  });
}

/** Exact totals of what remains (first) and of every held-out split, without reading a shard. */
export function positionalTotals(
  rule: PositionalRule,
  entries: Iterable<PositionalEntry>,
): readonly PositionalTotals[] {
  const names = [null, ...heldOutNames(rule)];
  const totals = names.map((name) => ({ name, rows: 0, bytes: 0n, shards: 0 }));
  for (const entry of entries) {
    const counts = countRows(rule, entry.rows);
    totals.forEach((total, j) => {
      const rows = counts[j] ?? 0;
      total.rows += rows;
      total.bytes += entry.rows === 0 ? 0n : (BigInt(entry.bytes) * BigInt(rows)) / BigInt(entry.rows);
      total.shards += rows > 0 ? 1 : 0;
    });
  }
  return totals.map((total) => ({ ...total, bytes: Number(total.bytes) }));
}

/** Rows of one shard: what remains first, then the held-out splits in order. */
function countRows(rule: PositionalRule, rows: number): readonly number[] {
  const names = heldOutNames(rule);
  const [only] = names;
  if (names.length === 1 && only !== undefined) {
    const held = Math.floor(((rule.ppm[only] ?? 0) * rows) / MILLION); // one split never meets the cap
    return [rows - held, held];
  }
  const counts = names.map(() => 0);
  for (let start = 0; start < rows; start += STRIPE_ROWS) {
    const bounds = stripeBounds(rule, names, start, Math.min(rows, start + STRIPE_ROWS));
    names.forEach((_, j) => (counts[j] = (counts[j] ?? 0) + (bounds[j + 1] as number) - (bounds[j] as number)));
  }
  return [rows - counts.reduce((a, b) => a + b, 0), ...counts];
}

/** T(0)=0, T(1), …, T(m) of the stripe of rows [start, end). */
function stripeBounds(rule: PositionalRule, names: readonly string[], start: number, end: number): number[] {
  const bounds = [0];
  let sum = 0;
  for (const name of names) {
    const ppm = rule.ppm[name] ?? 0;
    const quota = Math.floor((ppm * end) / MILLION) - Math.floor((ppm * start) / MILLION);
    bounds.push((sum = Math.min(end - start, sum + quota)));
  }
  return bounds;
}

/** The rows of one split in one shard, in file order. */
export interface PositionalRows {
  readonly rows: number;
  /** File row of the k-th selected row, 0 ≤ k < rows. */
  rowOf(k: number): number;
}

/** Selected rows of recently used stripes, shared between shards and bounded. */
export interface StripeCache {
  readonly stripesMax: number;
  readonly stripes: Map<string, Uint16Array>;
}

export function createStripeCache(stripesMax = 16_384): StripeCache {
  return { stripesMax, stripes: new Map() };
}

/**
 * The rows of a held-out split, or with `name` null of what remains. Keeps 4 bytes a stripe, and stripes in `cache`.
 * @throws ShardpactError `not_found` when the rule holds out no such split
 */
export function positionalRows(
  rule: PositionalRule,
  name: string | null,
  entry: PositionalEntry,
  cache: StripeCache = createStripeCache(64),
): PositionalRows {
  const names = heldOutNames(rule);
  const at = name === null ? names.length : names.indexOf(name);
  if (at === -1) throw new ShardpactError("not_found", `the split rule holds out no '${name}'`, { details: { names } });
  const stripeCount = Math.ceil(entry.rows / STRIPE_ROWS);
  const before = new Float64Array(stripeCount + 1);
  const rangeOf = (stripe: number) => {
    const start = stripe * STRIPE_ROWS;
    const end = Math.min(entry.rows, start + STRIPE_ROWS);
    const bounds = [...stripeBounds(rule, names, start, end), end - start];
    return { length: end - start, from: bounds[at] as number, to: bounds[at + 1] as number };
  };
  for (let stripe = 0; stripe < stripeCount; stripe++) {
    const { from, to } = rangeOf(stripe);
    before[stripe + 1] = (before[stripe] as number) + to - from;
  }
  const digest = parseDigest(entry.digest);
  const salt = utf8(rule.salt);
  const select = (stripe: number): Uint16Array => {
    const { length, from, to } = rangeOf(stripe);
    const permutation = createPermutation(length, hashAs("splitPosition", concatBytes([digest, salt, u64le(stripe)])));
    const rows = new Uint16Array(to - from);
    for (let i = from; i < to; i++) rows[i - from] = permutation.inverse(i);
    return rows.sort();
  };

  let current = -1;
  let selected = new Uint16Array(0);
  const rows = before[stripeCount] as number;
  return {
    rows,
    rowOf(k) {
      if (current === -1 || k < (before[current] as number) || k >= (before[current + 1] as number)) {
        current = stripeOf(before, k, rows);
        selected = cached(cache, `${entry.digest} ${at} ${current}`, () => select(current));
      }
      return current * STRIPE_ROWS + (selected[k - (before[current] as number)] as number);
    },
  };
}

/** The stripe of the k-th row: a guess in proportion, then neighbours. */
function stripeOf(before: Float64Array, k: number, rows: number): number {
  const last = before.length - 2;
  let stripe = Math.min(last, Math.floor((k / rows) * (last + 1)));
  while (k < (before[stripe] as number)) stripe--;
  while (k >= (before[stripe + 1] as number)) stripe++;
  return stripe;
}

function cached(cache: StripeCache, key: string, make: () => Uint16Array): Uint16Array<ArrayBuffer> {
  const { stripes, stripesMax } = cache;
  const found = (stripes.get(key) ?? make()) as Uint16Array<ArrayBuffer>;
  stripes.delete(key);
  if (stripes.size >= stripesMax) {
    for (const oldest of stripes.keys()) {
      stripes.delete(oldest);
      break;
    }
  }
  stripes.set(key, found);
  return found;
}
