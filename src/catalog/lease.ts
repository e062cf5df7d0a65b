/**
 * Owns `reader.lease`: a reader's claim on a version until a log time, so that it may go on while the group is away.
 */
import { accept, requireNotRevoked, requireVersion, versionNeeds } from "./rule.ts";
import type { Rule } from "./rule.ts";

export const readerLease: Rule<"reader.lease"> = {
  needs: ({ body: { dataset, version, run } }) => [
    { kind: "lease", dataset, version, run },
    ...versionNeeds(dataset, version),
  ],

  decide(view, { body: { dataset, version, run, ttlMs } }, { index, timeMs }) {
    requireVersion(view, dataset, version);
    requireNotRevoked(view, dataset, version);
    // A shorter renewal, late or reordered, must not take time away from a rank that was promised more.
    const untilMs = Math.max(view.lease(dataset, version, run)?.untilMs ?? 0, timeMs + ttlMs);
    return accept(
      { dataset, version, run, untilMs, timeMs },
      { table: "lease", dataset, version, run, untilMs, index },
    );
  },
};
