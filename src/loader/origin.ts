/**
 * Owns the origin of a batch: which rows of which version it holds, in a form that ranks compare before they add up what
 * they computed.
 *
 * An origin is what a rank says of itself, for ranks that may be mistaken (another version, another plan, a step that is
 * long over), not for ranks that lie. That the bytes are the agreed ones is not for the others to check: a batch whose bytes
 * do not hash to the root never comes into being.
 */
import { z } from "zod";
import { hashBytes } from "../merkle/hash.ts";
import { formatDigest, utf8, type Digest } from "../model/bytes.ts";
import { canonicalJson, orderSpec } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import type { LoaderPlan } from "./plan.ts";
import type { Receipt } from "./receipt.ts";

const digest = z.templateLiteral(["b3:", z.string().regex(/^[0-9a-f]{64}$/)]);
const count = z.number().int().nonnegative();

export const batchOrigin = z.strictObject({
  v: z.literal(1),
  /** `mnist@v3`. */
  dataset: z.string(),
  root: digest,
  selection: digest,
  order: orderSpec,
  /** Of the columns' names and options. `map` is a function and not covered. */
  columns: digest,
  world: z.number().int().positive(),
  batchSize: z.number().int().positive(),
  last: z.enum(["partial", "drop", "pad"]),
  /** Positions [from, to) of the epoch that all ranks consume in this step. */
  epoch: count,
  from: count,
  to: count,
  /** Whose run of these positions it is: `docs/order.md` §6. */
  rank: count,
  /** Of the batch's bytes before `map`, where receipts cover bytes; else null. */
  bytes: digest.nullable(),
});
export type BatchOrigin = z.infer<typeof batchOrigin>;

/** What is equal on all ranks of a step, beside the order. */
const STEP_FIELDS = [
  "dataset",
  "root",
  "selection",
  "columns",
  "world",
  "batchSize",
  "last",
  "epoch",
  "from",
  "to",
] as const satisfies readonly (keyof BatchOrigin)[];

/** Digest of what was asked of the columns. */
export function columnsDigest(columns: Receipt["columns"]): Digest {
  return formatDigest(hashBytes(utf8(canonicalJson(columns))));
}

export function originOf(
  { dataset, root, selection, order, world, batchSize, last, rank }: LoaderPlan,
  columns: Digest,
  { epoch, from, to, bytes }: Pick<BatchOrigin, "epoch" | "from" | "to"> & { readonly bytes: Uint8Array | null },
): BatchOrigin {
  const digestOfBytes = bytes && formatDigest(bytes);
  // For each batch: spreads would cost several times as much.
  return {
    v: 1,
    dataset,
    root,
    selection,
    order,
    columns,
    world,
    batchSize,
    last,
    epoch,
    from,
    to,
    rank,
    bytes: digestOfBytes,
  };
}

/**
 * Passes when `other` is another rank's batch of the very step that `own` is of.
 * @throws ShardpactError `plan_mismatch` naming the rank and the first field that differs; `damaged` on what is no origin
 */
export function requireSameStep(own: BatchOrigin, other: unknown): asserts other is BatchOrigin {
  const parsed = batchOrigin.safeParse(other);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new ShardpactError("damaged", `this is no origin of a batch: ${issue?.path.join(".")}: ${issue?.message}`);
  }
  const theirs = parsed.data;
  for (const field of STEP_FIELDS) {
    if (own[field] !== theirs[field]) throw mismatch(own, theirs, field, own[field], theirs[field]);
  }
  for (const field of Object.keys(own.order) as (keyof BatchOrigin["order"])[]) {
    const [expected, got] = [own.order[field], theirs.order[field]];
    if (expected !== got) throw mismatch(own, theirs, `order.${field}`, expected, got);
  }
  if (theirs.rank >= own.world) throw mismatch(own, theirs, "rank", `below ${own.world}`, theirs.rank);
  if (theirs.rank === own.rank) throw mismatch(own, theirs, "rank", "another", theirs.rank);
}

function mismatch(
  own: BatchOrigin,
  { rank }: BatchOrigin,
  field: string,
  expected: unknown,
  got: unknown,
): ShardpactError {
  return new ShardpactError(
    "plan_mismatch",
    `the batch of rank ${rank} has ${field} ${String(got)}; for rank ${own.rank} it has to be ${String(expected)}`,
    {
      details: { rank, field, expected, got },
      hint: "Ranks add up only what was computed from one version, one plan and one step: start that rank with the values of the others.",
    },
  );
}
