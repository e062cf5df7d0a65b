/**
 * Positional splits written down as slowly and plainly as the text of `docs/spec.md`: the split of every row of a file.
 */
import { hashAs } from "../../../src/merkle/hash.ts";
import { concatBytes, parseDigest, u64le, utf8, type Digest } from "../../../src/model/bytes.ts";
import type { PositionalRule } from "../../../src/shards/positional.ts";
import { slowPermute } from "./slow-order.ts";

/** Null where no split holds the row out. */
export function slowSplits(rule: PositionalRule, rows: number, digest: Digest): (string | null)[] {
  const names = Object.keys(rule.ppm).sort();
  return Array.from({ length: rows }, (_, row) => {
    const stripe = Math.floor(row / 1024);
    const start = stripe * 1024;
    const end = Math.min(rows, start + 1024);
    const key = hashAs("splitPosition", concatBytes([parseDigest(digest), utf8(rule.salt), u64le(stripe)]));
    const place = slowPermute(end - start, key, row - start);
    let bound = 0;
    for (const name of names) {
      const ppm = BigInt(rule.ppm[name] ?? 0);
      bound += Number((ppm * BigInt(end)) / 1_000_000n - (ppm * BigInt(start)) / 1_000_000n);
      if (place < Math.min(bound, end - start)) return name;
    }
    return null;
  });
}
