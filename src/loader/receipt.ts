/**
 * Owns receipts: which positions of which order a training process acknowledged, and the digests that prove it.
 *
 * Order is a pure function, hence spans are the sample list: `audit replay` expands them. Spans that follow each other
 * under the same (W, B) merge, and so do whole epochs, so the receipt of a long run stays small.
 */
import { hashAs, Hasher } from "../merkle/hash.ts";
import { concatBytes, formatDigest, parseDigest, u64le, utf8, type Digest } from "../model/bytes.ts";
import { canonicalJson, type OrderSpec } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import type { ColumnRequest } from "./columns/options.ts";
import type { LoaderState } from "./cursor.ts";
import type { LoaderPlan } from "./plan.ts";

/** Positions [from, to) of each of `epochs` epochs from `epoch` on, by W ranks with batches of B. */
export interface Span {
  readonly root: Digest;
  readonly epoch: number;
  readonly epochs: number;
  readonly from: number;
  readonly to: number;
  readonly W: number;
  readonly B: number;
  /** Rows of each epoch that the last step left out, or repeated. */
  readonly dropped: number;
  readonly padded: number;
}

/** A version that spans name, and the order of its rows. */
export interface TrainedVersion {
  /** `mnist@v3`. */
  readonly dataset: string;
  readonly root: Digest;
  readonly order: OrderSpec;
}

export interface Receipt {
  readonly v: 1;
  readonly state: LoaderState;
  readonly rank: number;
  /** What was delivered, and how each became an array: enough to gather the same bytes again. */
  readonly columns: { readonly xs: readonly ColumnRequest[]; readonly ys: readonly ColumnRequest[] };
  readonly spans: readonly Span[];
  /** Versions that spans name beside the state's: of a run that follows its dataset. */
  readonly earlier: readonly TrainedVersion[];
  /** Over roots, selection, orders and the union of the spans: independent of W and B. Proves the plan. */
  readonly orderDigest: Digest;
  /** Over the bytes that this rank delivered, before `map`; null unless asked for. Proves the gather. */
  readonly bytesDigest: Digest | null;
  /** The checkpoint that was written at this state, if one was: what a model saw is the path from its checkpoint. */
  readonly checkpoint: Digest | null;
}

/** One acknowledged step. `bytes` is the batch's `batchDigest`, or null. */
export interface Acknowledged {
  readonly epoch: number;
  readonly from: number;
  readonly to: number;
  readonly dropped: number;
  readonly padded: number;
  readonly bytes: Uint8Array | null;
}

export interface ReceiptTracker {
  /** `plan`: what the step was taken by. */
  add(plan: LoaderPlan, step: Acknowledged): void;
  receipt(state: LoaderState, checkpoint?: Digest): Receipt;
}

export function createReceiptTracker(rank: number, columns: Receipt["columns"], withBytes: boolean): ReceiptTracker {
  const spans: Span[] = [];
  const versions = new Map<Digest, TrainedVersion>();
  let chain: Uint8Array = BYTES_ZERO;
  return {
    add(plan, step) {
      const { dataset, root, order, world: W, batchSize: B } = plan;
      const { epoch, from, to, dropped, padded } = step;
      appendSpan(spans, { root, epoch, epochs: 1, from, to, W, B, dropped, padded }, plan.rows);
      if (!versions.has(root)) versions.set(root, { dataset, root, order });
      chain = chainBytes(chain, step);
    },
    receipt: (state, checkpoint) => {
      const earlier = [...versions.values()].filter(({ root }) => root !== state.root);
      return {
        v: 1,
        state,
        rank,
        columns,
        spans: spans.slice(),
        earlier,
        orderDigest: runOrderDigest({ state, earlier, spans }),
        bytesDigest: withBytes ? formatDigest(chain) : null,
        checkpoint: checkpoint ?? null,
      };
    },
  };
}

/** What the bytes digest chains from. */
export const BYTES_ZERO: Uint8Array = new Uint8Array(32);

