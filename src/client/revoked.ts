/**
 * Owns refusing revoked shards: a majority is asked about the shards of each page before its entries are handed out, and later
 * about what was revoked since, which costs as much for a million shards as for one.
 *
 * Versions that hold a revoked shard are not revoked themselves (an auditor finds them by `v_blast_radius`); but nobody
 * gets to read the shard.
 */
import { revocationAnswer, type RevocationAnswer } from "../model/api.ts";
import { LIMITS } from "../model/limits.ts";
import { inParallel } from "../shards/parallel.ts";
import { expectAnswer, refuseRevoked } from "./answers.ts";
import { confirm, type CallOptions } from "./confirm.ts";
import type { Session } from "./session.ts";
import type { ShardEntry } from "./types.ts";

/** Each row may hold a reason of a kilobyte. */
const ROWS_PER_ANSWER = 128;
const PAGES_IN_FLIGHT = 4;

/** @throws ShardpactError `revoked` naming the first revoked shard, and all that `confirm` throws */
export async function requireShardsNotRevoked(
  session: Session,
  name: string,
  entries: readonly ShardEntry[],
  o: CallOptions = {},
): Promise<void> {
  const digests = [...new Set(entries.map((entry) => entry.digest))];
  for (let from = 0; from < digests.length; from += LIMITS.apiRowsMax) {
    const query = { kind: "revoked_shards", digests: digests.slice(from, from + LIMITS.apiRowsMax) } as const;
    const { answer, laterRevocation } = await confirm(session, query, o);
    const [row] = expectAnswer(query, "rows", answer).rows;
    const revocation = row === undefined ? laterRevocation : revocationAnswer.parse(row);
    if (revocation !== null) refuseShards(name, entries, new Map([[revocation.subject, revocation]]));
  }
}

/** The pages whose shards a version has handed out, and up to where they are known not to be revoked. */
export interface PagesInUse {
  readonly name: string;
  /** Positions, from before their shards were asked about: what is revoked meanwhile is found by one or the other. */
  readonly positions: ReadonlySet<number>;
  entries(position: number): Promise<readonly ShardEntry[]>;
}

/**
 * Asks for revocations after index `since`, and looks at the pages in use only if there are any. Resolves with the index up
 * to which there are no others.
 * @throws ShardpactError as `requireShardsNotRevoked`, and what `entries` throws
 */
export async function requireNoneRevokedSince(
  session: Session,
  { name, positions, entries }: PagesInUse,
  since: number,
  o: CallOptions = {},
): Promise<number> {
  const revoked = new Map<string, RevocationAnswer>();
  for (let after = since; ;) {
    const query = { kind: "revocations_since", after, limit: ROWS_PER_ANSWER } as const;
    const { answer, laterRevocation, confirmation } = await confirm(session, query, o);
    const rows = expectAnswer(query, "rows", answer).rows.map((row) => revocationAnswer.parse(row));
    for (const row of laterRevocation === null ? rows : [...rows, laterRevocation]) {
      if (row.subject.startsWith("b3:")) revoked.set(row.subject, row);
    }
    const last = rows.at(-1);
    if (last && rows.length === ROWS_PER_ANSWER) {
      after = last.index;
      continue;
    }
    if (revoked.size > 0) {
      await inParallel(positions, PAGES_IN_FLIGHT, async (position) =>
        refuseShards(name, await entries(position), revoked),
      );
    }
    return confirmation.index;
  }
}

function refuseShards(
  name: string,
  entries: readonly ShardEntry[],
  revoked: ReadonlyMap<string, RevocationAnswer>,
): void {
  for (const { digest, name: shard } of entries) {
    const revocation = revoked.get(digest);
    if (revocation) refuseRevoked(`shard ${shard} of ${name}`, revocation);
  }
}
