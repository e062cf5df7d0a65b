/**
 * Owns `pin.create` and `pin.release`: a run's claim on one version. It never moves: a run pins one version of a
 * dataset for ever, released or not.
 */
import { ShardpactError } from "../model/errors.ts";
import { accept, requireNotRevoked, requireRoot, requireVersion, versionNeeds } from "./rule.ts";
import type { PinRow } from "./rows.ts";
import type { Rule } from "./rule.ts";

export const pinCreate: Rule<"pin.create"> = {
  needs: ({ body: { dataset, version, run } }) => [{ kind: "pin", dataset, run }, ...versionNeeds(dataset, version)],

  decide(view, { body: { dataset, version, root, run, note }, actor }, { index, timeMs }) {
    const row = requireVersion(view, dataset, version);
    requireRoot(row, root);
    const old = view.pin(dataset, run);
    if (old && old.version !== version) {
      throw new ShardpactError("pin_conflict", `run '${run}' pins ${dataset}@v${old.version}, not v${version}`, {
        details: { dataset, run, version: old.version, root: old.root, index: old.index },
        hint: "Use another run id for another version.",
      });
    }
    const result = { dataset, version, root, run };
    if (old && old.releasedIndex === null) return accept({ ...result, index: old.index, created: false });
    requireNotRevoked(view, dataset, version);
    return accept(
      { ...result, index, created: true },
      { table: "pin", dataset, run, version, root: row.root, note, actor, index, timeMs, releasedIndex: null },
    );
  },
};

export const pinRelease: Rule<"pin.release"> = {
  needs: ({ body: { dataset, run } }) => [{ kind: "pin", dataset, run }],

  decide(view, { body: { dataset, run } }, { index }) {
    const pin = view.pin(dataset, run);
    if (!pin) {
      throw new ShardpactError("not_found", `run '${run}' pins no version of ${dataset}`, {
        details: { dataset, run },
      });
    }
    const releasedIndex = pin.releasedIndex ?? index;
    const result = { dataset, run, version: pin.version, releasedIndex };
    return pin.releasedIndex === null ? accept(result, { ...pin, releasedIndex }) : accept(result);
  },
};

/**
 * A run that claims one version moves to no other: `version` is where it wants to go (null: wherever).
 * @throws `pin_conflict` unless the claim is released, or on that version
 */
export function requirePinKeeps(pin: PinRow | null, version: number | null): void {
  if (pin === null || pin.releasedIndex !== null || pin.version === version) return;
  const { dataset, run } = pin;
  const wanted = version === null ? "and cannot follow it" : `not v${version}`;
  throw new ShardpactError("pin_conflict", `run '${run}' pins ${dataset}@v${pin.version}, ${wanted}`, {
    details: { dataset, run, version: pin.version, root: pin.root, index: pin.index },
    hint: "Release the pin, or train without follow.",
  });
}
