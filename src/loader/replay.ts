/**
 * Owns replaying receipts: from what a run reported to which rows its model saw, and whether the digests hold.
 *
 * Attempts form a tree: each names the state that it resumed from. What a model saw is the path from its checkpoint to the
 * root of the tree, not the sum of all attempts: what an attempt trained after its last checkpoint is on no path.
 */
import type { ConfirmedVersion, SplitSummary } from "../client/types.ts";
import { type Digest, formatDigest, parseDigest } from "../model/bytes.ts";
import type { OrderSpec } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { stateDigest } from "./cursor.ts";
import type { HostBatch } from "./feed.ts";
import { createHostLoader, type LoaderOptions } from "./host-loader.ts";
import { createEpochOrder } from "./order/order.ts";
import { BLOCK_BYTES } from "./order/spec.ts";
import { MEMORY_BYTES_DEFAULT, planLoader, type PlannedVersion, type PlanOptions } from "./plan.ts";
import { selectionDigest } from "./selection.ts";
import {
  BYTES_ZERO,
  chainBytes,
  type Receipt,
  runOrderDigest,
  type Span,
  spansByVersion,
  type TrainedVersion,
  versionOf,
} from "./receipt.ts";

/** One start of a training process, by the last receipt of its lowest rank, and those that name checkpoints. */
export interface Attempt {
  readonly id: string;
  /** State that it resumed from; null: it began at zero. */
  readonly parent: Digest | null;
  readonly last: Receipt;
  readonly all: readonly Receipt[];
}

/** In the order in which they were reported. */
export function attemptsOf(receipts: readonly Receipt[]): readonly Attempt[] {
  const byId = new Map<string, Receipt[]>();
  for (const receipt of receipts) {
    const { attempt } = receipt.state;
    byId.set(attempt, [...(byId.get(attempt) ?? []), receipt]);
  }
  return [...byId].map(([id, all]) => {
    const rank = Math.min(...all.map((receipt) => receipt.rank));
    const last = all.findLast((receipt) => receipt.rank === rank) as Receipt;
    return { id, parent: last.state.parent, last, all };
  });
}

/**
 * The receipts on the path from `from` back to zero, oldest first: each is the one whose state the next resumed from.
 * @throws ShardpactError `not_found` when a parent was never reported
 */
export function pathTo(receipts: readonly Receipt[], from: Receipt): readonly Receipt[] {
  const path = [from];
  const byState = new Map(receipts.map((receipt) => [stateDigest(receipt.state), receipt]));
  for (let parent = from.state.parent; parent !== null;) {
    const receipt = byState.get(parent);
    if (!receipt) {
      throw new ShardpactError(
        "not_found",
        `no receipt was reported at the state ${parent} that an attempt resumed from`,
        {
          details: { parent },
          hint: "If it was another run's, name that run too; only checkpoints of loaders that belong to a run are reported.",
        },
      );
    }
    path.unshift(receipt);
    parent = receipt.state.parent;
  }
  return path;
}

/** Whether the spans are what the digest was made of. */
export function holdsOrder(receipt: Receipt): boolean {
  return runOrderDigest(receipt) === receipt.orderDigest;
}

/** One row that was trained on: where it stood, and which row of the selection it is. */
export interface SeenRow {
  readonly epoch: number;
  readonly position: number;
  readonly row: number;
}

/** Confirmed versions by their roots. */
export type VersionsByRoot = ReadonlyMap<Digest, ConfirmedVersion>;

/** All roots that receipts speak of, and which version each is. */
export function trainedVersions(receipts: readonly Receipt[]): readonly TrainedVersion[] {
  const all = receipts.flatMap((receipt) =>
    [receipt.state, ...receipt.earlier].map(({ root }) => versionOf(receipt, root)),
  );
  return [...new Map(all.map((version) => [version.root, version])).values()];
}

/**
 * Spans of epochs that a run trained on another version than it had agreed on; `epochs` is what it agreed on, by epoch.
 */
export function strayEpochs({ spans }: Receipt, epochs: ReadonlyMap<number, Digest>): readonly Span[] {
  return spans.filter(({ root, epoch, epochs: count }) =>
    Array.from({ length: count }, (_, i) => epochs.get(epoch + i)).some((agreed) => agreed !== root),
  );
}

/** All rows of a receipt's spans, in global order; all ranks together. */
export function* seenRows(receipt: Receipt, versions: VersionsByRoot): Generator<SeenRow> {
  const { state } = receipt;
  for (const { root, epoch: first, epochs, from, to } of receipt.spans) {
    const { rows } = splitOf(requireVersion(versions, root), { root, selection: state.selection });
    const { order: spec } = versionOf(receipt, root);
    const input = { root: parseDigest(root), selection: parseDigest(state.selection), rows, order: spec };
    for (let epoch = first; epoch < first + epochs; epoch++) {
      const order = createEpochOrder(input, epoch);
      for (let position = from; position < Math.min(to, rows); position++) {
        yield { epoch, position, row: order.rowAt(position) };
      }
    }
  }
}

