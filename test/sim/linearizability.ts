/**
 * Owns the check that a history of concurrent operations has a sequential explanation (Wing & Gong 1993, with Lowe's memoization
 * of what was already tried: a set of operations that are done, and the state that they led to).
 *
 * The one thing to know: an operation without a return may have taken effect at any time after its call, or not yet. It
 * stays open for ever. A search that hits its bound answers `unknown`, which callers treat as a failure.
 */

export interface Operation<I, O> {
  readonly process: string;
  readonly callMs: number;
  /** Null: it never returned. */
  readonly returnMs: number | null;
  readonly input: I;
  /** Null: nobody knows what it came to. */
  readonly output: O | null;
}

export interface SequentialModel<S, I, O> {
  readonly initial: S;
  /** The state after the operation, or null when it can't have answered this in this state. */
  step(state: S, input: I, output: O | null): S | null;
  /** Equal for equal states. */
  key(state: S): string;
}

export interface Verdict {
  readonly result: "linearizable" | "violation" | "unknown";
  /** Positions of the operations in the longest explained prefix, in order. */
  readonly longest: readonly number[];
  readonly explored: number;
}

interface Node {
  readonly operation: number;
  readonly atMs: number;
  readonly isCall: boolean;
  previous: Node | null;
  next: Node | null;
  /** Of a call: its return. */
  match: Node | null;
}

const EXPLORED_MAX = 1_000_000;

export function checkLinearizable<S, I, O>(
  model: SequentialModel<S, I, O>,
  history: readonly Operation<I, O>[],
  exploredMax = EXPLORED_MAX,
): Verdict {
  const head = listOf(history);
  const done = new Uint32Array(Math.ceil(history.length / 32) || 1);
  const seen = new Set<string>();
  const trail: { readonly node: Node; readonly state: S }[] = [];
  let longest: number[] = [];
  let state = model.initial;
  let explored = 0;
  let at = head.next;
  while (head.next !== null) {
    // Only operations without a return are left: they may never have happened.
    if (at === null) {
      if (!hasReturn(head)) break;
      const back = trail.pop();
      if (back === undefined) return { result: "violation", longest, explored };
      state = back.state;
      flip(done, back.node.operation);
      putBack(back.node);
      at = back.node.next;
      continue;
    }
    if (!at.isCall) {
      at = null;
      continue;
    }
    explored += 1;
    if (explored > exploredMax) return { result: "unknown", longest, explored };
    const { input, output } = history[at.operation] as Operation<I, O>;
    const after = model.step(state, input, output);
    if (after !== null) {
      flip(done, at.operation);
      const key = `${done.join(",")} ${model.key(after)}`;
      if (!seen.has(key)) {
        seen.add(key);
        trail.push({ node: at, state });
        if (trail.length > longest.length) longest = trail.map(({ node }) => node.operation);
        state = after;
        takeOut(at);
        at = head.next;
        continue;
      }
      flip(done, at.operation);
    }
    at = at.next;
  }
  return { result: "linearizable", longest: trail.map(({ node }) => node.operation), explored };
}

/** Calls and returns in the order of time; at equal times calls come first: the operations overlap. */
function listOf(history: readonly Operation<unknown, unknown>[]): Node {
  const nodes: Node[] = [];
  for (const [operation, { callMs, returnMs }] of history.entries()) {
    const call: Node = { operation, atMs: callMs, isCall: true, previous: null, next: null, match: null };
    nodes.push(call);
    if (returnMs === null) continue;
    call.match = { operation, atMs: returnMs, isCall: false, previous: null, next: null, match: null };
    nodes.push(call.match);
  }
  nodes.sort((a, b) => a.atMs - b.atMs || Number(b.isCall) - Number(a.isCall));
  const head: Node = { operation: -1, atMs: -Infinity, isCall: false, previous: null, next: null, match: null };
  let last = head;
  for (const node of nodes) {
    node.previous = last;
    last.next = node;
    last = node;
  }
  return head;
}

function hasReturn(head: Node): boolean {
  for (let node = head.next; node !== null; node = node.next) if (!node.isCall) return true;
  return false;
}

function takeOut(call: Node): void {
  unlink(call);
  if (call.match !== null) unlink(call.match);
}

/** The reverse, in the reverse order: each node still knows its neighbours. */
function putBack(call: Node): void {
  if (call.match !== null) relink(call.match);
  relink(call);
}

function unlink(node: Node): void {
  if (node.previous) node.previous.next = node.next;
  if (node.next) node.next.previous = node.previous;
}

function relink(node: Node): void {
  if (node.previous) node.previous.next = node;
  if (node.next) node.next.previous = node;
}

function flip(bits: Uint32Array, at: number): void {
  bits[at >> 5] = (bits[at >> 5] ?? 0) ^ (1 << (at & 31));
}
