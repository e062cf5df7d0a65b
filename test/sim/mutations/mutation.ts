/**
 * Owns what a bug is that the simulator must find: a change of text in a copy of the sources.
 *
 * The one thing to know: a text that is no longer there fails the gate, so a bug can't be forgotten by a refactoring.
 */
import type { Fault } from "../nemesis.ts";

export interface Edit {
  readonly file: string;
  /** Must stand in the file exactly once. */
  readonly find: string;
  readonly replace: string;
}

export interface Mutation {
  readonly name: string;
  readonly bug: string;
  /** It must be caught within this many seeds, from 0 on, under each engine that has it. */
  readonly seedsMax: number;
  /** The storm that is meant for it, where the usual mixture would take many more seeds. */
  readonly faults?: readonly Fault[];
  /** In groups whose members change. */
  readonly membership?: boolean;
  /** With ranks of runs that follow a dataset. */
  readonly ranks?: boolean;
  /** The size of the group that it takes. */
  readonly replicas?: number;
  readonly edits: readonly Edit[];
}
