/**
 * Owns receipts as they stand in the log: one entry while they are short (format 1), several of bounded size when they are long
 * (format 2, docs/spec.md).
 *
 * A run that follows its dataset has a span for every version that it came to, and an entry of the log has a bound. All spans
 * but the last two are final: they go into parts, recorded once. Each part names the one before it by its digest, and the
 * receipt, which holds only the spans that are left, names the last: whoever has it knows that no part is missing or another.
 */
import { z } from "zod";
import { hashBytes } from "../merkle/hash.ts";
import { formatDigest, utf8, type Digest } from "../model/bytes.ts";
import { canonicalJson, orderSpec } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { loaderState } from "./cursor.ts";
import { type Receipt, type Span, type TrainedVersion, versionOf } from "./receipt.ts";

/** Spans and the versions that they name take less than 700 bytes each. */
export const SPANS_PER_PART = 128;
/** The last span may grow, or merge with the one before it. */
const SPANS_OPEN = 2;

/** The n-th `SPANS_PER_PART` spans of an attempt. */
export interface ReceiptPart {
  readonly v: 2;
  readonly kind: "part";
  readonly attempt: string;
  readonly rank: number;
  readonly n: number;
  /** Digest of the part before it. */
  readonly before: Digest | null;
  readonly spans: readonly Span[];
  /** All that the spans name. */
  readonly versions: readonly TrainedVersion[];
}

/** A receipt whose first spans are in parts. `earlier` is of the spans that are here; digests are of all. */
export interface LongReceipt extends Omit<Receipt, "v"> {
  readonly v: 2;
  readonly kind: "receipt";
  readonly parts: { readonly count: number; readonly last: Digest };
}

const digest = z.templateLiteral(["b3:", z.string().regex(/^[0-9a-f]{64}$/)]);
const count = z.number().int().nonnegative();
const request = z.object({ name: z.string(), options: z.record(z.string(), z.unknown()) });
const spans = z.array(
  z.object({
    root: digest,
    epoch: count,
    epochs: z.number().int().positive(),
    ...{ from: count, to: count, W: count, B: count, dropped: count, padded: count },
  }),
);
const versions = z.array(z.object({ dataset: z.string(), root: digest, order: orderSpec }));
const body = {
  state: loaderState,
  rank: count,
  columns: z.object({ xs: z.array(request), ys: z.array(request) }),
  spans,
  earlier: versions.default([]),
  orderDigest: digest,
  bytesDigest: digest.nullable(),
  checkpoint: digest.nullable().default(null),
};
const wholeReceipt = z.object({ v: z.literal(1), ...body });
const receiptPart = z.strictObject({
  ...{ v: z.literal(2), kind: z.literal("part"), attempt: z.string(), rank: count, n: count },
  ...{ before: digest.nullable(), spans, versions },
});
const longReceipt = z.object({
  ...{ v: z.literal(2), kind: z.literal("receipt"), ...body },
  parts: z.object({ count: z.number().int().positive(), last: digest }),
});

/** What to record of a receipt: parts that are final, then the receipt itself. The parts of a longer one begin with these. */
export function splitReceipt(receipt: Receipt): {
  readonly parts: readonly ReceiptPart[];
  readonly receipt: Receipt | LongReceipt;
} {
  const { attempt } = receipt.state;
  const parts: ReceiptPart[] = [];
  let last: Digest | null = null;
  const partsCount = Math.floor(Math.max(0, receipt.spans.length - SPANS_OPEN) / SPANS_PER_PART);
  for (let n = 0; n < partsCount; n++) {
    const own = receipt.spans.slice(n * SPANS_PER_PART, (n + 1) * SPANS_PER_PART);
    const named = versionsOf(receipt, own);
    const part: ReceiptPart = {
      ...{ v: 2, kind: "part", attempt, rank: receipt.rank, n, before: last, spans: own, versions: named },
    };
    parts.push(part);
    last = partDigest(part);
  }
  if (last === null) return { parts, receipt };
  const rest = receipt.spans.slice(partsCount * SPANS_PER_PART);
  const earlier = versionsOf(receipt, rest).filter(({ root }) => root !== receipt.state.root);
  const long: LongReceipt = {
    ...{ ...receipt, v: 2, kind: "receipt", spans: rest, earlier, parts: { count: partsCount, last } },
  };
  return { parts, receipt: long };
}

function versionsOf(receipt: Receipt, some: readonly Span[]): TrainedVersion[] {
  return [...new Set(some.map(({ root }) => root))].map((root) => versionOf(receipt, root));
}

function partDigest(part: ReceiptPart): Digest {
  return formatDigest(hashBytes(utf8(canonicalJson(part))));
}

/** An entry of the log, and where it stands. */
export interface LoggedEntry {
  readonly index: number;
  readonly receipt: unknown;
}

export interface LoggedReceipt {
  readonly index: number;
  readonly receipt: Receipt;
}

/** The receipts in these entries of one run, in their order, each whole. @throws ShardpactError `damaged` */
export function readReceipts(entries: readonly LoggedEntry[]): readonly LoggedReceipt[] {
  const parts = new Map<Digest, ReceiptPart>();
  const receipts: LoggedReceipt[] = [];
  for (const { index, receipt: value } of entries) {
    if (isPart(value)) {
      const part = parsed(receiptPart, value) as ReceiptPart;
      parts.set(partDigest(part), part);
    } else {
      receipts.push({
        index,
        receipt: isLong(value) ? joined(parsed(longReceipt, value), parts) : parseReceipt(value),
      });
    }
  }
  return receipts;
}

/** @throws ShardpactError `damaged` on what is no receipt of format 1 */
export function parseReceipt(value: unknown): Receipt {
  return parsed(wholeReceipt, value) as Receipt;
}

const isLong = (value: unknown): boolean => (value as { v?: unknown } | null)?.v === 2;
const isPart = (value: unknown): boolean => isLong(value) && (value as { kind?: unknown }).kind === "part";

function parsed<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new ShardpactError("damaged", `a receipt does not decode: ${issue?.path.join(".")}: ${issue?.message}`);
}

/** The receipt with the spans of its parts, from the last part to the first. */
function joined(
  { parts: of, kind: _, ...long }: z.infer<typeof longReceipt>,
  known: ReadonlyMap<Digest, ReceiptPart>,
): Receipt {
  const found: ReceiptPart[] = [];
  let next: Digest | null = of.last;
  for (let n = of.count - 1; n >= 0; n--) {
    const part: ReceiptPart | undefined = next === null ? undefined : known.get(next);
    const isOwn = part?.n === n && part.attempt === long.state.attempt && part.rank === long.rank;
    if (!part || !isOwn) throw partMissing(long.state.attempt, n);
    found.unshift(part);
    next = part.before;
  }
  const named = [...found.flatMap((part) => part.versions), ...long.earlier];
  const earlier = [...new Map(named.map((version) => [version.root, version])).values()];
  return {
    ...(long as Omit<Receipt, "v">),
    v: 1,
    spans: [...found.flatMap((part) => part.spans), ...long.spans],
    earlier: earlier.filter(({ root }) => root !== long.state.root),
  };
}

function partMissing(attempt: string, n: number): ShardpactError {
  return new ShardpactError("damaged", `part ${n} of the receipt of attempt ${attempt} was not recorded before it`, {
    details: { attempt, part: n },
    hint: "Compare the replicas with `shardpact audit verify`.",
  });
}
