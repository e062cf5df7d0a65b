/**
 * Owns the selection: which rows of a version a loader reads, and the digest that stands for that choice.
 *
 * The digest covers the split's name and the rule that cuts it, not the rows: the root does that. It therefore stays the
 * same when a dataset grows (`docs/order.md` §0).
 */
import type { ConfirmedVersion, SplitSummary } from "../client/types.ts";
import { hashAs } from "../merkle/hash.ts";
import { utf8 } from "../model/bytes.ts";
import { canonicalJson, type SplitRule } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";

/** Raw 32 bytes. */
export function selectionDigest(rule: SplitRule, split: string): Uint8Array {
  return hashAs("selection", utf8(canonicalJson({ rule, split })));
}

/**
 * The split that `name` means; without a name, the only one there is.
 * @throws ShardpactError `not_found`, `invalid_argument` when there are several and none is named
 */
export function selectSplit(
  version: Pick<ConfirmedVersion, "dataset" | "version" | "splits">,
  name: string | undefined,
): SplitSummary {
  const { splits } = version;
  const names = splits.map((s) => s.name);
  const what = `${version.dataset}@v${version.version}`;
  const only = splits[0];
  if (name === undefined && splits.length === 1 && only) return only;
  if (name === undefined) {
    throw new ShardpactError("invalid_argument", `${what} has ${splits.length} splits and none was chosen`, {
      details: { splits: names },
      hint: `Pass split: one of ${names.join(", ")}.`,
    });
  }
  const found = splits.find((s) => s.name === name);
  if (found) return found;
  throw new ShardpactError("not_found", `${what} has no split '${name}'`, {
    details: { split: name, splits: names },
    hint: `It has ${names.join(", ")}.`,
  });
}
