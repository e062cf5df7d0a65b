/**
 * Owns the sequential model of one dataset: a head, tags and pins, as a client that is alone would see them.
 */
import type { SequentialModel } from "./linearizability.ts";

export interface Version {
  readonly version: number;
  readonly root: string;
}

export type Input =
  | { readonly kind: "commit"; readonly expected: number | null; readonly root: string }
  | { readonly kind: "head" }
  | { readonly kind: "move"; readonly tag: string; readonly version: number; readonly expected: number | null }
  | { readonly kind: "tag"; readonly tag: string }
  | { readonly kind: "pin"; readonly run: string; readonly version: number }
  | { readonly kind: "unpin"; readonly run: string };

/** What the operation answered; `version` is the one that is named, 0 for none. */
export type Output =
  | { readonly kind: "ok"; readonly version: number; readonly root: string }
  /** Refused: `version` is what the head, the tag or the pin was at. */
  | { readonly kind: "refused"; readonly version: number };

export interface DatasetState {
  readonly head: Version | null;
  readonly tags: Readonly<Record<string, number>>;
  /** Version of each run's latest pin; negative once it is released. */
  readonly pins: Readonly<Record<string, number>>;
}

export const datasetModel: SequentialModel<DatasetState, Input, Output> = {
  initial: { head: null, tags: {}, pins: {} },
  key: ({ head, tags, pins }) => `${head?.version} ${head?.root} ${sorted(tags)} ${sorted(pins)}`,
  step(state, input, output) {
    switch (input.kind) {
      case "commit":
        return commit(state, input, output);
      case "head":
        return isSame(output, state.head?.version ?? 0, state.head?.root ?? "") ? state : null;
      case "tag":
        return isSame(output, state.tags[input.tag] ?? 0, null) ? state : null;
      case "move":
        return move(state, input, output);
      case "pin":
        return pin(state, input, output);
      case "unpin":
        return unpin(state, input, output);
    }
  },
};

type InputOf<K extends Input["kind"]> = Extract<Input, { kind: K }>;

function commit(
  state: DatasetState,
  { expected, root }: InputOf<"commit">,
  output: Output | null,
): DatasetState | null {
  const now = state.head?.version ?? null;
  if (now !== null && state.head?.root === root) return isSame(output, now, root) ? state : null;
  if (expected !== now) return isRefused(output, now ?? 0) ? state : null;
  const head = { version: (now ?? 0) + 1, root };
  return isSame(output, head.version, root) ? { ...state, head } : null;
}

function move(
  state: DatasetState,
  { tag, version, expected }: InputOf<"move">,
  output: Output | null,
): DatasetState | null {
  // Clients name only versions that they have seen.
  if (version > (state.head?.version ?? 0)) return null;
  const now = state.tags[tag] ?? null;
  if (expected !== now) return isRefused(output, now ?? 0) ? state : null;
  return isSame(output, version, null) ? { ...state, tags: { ...state.tags, [tag]: version } } : null;
}

function pin(state: DatasetState, { run, version }: InputOf<"pin">, output: Output | null): DatasetState | null {
  if (version > (state.head?.version ?? 0)) return null;
  const now = Math.abs(state.pins[run] ?? version);
  if (now !== version) return isRefused(output, now) ? state : null;
  return isSame(output, version, null) ? { ...state, pins: { ...state.pins, [run]: version } } : null;
}

function unpin(state: DatasetState, { run }: InputOf<"unpin">, output: Output | null): DatasetState | null {
  const now = state.pins[run];
  if (now === undefined) return isRefused(output, 0) ? state : null;
  const version = Math.abs(now);
  return isSame(output, version, null) ? { ...state, pins: { ...state.pins, [run]: -version } } : null;
}

/** An answer that nobody got could have been any. */
function isSame(output: Output | null, version: number, root: string | null): boolean {
  if (output === null) return true;
  return output.kind === "ok" && output.version === version && (root === null || output.root === root);
}

function isRefused(output: Output | null, version: number): boolean {
  return output === null || (output.kind === "refused" && output.version === version);
}

function sorted(values: Readonly<Record<string, number>>): string {
  return Object.keys(values)
    .sort()
    .map((name) => `${name}=${values[name]}`)
    .join(",");
}
