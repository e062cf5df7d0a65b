/**
 * Owns `sp-order/1`: which row stands at which position of an epoch, as a pure function of root, selection, seed, epoch.
 *
 * Rows are asked for lane by lane, a run of lane indexes at a time; the current window of each lane is kept, so memory is
 * bounded by the window and nothing grows with the number of rows. `docs/order.md` specifies it bit by bit.
 */
import { invariant } from "../../model/errors.ts";
import type { OrderSpec } from "../../model/commands.ts";
import { createPermutation } from "../../merkle/permutation.ts";
import { createBlocks, type Blocks } from "./blocks.ts";
import { epochKey, subKey } from "./keys.ts";
import { createLanes, type Lanes } from "./lanes.ts";
import { shuffleWindow, type RowArray } from "./windows.ts";

/** One epoch's order. Not reentrant: it keeps the windows that were asked for last. */
export interface EpochOrder {
  readonly rows: number;
  readonly lanes: Lanes;
  /** Writes the rows at indexes [from, from+count) of `lane` to out[at…]. */
  fill(lane: number, from: number, count: number, out: Float64Array, at: number): void;
  /** The row at one position. Slow unless positions are near each other; for tests and audits. */
  rowAt(position: number): number;
}

export interface OrderInput {
  readonly root: Uint8Array;
  readonly selection: Uint8Array;
  readonly rows: number;
  readonly order: OrderSpec;
}

type Fill = EpochOrder["fill"];

/** The order of `epoch` over `input.rows` ≥ 1 rows. */
export function createEpochOrder(input: OrderInput, epoch: number | bigint): EpochOrder {
  const { rows, order } = input;
  invariant(rows >= 1, "an order has rows");
  const lanes = createLanes(rows, order.K);
  const key = epochKey(input.root, input.selection, order, epoch);
  const fill = fillOf(rows, order, lanes, key);
  const one = new Float64Array(1);
  const laneOfResidue = new Uint32Array(lanes.count);
  lanes.residues.forEach((residue, lane) => (laneOfResidue[residue] = lane));
  const rowAt = (position: number): number => {
    invariant(position >= 0 && position < rows, `position ${position} is not in 0…${rows - 1}`);
    fill(laneOfResidue[position % lanes.count] as number, Math.floor(position / lanes.count), 1, one, 0);
    return one[0] as number;
  };
  return { rows, lanes, fill, rowAt };
}

function fillOf(rows: number, order: OrderSpec, lanes: Lanes, key: Uint8Array): Fill {
  switch (order.strength) {
    case "none":
      return (_lane, from, count, out, at) => {
        for (let i = 0; i < count; i++) out[at + i] = from + i;
      };
    case "full": {
      invariant(order.K === 1, "a full order has one lane");
      const permutation = createPermutation(rows, subKey(key, "rows"));
      return (_lane, from, count, out, at) => {
        for (let i = 0; i < count; i++) out[at + i] = permutation.forward(from + i);
      };
    }
    case "block":
    case "window": {
      const blocks = createBlocks(rows, order.n, subKey(key, "blocks"));
      return windowedFill(blocks, order.n * order.g, lanes, key);
    }
  }
}

interface Window {
  /** Real positions [from, to) of the block sequence. */
  from: number;
  to: number;
  rows: RowArray;
}

function windowedFill(blocks: Blocks, windowRows: number, lanes: Lanes, key: Uint8Array): Fill {
  const RowsOf = blocks.rows <= 2 ** 32 ? Uint32Array : Float64Array;
  const windows: Window[] = Array.from({ length: lanes.count }, () => ({ from: 0, to: 0, rows: new RowsOf(0) }));

  const load = (lane: number, v: number): Window => {
    const window = windows[lane] as Window;
    if (v >= window.from && v < window.to) return window;
    const ordinal = Math.floor(blocks.slotPosition(v) / windowRows);
    window.from = Math.max(lanes.starts[lane] as number, blocks.rowsBefore(ordinal * windowRows));
    window.to = Math.min(lanes.starts[lane + 1] as number, blocks.rowsBefore((ordinal + 1) * windowRows));
    const length = window.to - window.from;
    if (window.rows.length < length) window.rows = new RowsOf(Math.min(windowRows, Math.ceil(length * 1.25)));
    listRows(blocks, window);
    shuffleWindow(window.rows, length, subKey(key, "window", lane, ordinal));
    return window;
  };

  return (lane, from, count, out, at) => {
    let v = (lanes.starts[lane] as number) + from;
    const end = v + count;
    while (v < end) {
      const window = load(lane, v);
      const take = Math.min(end, window.to) - v;
      const { rows } = window;
      const skip = v - window.from;
      for (let i = 0; i < take; i++) out[at + i] = rows[skip + i] as number;
      v += take;
      at += take;
    }
  };
}

/** The rows of a window before the shuffle: block by block. */
function listRows(blocks: Blocks, window: Window): void {
  const { rows, from, to } = window;
  let v = from;
  while (v < to) {
    const u = blocks.slotPosition(v);
    const slot = Math.floor(u / blocks.n);
    const inBlock = u - slot * blocks.n;
    const take = Math.min(to, blocks.rowsBefore((slot + 1) * blocks.n)) - v;
    const first = blocks.firstRow(slot) + inBlock;
    for (let i = 0; i < take; i++) rows[v - from + i] = first + i;
    v += take;
  }
}
