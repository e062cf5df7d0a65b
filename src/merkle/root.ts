/**
 * Owns the root of a version: one digest over all that a reader relies on (docs/spec.md, Root), and the digests of the
 * objects that it names.
 */
import { canonicalJson } from "../model/commands.ts";
import type { ObjectKind, SplitRule } from "../model/commands.ts";
import { createByteWriter } from "../model/byte-writer.ts";
import { parseDigest } from "../model/bytes.ts";
import type { Digest } from "../model/bytes.ts";
import { hashHexAs } from "./hash.ts";
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

const writer = createByteWriter();
const FORMAT = 1;
const ALGORITHM = "blake3";

/** `root` context over the canonical bytes of the fields. */
export function computeRoot(fields: RootFields): Digest {
  return `b3:${hashHexAs("root", writeRoot(fields))}`;
}

/** The bytes under the root; text is u32le length ‖ UTF-8. */
export function rootBytes(fields: RootFields): Uint8Array {
  return new Uint8Array(writeRoot(fields));
}

function writeRoot({ schema, classes, splits, splitRule, pageCount, treeHash, totals }: RootFields): Uint8Array {
  writer.start().u32(FORMAT).text(ALGORITHM).bytes(parseDigest(schema)).bytes(parseDigest(classes)).u32(splits.length);
  for (const split of splits) writer.text(split);
  writer.text(canonicalJson(splitRule)).u32(pageCount).bytes(parseDigest(treeHash)).u32(totals.length);
  return writer.bytes(encodeTotals(totals)).view();
}

/** Digest of a page, schema or class vocabulary, each under a context of its own. */
export function objectDigest(kind: ObjectKind, bytes: Uint8Array): Digest {
  return `b3:${hashHexAs(kind, bytes)}`;
}
