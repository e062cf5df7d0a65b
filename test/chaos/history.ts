/**
 * Owns what client processes record: one file of JSON lines a process, a line at the call and one at the return, so that
 * a client that is killed leaves its open operations behind.
 *
 * Times are of the machine's monotonic clock, which all processes share.
 */
import { readFileSync } from "node:fs";
import type { Input, Output } from "../sim/dataset-model.ts";
import type { Operation } from "../sim/linearizability.ts";

export interface Call {
  /** Client and worker: `c1.2/w1`. One operation after another. */
  readonly process: string;
  readonly callMs: number;
  readonly dataset: string;
  readonly input: Input;
  /** Under which it is in the ledger if it was applied; null for reads. */
  readonly commandId: string | null;
  /** After healing: it must be answered. */
  readonly last: boolean;
}

export interface Return {
  readonly returnMs: number;
  /** Null: the client was told that nobody knows what came of it. */
  readonly output: Output | null;
  /** Log index of the effect, or as of which a read was confirmed; null where the answer names none. */
  readonly index: number | null;
  /** Code of the error. */
  readonly error: string | null;
  /** The client was told that it was never sent: it must have had no effect. */
  readonly neverSent: boolean;
}

export type Line =
  | { readonly kind: "ready" }
  | ({ readonly kind: "call"; readonly id: number } & Call)
  | ({ readonly kind: "return"; readonly id: number } & Return)
  /** A client was told what no client may ever be told. */
  | { readonly kind: "wrong"; readonly what: string };

/** One operation; `returnMs` and `output` are null while nobody knows what came of it. */
export interface Recorded extends Operation<Input, Output>, Call {
  readonly index: number | null;
  readonly error: string | null;
  readonly neverSent: boolean;
}

export interface History {
  readonly operations: readonly Recorded[];
  readonly wrong: readonly string[];
}

/** Milliseconds of the machine's monotonic clock. */
export function machineMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

export function readLines(file: string): Line[] {
  let text = "";
  try {
    text = readFileSync(file, "utf8");
  } catch {
    return []; // the process has not come so far
  }
  // The last line of a killed process may be torn.
  const whole = text.slice(0, text.lastIndexOf("\n") + 1);
  return whole
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line);
}

export function readHistory(files: readonly string[]): History {
  const operations: Recorded[] = [];
  const wrong: string[] = [];
  for (const file of files) {
    const open = new Map<number, Recorded>();
    for (const line of readLines(file)) {
      if (line.kind === "wrong") wrong.push(line.what);
      if (line.kind === "call") {
        const { kind: _, id, ...call } = line;
        open.set(id, { ...call, returnMs: null, output: null, index: null, error: null, neverSent: false });
      }
      if (line.kind === "return") {
        const call = open.get(line.id);
        if (call === undefined) throw new Error(`${file}: operation ${line.id} returns and was never called`);
        const { output, returnMs, index, error, neverSent } = line;
        // An operation of which nobody knows what came stays open.
        open.set(line.id, { ...call, output, returnMs: output === null ? null : returnMs, index, error, neverSent });
      }
    }
    operations.push(...open.values());
  }
  return { operations: operations.toSorted((a, b) => a.callMs - b.callMs), wrong };
}