/**
 * Gathers again what one rank of an attempt delivered, from the verified shards, and tells the digest of its bytes.
 * @throws as a loader; `invalid_argument` when the receipt covers no bytes, `root_mismatch` without one of its versions
 */
export async function replayBytes(versions: VersionsByRoot, receipt: Receipt): Promise<Digest> {
  if (receipt.spans.length === 0 || receipt.bytesDigest === null)
    throw new ShardpactError(
      "invalid_argument",
      "this receipt covers no bytes: it was made without `receipt: 'bytes'`",
    );
  let chain = BYTES_ZERO;
  for (const group of spansByVersion(receipt.spans)) {
    const version = requireVersion(versions, group[0].root);
    for await (const batch of gatherAgain(version, receipt, group)) {
      chain = chainBytes(chain, { ...batch, bytes: batch.digest });
    }
  }
  return formatDigest(chain);
}

/** The batches of a rank over the spans of one version. */
async function* gatherAgain(
  version: ConfirmedVersion,
  receipt: Receipt,
  spans: readonly [Span, ...Span[]],
): AsyncGenerator<HostBatch> {
  const [first] = spans;
  const end = spans.at(-1) as Span;
  const { state, columns, rank } = receipt;
  const { root, order } = versionOf(receipt, first.root);
  const split = splitOf(version, { root, selection: state.selection }).name;
  const cols = (requests: Receipt["columns"]["xs"]) =>
    Object.fromEntries(requests.map(({ name, options }) => [name, options]));
  const resume = { ...state, root, order, epoch: first.epoch, offset: first.from };
  const options: LoaderOptions = {
    ...{ xs: cols(columns.xs), split, batchSize: first.B, rank, world: first.W, last: state.last },
    ...(columns.ys.length > 0 ? { ys: cols(columns.ys) } : {}),
    ...orderOptions(order),
    ...{ allowRandomReads: true, receipt: "bytes", reconfirm: "open", resume },
  };
  const memory = memoryToReplay(version, { ...options, seed: BigInt(order.seed) });
  await using host = createHostLoader(version, { ...options, memory });
  const lastEpoch = end.epoch + end.epochs - 1;
  for (let done = false; !done;) {
    const epoch = host.iterate();
    for (let batch = await epoch.next(); batch && !done; batch = done ? null : await epoch.next()) {
      yield batch;
      host.ack();
      done = batch.epoch === lastEpoch && batch.to >= end.to;
    }
    await epoch.return();
  }
}

/** What the order needs at least, if that is more than the default: the run may have had more. A full shuffle does with less. */
export function memoryToReplay(version: PlannedVersion, options: PlanOptions): number {
  const { order, memoryNeededBytes } = planLoader(version, { ...options, memory: Number.MAX_SAFE_INTEGER });
  return order.strength === "full" ? MEMORY_BYTES_DEFAULT : Math.max(MEMORY_BYTES_DEFAULT, memoryNeededBytes);
}

function requireVersion(versions: VersionsByRoot, root: Digest): ConfirmedVersion {
  const found = versions.get(root);
  if (found) return found;
  throw new ShardpactError(
    "root_mismatch",
    `the receipt is of ${root}, which is none of the versions that were opened`,
  );
}

/** The split that a state's selection stands for. @throws ShardpactError `root_mismatch`, `not_found` */
export function splitOf(
  version: ConfirmedVersion,
  { root, selection }: Pick<Receipt["state"], "root" | "selection">,
): SplitSummary {
  if (version.root !== root) {
    throw new ShardpactError("root_mismatch", `the receipt is of ${root}, the version's root is ${version.root}`);
  }
  const split = version.splits.find(({ name }) => formatDigest(selectionDigest(version.splitRule, name)) === selection);
  if (split) return split;
  throw new ShardpactError(
    "not_found",
    `no split of ${version.dataset}@v${version.version} has the selection ${selection}`,
  );
}

/** Shuffle options that give the order of a state. */
function orderOptions({ strength, seed, K, g }: OrderSpec): Pick<LoaderOptions, "shuffle" | "seed"> {
  if (strength !== "window") return { shuffle: strength, seed: BigInt(seed) };
  return { shuffle: { strength, lanes: K, windowBytes: g === 1 ? 1 : g * K * BLOCK_BYTES }, seed: BigInt(seed) };
}
