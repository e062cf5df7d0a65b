/**
 * The order written down as slowly and plainly as the text of `docs/order.md`: everything in arrays, BigInt for P.
 */
import { hashAs } from "../../../src/merkle/hash.ts";
import { concatBytes, u64le } from "../../../src/model/bytes.ts";
import type { OrderInput } from "../../../src/loader/order/order.ts";

const STRENGTHS = ["none", "block", "window", "full"];

function words(key: Uint8Array): number[] {
  return Array.from({ length: 8 }, (_, i) => Buffer.from(key).readUInt32LE(i * 4));
}

function fmix32(x: number): number {
  let h = x >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b) >>> 0;
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35) >>> 0;
  return (h ^ (h >>> 16)) >>> 0;
}

export function slowPermute(m: number, key: Uint8Array, x: number): number {
  const k = words(key);
  const bits = Math.max(2, (BigInt(m) - 1n).toString(2).replace(/^0$/, "").length);
  const a = BigInt(Math.floor(bits / 2));
  const b = BigInt(bits) - a;
  let v = BigInt(x);
  do {
    let l = v >> b;
    let r = v & ((1n << b) - 1n);
    for (let round = 0; round < 6; round++) {
      const source = Number(round % 2 === 0 ? r : l);
      const f = BigInt(fmix32((source ^ (k[round] ?? 0)) >>> 0));
      if (round % 2 === 0) l = (l ^ f) & ((1n << a) - 1n);
      else r = (r ^ f) & ((1n << b) - 1n);
    }
    v = (l << b) | r;
  } while (v >= BigInt(m));
  return Number(v);
}

/** Rows of all positions. */
export function slowOrder({ root, selection, rows, order }: OrderInput, epoch: number): number[] {
  const { strength, n, K, g } = order;
  const all = Array.from({ length: rows }, (_, i) => i);
  if (strength === "none") return all;
  const code = new Uint8Array([STRENGTHS.indexOf(strength)]);
  const key = hashAs("order", concatBytes([root, selection, code, u64le(BigInt(order.seed)), u64le(epoch)]));
  const sub = (use: number, lane: number, window: number): Uint8Array =>
    hashAs("orderRound", concatBytes([key, new Uint8Array([use]), u64le(lane), u64le(window)]));
  if (strength === "full") return all.map((p) => slowPermute(rows, sub(0, 0, 0), p));

  const blocks = Math.ceil(rows / n);
  const sequence: { row: number; slot: number }[] = [];
  for (let slot = 0; slot < blocks; slot++) {
    const block = slowPermute(blocks, sub(1, 0, 0), slot);
    for (let row = block * n; row < Math.min(rows, (block + 1) * n); row++) sequence.push({ row, slot });
  }
  const out: number[] = [];
  const positionsOf: number[][] = Array.from({ length: K }, () => []);
  for (let p = 0; p < rows; p++) positionsOf[bitrev(p % K, K)]?.push(p);
  let start = 0;
  positionsOf.forEach((positions, lane) => {
    const mine = sequence.slice(start, start + positions.length);
    start += positions.length;
    const windows = [...new Set(mine.map((x) => Math.floor(x.slot / g)))];
    const shuffled = windows.flatMap((w) => {
      const inside = mine.filter((x) => Math.floor(x.slot / g) === w).map((x) => x.row);
      return fisherYates(inside, words(sub(2, lane, w)));
    });
    positions.forEach((p, i) => (out[p] = shuffled[i] as number));
  });
  return out;
}

function fisherYates(rows: number[], key: number[]): number[] {
  const state = [key[0], key[1], key[2], (key[3] as number) | 1].map((x) => BigInt((x as number) >>> 0));
  const mask = 0xffffffffn;
  const rotl = (x: bigint, k: bigint): bigint => ((x << k) | (x >> (32n - k))) & mask;
  for (let i = rows.length - 1; i > 0; i--) {
    let [s0, s1, s2, s3] = state as [bigint, bigint, bigint, bigint];
    const x = (rotl((s1 * 5n) & mask, 7n) * 9n) & mask;
    const t = (s1 << 9n) & mask;
    s2 ^= s0;
    s3 ^= s1;
    s1 ^= s2;
    s0 ^= s3;
    s2 ^= t;
    s3 = rotl(s3, 11n);
    state.splice(0, 4, s0, s1, s2, s3);
    const j = Number((x * BigInt(i + 1)) >> 32n);
    [rows[i], rows[j]] = [rows[j] as number, rows[i] as number];
  }
  return rows;
}

function bitrev(x: number, K: number): number {
  const bits = Math.log2(K);
  return bits === 0 ? 0 : parseInt([...x.toString(2).padStart(bits, "0")].reverse().join(""), 2);
}

/** Positions of a step sorted by (lane, position) and cut in `world` runs; positions past the end repeat from 0, masked. */
export function slowSlice(
  order: readonly number[],
  K: number,
  step: { from: number; to: number },
  rank: number,
  world: number,
): { rows: number[]; mask: number[] } {
  const positions: number[] = [];
  for (let p = step.from; p < step.to; p++) positions.push(p);
  positions.sort((a, b) => bitrev(a % K, K) - bitrev(b % K, K) || a - b);
  const length = positions.length / world;
  const mine = positions.slice(rank * length, (rank + 1) * length);
  return {
    rows: mine.map((p) => order[p % order.length] as number),
    mask: mine.map((p) => (p < order.length ? 1 : 0)),
  };
}
