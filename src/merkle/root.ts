/**
 * Owns the root of a version: one digest over all that a reader relies on (docs/spec.md, Root), and the digests of the
 * objects that it names.
 */
import { canonicalJson } from "../model/commands.ts";
import type { ObjectKind, SplitRule } from "../model/commands.ts";
import { concatBytes, formatDigest, parseDigest, u32le, utf8 } from "../model/bytes.ts";
import type { Digest } from "../model/bytes.ts";
import { hashAs } from "./hash.ts";
import { encodeTotals } from "./totals.ts";
import type { SplitTotals } from "./totals.ts";

/** What the root covers. Equal fields give equal roots, on every machine and in every dataset. */
export interface RootFields {
  readonly schema: Digest;
  readonly classes: Digest;
  readonly splits: readonly string[];
  readonly splitRule: SplitRule;
  readonly pageCount: number;
  /** Tree over the manifest leaves. */
  readonly treeHash: Digest;
  /** Sorted by split ordinal; splits without shards are left out. */
  readonly totals: readonly SplitTotals[];
}

const FORMAT = 1;
const ALGORITHM = "blake3";

/** `root` context over the canonical bytes of the fields. */
export function computeRoot(fields: RootFields): Digest {
  return formatDigest(hashAs("root", rootBytes(fields)));
}

/** The bytes under the root; text is u32le length ‖ UTF-8. */
export function rootBytes(fields: RootFields): Uint8Array {
  return concatBytes([
    u32le(FORMAT),
    text(ALGORITHM),
    parseDigest(fields.schema),
    parseDigest(fields.classes),
    u32le(fields.splits.length),
    ...fields.splits.map(text),
    text(canonicalJson(fields.splitRule)),
    u32le(fields.pageCount),
    parseDigest(fields.treeHash),
    u32le(fields.totals.length),
    encodeTotals(fields.totals),
  ]);
}

/** Digest of a page, schema or class vocabulary, each under a context of its own. */
export function objectDigest(kind: ObjectKind, bytes: Uint8Array): Digest {
  return formatDigest(hashAs(kind, bytes));
}

function text(value: string): Uint8Array {
  const bytes = utf8(value);
  return concatBytes([u32le(bytes.byteLength), bytes]);
}
