/**
 * Owns which split a shard belongs to: by the folder it lies in, or all in one that is cut by position when it is read.
 */
import { invariant, ShardpactError } from "../model/errors.ts";
import { splitName } from "../model/names.ts";
import type { SplitRule } from "../model/commands.ts";
import { compareUtf8 } from "./vocabulary.ts";

export interface SplitPlan {
  readonly rule: SplitRule;
  readonly splits: readonly string[];
  /** Ordinal into `splits` of each name, in order. */
  readonly ordinals: readonly number[];
}

/** Folder names that mean a split, in the order in which splits are listed. Source: Hugging Face's folder convention. */
const CONVENTIONAL = ["train", "val", "validation", "dev", "eval", "test"];
const WHOLE = "train";
const MILLION = 1_000_000;

/**
 * @param names of shards, relative to their source folder
 * @param positional share of rows per split; they add up to 1, or leave the rest to `train`
 * @throws `invalid_argument`
 */
export function planSplits(names: readonly string[], positional?: Readonly<Record<string, number>>): SplitPlan {
  const folders = names.map((name) => (name.includes("/") ? (name.split("/")[0] ?? "") : ""));
  const named = folders.filter((folder) => CONVENTIONAL.includes(folder)).length;
  if (positional) {
    if (named > 0) {
      throw new ShardpactError(
        "invalid_argument",
        "the files lie in split folders, and positional splits were asked for",
        {
          hint: "Leave the shares of rows out (--split, `split`), or move the files out of their train/val/test folders.",
        },
      );
    }
    return { ...planPositional(positional), ordinals: names.map(() => 0) };
  }
  if (named === 0) return { rule: { kind: "none" }, splits: [WHOLE], ordinals: names.map(() => 0) };
  const outside = folders.findIndex((folder) => !CONVENTIONAL.includes(folder));
  if (outside !== -1) {
    throw new ShardpactError("invalid_argument", `'${names[outside]}' lies in no split folder, and other files do`, {
      details: { name: names[outside], folders: CONVENTIONAL },
      hint: `Put every file below one of ${CONVENTIONAL.join(", ")}, or none.`,
    });
  }
  const splits = CONVENTIONAL.filter((split) => folders.includes(split));
  return { rule: { kind: "folders" }, splits, ordinals: folders.map((folder) => splits.indexOf(folder)) };
}

/** The folders that an import wrote are its splits; `rule` says how rows came into them. */
export function planWritten(names: readonly string[], rule: SplitRule, splits: readonly string[]): SplitPlan {
  const ordinals = names.map((name) => {
    const ordinal = splits.indexOf(name.split("/")[0] ?? "");
    invariant(ordinal !== -1, `'${name}' lies in the folder of a split`);
    return ordinal;
  });
  return { rule, splits, ordinals };
}

/** Splits by a key, with the same shares as positional ones. @throws `invalid_argument` */
export function planKeyed(
  shares: Readonly<Record<string, number>>,
  columns: readonly string[],
): { readonly rule: Extract<SplitRule, { kind: "key" }>; readonly splits: readonly string[] } {
  const { rule, splits } = planPositional(shares);
  invariant(rule.kind === "positional", "shares are those of positional splits");
  return { rule: { kind: "key", columns: [...columns], salt: rule.salt, ppm: rule.ppm }, splits };
}

/** The largest split is what the others leave over, so that every row belongs to one. */
function planPositional(shares: Readonly<Record<string, number>>): Omit<SplitPlan, "ordinals"> {
  const entries = Object.entries(shares).map(([name, share]) => ({ name, ppm: Math.round(share * MILLION) }));
  for (const { name, ppm } of entries) {
    if (splitName.safeParse(name).success && ppm > 0 && ppm <= MILLION) continue;
    throw new ShardpactError("invalid_argument", `'${name}: ${shares[name]}' is no split and share of the rows`, {
      details: { shares },
      hint: "Shares are greater than 0 and at most 1, such as {train: 0.9, val: 0.1}.",
    });
  }
  const sum = entries.reduce((total, { ppm }) => total + ppm, 0);
  const left = MILLION - sum;
  if (left > entries.length && entries.every(({ name }) => name !== WHOLE)) entries.push({ name: WHOLE, ppm: left });
  else if (Math.abs(left) > entries.length) {
    throw new ShardpactError("invalid_argument", `the splits' shares add up to ${sum / MILLION} and not to 1`, {
      details: { shares },
    });
  }
  entries.sort(
    (a, b) => b.ppm - a.ppm || Number(b.name === WHOLE) - Number(a.name === WHOLE) || compareUtf8(a.name, b.name),
  );
  const [rest, ...heldOut] = entries;
  const ppm = Object.fromEntries(heldOut.map((entry) => [entry.name, entry.ppm]));
  const splits = [rest?.name ?? WHOLE, ...heldOut.map(({ name }) => name).sort(compareUtf8)];
  return { rule: { kind: "positional", salt: "", ppm }, splits };
}
