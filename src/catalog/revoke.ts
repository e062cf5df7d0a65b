/**
 * Owns `version.revoke` and `shard.revoke`: content that must not be trained on any more. Final; the first reason stays.
 */
import { accept, requireVersion, versionNeeds, versionSubject } from "./rule.ts";
import type { Accepted, LogPoint, Rule } from "./rule.ts";
import type { View } from "./view.ts";

export const versionRevoke: Rule<"version.revoke"> = {
  needs: ({ body: { dataset, version } }) => versionNeeds(dataset, version),

  decide(view, { body: { dataset, version, reason }, actor }, at) {
    requireVersion(view, dataset, version);
    return revoke(view, versionSubject(dataset, version), { actor, reason }, at);
  },
};

/** The shard need not be known: a bad file can be revoked before anybody publishes it. */
export const shardRevoke: Rule<"shard.revoke"> = {
  needs: ({ body: { digest } }) => [{ kind: "revocation", subject: digest }],

  decide: (view, { body: { digest, reason }, actor }, at) => revoke(view, digest, { actor, reason }, at),
};

function revoke(view: View, subject: string, by: { actor: string; reason: string }, at: LogPoint): Accepted {
  const old = view.revocation(subject);
  if (old) return accept({ subject, index: old.index, already: true });
  return accept({ subject, index: at.index, already: false }, { table: "revocation", subject, ...at, ...by });
}
