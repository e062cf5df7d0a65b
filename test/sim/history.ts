/**
 * Owns histories as JSON lines, for checkers of other people: one operation a line, in the order of the calls.
 *
 * The one thing to know: times are virtual ms; `returnMs` and `output` are null for an operation whose caller never heard
 * of it and which had an effect or may have had one. Processes and datasets carry their seed in front: what several seeds
 * wrote into one file are histories of their own.
 */
import { appendFileSync } from "node:fs";
import type { Input, Output } from "./dataset-model.ts";
import type { Recorded } from "./clients.ts";

export interface HistoryLine {
  readonly process: string;
  readonly callMs: number;
  readonly returnMs: number | null;
  readonly op: Input["kind"];
  readonly input: Readonly<Record<string, unknown>> & { readonly dataset: string };
  readonly output: Output | null;
}

export function historyLine(seed: number, operation: Recorded): HistoryLine {
  const { process, callMs, returnMs, dataset, output } = operation;
  const { kind: op, ...input } = operation.input;
  return {
    ...{ process: `${seed}/${process}`, callMs, returnMs, op },
    input: { dataset: `${seed}/${dataset}`, ...input },
    output: returnMs === null ? null : output,
  };
}

export function writeHistory(file: string, seed: number, history: readonly Recorded[]): void {
  const lines = history.map((operation) => `${JSON.stringify(historyLine(seed, operation))}\n`);
  appendFileSync(file, lines.join(""));
}
