/**
 * Owns refusing revoked shards: a majority is asked about the shards of each page before its entries are handed out.
 *
 * Versions that hold a revoked shard are not revoked themselves (an auditor finds them by `v_blast_radius`); but nobody
 * gets to read the shard.
 */
import { revocationAnswer } from "../model/api.ts";
import { LIMITS } from "../model/limits.ts";
import { expectAnswer, refuseRevoked } from "./answers.ts";
import { confirm, type CallOptions } from "./confirm.ts";
import type { Session } from "./session.ts";
import type { ShardEntry } from "./types.ts";

/** @throws ShardpactError `revoked` naming the first revoked shard, and all that `confirm` throws */
export async function requireShardsNotRevoked(
  session: Session,
  name: string,
  entries: readonly ShardEntry[],
  o: CallOptions = {},
): Promise<void> {
  const byDigest = new Map(entries.map((entry) => [entry.digest, entry.name]));
  const digests = [...byDigest.keys()];
  for (let from = 0; from < digests.length; from += LIMITS.apiRowsMax) {
    const query = { kind: "revoked_shards", digests: digests.slice(from, from + LIMITS.apiRowsMax) } as const;
    const { answer, laterRevocation } = await confirm(session, query, o);
    const [row] = expectAnswer(query, "rows", answer).rows;
    const revocation = row === undefined ? laterRevocation : revocationAnswer.parse(row);
    if (revocation === null) continue;
    const shard = [...byDigest].find(([digest]) => digest === revocation.subject)?.[1] ?? revocation.subject;
    refuseRevoked(`shard ${shard} of ${name}`, revocation);
  }
}
