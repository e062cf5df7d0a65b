/**
 * Owns `tag.move`: a name that points at a version, with its whole history.
 */
import { ShardpactError } from "../model/errors.ts";
import { accept, requireNotRevoked, requireVersion, versionNeeds } from "./rule.ts";
import type { Rule } from "./rule.ts";

export const tagMove: Rule<"tag.move"> = {
  needs: ({ body: { dataset, tag, version } }) => [{ kind: "tag", dataset, tag }, ...versionNeeds(dataset, version)],

  decide(view, { body: { dataset, tag, version, expected }, actor }, { index, timeMs }) {
    requireVersion(view, dataset, version);
    requireNotRevoked(view, dataset, version);
    const old = view.tag(dataset, tag);
    const from = old?.version ?? null;
    if (expected !== undefined && expected !== from) {
      const points = from === null ? "does not exist" : `points at v${from}`;
      throw new ShardpactError(
        "tag_moved",
        `${dataset}@${tag} ${points}, not at ${expected ? `v${expected}` : "nothing"}`,
        {
          details: { dataset, tag, expected, version: from, index: old?.index ?? null },
          hint: "Look at the tag again, then decide.",
        },
      );
    }
    if (old && from === version) return accept({ dataset, tag, version, from, index: old.index, unchanged: true });
    return accept(
      { dataset, tag, version, from, index, unchanged: false },
      { table: "tag", dataset, tag, version, index },
      { table: "tag_move", dataset, tag, index, timeMs, actor, fromVersion: from, toVersion: version },
    );
  },
};