/** The bytes digest after one more step, or as it was where the step has none. */
export function chainBytes(
  chain: Uint8Array,
  { epoch, from, to, bytes }: Pick<Acknowledged, "epoch" | "from" | "to" | "bytes">,
): Uint8Array {
  return bytes ? hashAs("bytesDigest", chain, u64le(epoch), u64le(from), u64le(to), bytes) : chain;
}

/** Digest of one batch's arrays, in the order of the columns: what the bytes digest chains. */
export function batchDigest(arrays: Iterable<Uint8Array>): Uint8Array {
  const hasher = new Hasher();
  for (const bytes of arrays) hasher.update(bytes);
  return hasher.digest();
}

function appendSpan(spans: Span[], next: Span, rows: number): void {
  const last = spans.at(-1);
  const follows =
    last &&
    last.root === next.root &&
    last.W === next.W &&
    last.B === next.B &&
    last.epochs === 1 &&
    last.to === next.from;
  if (follows && last.epoch === next.epoch) {
    next = { ...next, from: last.from };
    spans[spans.length - 1] = next;
  } else {
    spans.push(next);
  }
  if (isWhole(next, rows)) mergeEpochs(spans, rows);
}

const isWhole = ({ from, to, dropped }: Span, rows: number): boolean => from === 0 && to + dropped === rows;

/** Joins the last span, a whole epoch, to the one before it when that is one too and they follow each other. */
function mergeEpochs(spans: Span[], rows: number): void {
  const [before, last] = spans.slice(-2);
  if (!before || !last || before.epoch + before.epochs !== last.epoch || before.root !== last.root) return;
  const same = before.to === last.to && before.dropped === last.dropped && before.padded === last.padded;
  if (!same || !isWhole(before, rows) || before.W !== last.W || before.B !== last.B) return;
  spans.splice(-2, 2, { ...before, epochs: before.epochs + last.epochs });
}

/** The version of a receipt's spans under this root. @throws ShardpactError `damaged` when the receipt does not say */
export function versionOf({ state, earlier }: Pick<Receipt, "state" | "earlier">, root: Digest): TrainedVersion {
  const found = [state, ...earlier].find((version) => version.root === root);
  if (found) return { dataset: found.dataset, root: found.root, order: found.order };
  throw new ShardpactError("damaged", `the receipt does not say which version ${root} is`, { details: { root } });
}

/** Spans that follow each other on one version, together. */
export function spansByVersion(spans: readonly Span[]): readonly (readonly [Span, ...Span[]])[] {
  const groups: [Span, ...Span[]][] = [];
  for (const span of spans) {
    const last = groups.at(-1);
    if (last?.[0].root === span.root) last.push(span);
    else groups.push([span]);
  }
  return groups;
}

/** The order digest of one version, or a digest of those of several. See `docs/order.md` §7. */
export function runOrderDigest(receipt: Pick<Receipt, "state" | "earlier" | "spans">): Digest {
  const { selection } = receipt.state;
  const digests = spansByVersion(receipt.spans).map((group) =>
    orderDigest({ ...versionOf(receipt, group[0].root), selection }, group),
  );
  if (digests.length <= 1) return digests[0] ?? orderDigest(receipt.state, []);
  return formatDigest(hashAs("runOrderDigest", concatBytes(digests.map(parseDigest))));
}

/** See `docs/order.md` §7. */
export function orderDigest(
  { root, selection, order }: Pick<LoaderPlan, "root" | "selection" | "order">,
  spans: readonly Span[],
): Digest {
  const ranges: { epoch: number; from: number; to: number }[] = [];
  for (const { epoch, epochs, from, to } of spans) {
    for (let i = 0; i < epochs; i++) {
      const last = ranges.at(-1);
      if (last && last.epoch === epoch + i && last.to === from) last.to = to;
      else ranges.push({ epoch: epoch + i, from, to });
    }
  }
  const parts = ranges.flatMap(({ epoch, from, to }) => [u64le(epoch), u64le(from), u64le(to)]);
  const head = [parseDigest(root), parseDigest(selection), utf8(canonicalJson(order))];
  return formatDigest(hashAs("orderDigest", concatBytes([...head, ...parts])));
}
