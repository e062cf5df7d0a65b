/**
 * Owns how a bench speaks: figures side by side with their peer, as a table for people and as JSON lines for machines.
 */
import { cpus, totalmem } from "node:os";

export interface Figure {
  readonly bench: string;
  readonly figure: string;
  readonly value: number;
  readonly unit: string;
  /** Whom it was measured beside, in the same run; null where there is nobody. */
  readonly peer: string | null;
  readonly peerValue: number | null;
  /** ≥ 1 means that ours is better or equal. */
  readonly ratio: number | null;
  /** The ratio to reach, in the same sense; null where the design names none. */
  readonly reach: number | null;
}

/** A figure of which more is better. */
export function rate(
  bench: string,
  figure: string,
  unit: string,
  value: number,
  peer: { name: string; value: number } | null,
  reach: number | null,
): Figure {
  return {
    bench,
    figure,
    value,
    unit,
    peer: peer?.name ?? null,
    peerValue: peer?.value ?? null,
    ratio: peer ? value / peer.value : null,
    reach,
  };
}

/** A figure of which less is better (a latency): the ratio is turned over. */
export function latency(
  bench: string,
  figure: string,
  unit: string,
  value: number,
  peer: { name: string; value: number } | null,
  reach: number | null,
): Figure {
  return { ...rate(bench, figure, unit, value, peer, reach), ratio: peer ? peer.value / value : null };
}

export function machine(): string {
  const [cpu] = cpus();
  return `${cpus().length} × ${cpu?.model.trim() ?? "unknown"}, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}`;
}

const rounded = (value: number | null): string =>
  value === null ? "" : value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 2 : value < 1000 ? 1 : 0 });

export function printTable(figures: readonly Figure[]): void {
  console.log(`\n${machine()}`);
  console.table(
    figures.map((f) => ({
      bench: f.bench,
      figure: f.figure,
      ours: `${rounded(f.value)} ${f.unit}`,
      peer: f.peer ?? "",
      theirs: f.peerValue === null ? "" : `${rounded(f.peerValue)} ${f.unit}`,
      ratio: rounded(f.ratio),
      reach: rounded(f.reach),
    })),
  );
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(q * (sorted.length - 1))] ?? Number.NaN;
}
