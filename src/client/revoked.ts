/**
 * Owns refusing revoked shards: before a page's entries are handed out, and later in all pages that are in use.
 *
 * Few shards are ever revoked, so a majority is asked for all revocations since what is known already, in one question for
 * all pages that are wanted at a time: it costs as much for a million shards as for one. Where too many are, it is asked
 * about the shards of each page.
 *
 * Versions that hold a revoked shard are not revoked themselves (an auditor finds them by `v_blast_radius`); but nobody
 * gets to read the shard.
 */
import { revocationAnswer, type RevocationAnswer } from "../model/api.ts";
import { invariant } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { inParallel } from "../shards/parallel.ts";
import { untilAborted } from "../shards/until-aborted.ts";
import { expectAnswer, refuseRevoked } from "./answers.ts";
import { confirm, type CallOptions } from "./confirm.ts";
import type { Session } from "./session.ts";
import type { ShardEntry } from "./types.ts";

/** Each row may hold a reason of a kilobyte. */
const ROWS_PER_ANSWER = 128;
/** Revocations that a version remembers, about. */
const KNOWN_MAX = 1_024;

type Revocations = ReadonlyMap<string, RevocationAnswer>;

/** Refuses pages before their entries are handed out. */
export interface PageGate {
  /**
   * Resolves with the entries unless one of them was revoked before the call. The question is asked while they are fetched.
   * @throws ShardpactError `revoked` naming the first revoked shard, and all that `confirm` and `entries` throw
   */
  pass(entries: Promise<readonly ShardEntry[]>, o: CallOptions): Promise<readonly ShardEntry[]>;
}

export function createPageGate(session: Session, name: string): PageGate {
  /** All that was revoked up to `index`; null once that is too many. Never changed in place: questions overlap. */
  let known: Revocations | null = new Map();
  let index = 0;
  let next: Promise<Revocations | null> | null = null;

  async function ask(): Promise<Revocations | null> {
    const before = known;
    if (before === null) return null;
    const news = await shardsRevokedSince(session, index, KNOWN_MAX - before.size, {});
    if (news === null) return (known = null);
    known &&= new Map([...known, ...before, ...news.revoked]);
    index = Math.max(index, news.index);
    return new Map([...before, ...news.revoked, ...news.later]);
  }

  /** Pages that are wanted in the same turn share the question that is sent after it. */
  function askTogether(): Promise<Revocations | null> {
    next ??= Promise.resolve().then(() => {
      next = null;
      return ask();
    });
    return next;
  }

  return {
    async pass(fetching, o) {
      const [entries, revoked] = await Promise.all([fetching, untilAborted(o.signal, askTogether())]);
      if (revoked === null) await requireNoneRevoked(session, name, entries, o);
      else refuseShards(name, entries, revoked);
      return entries;
    },
  };
}

/** Asks about each shard. */
async function requireNoneRevoked(
  session: Session,
  name: string,
  entries: readonly ShardEntry[],
  o: CallOptions,
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

interface News {
  readonly revoked: Revocations;
  /** What some voter knows of since. It counts at once, and is not remembered: no majority has said it. */
  readonly later: Revocations;
  /** Up to which nothing else was revoked. */
  readonly index: number;
}

/** The shards that were revoked after index `since`; null when the group revoked more than `countMax` things, about. */
async function shardsRevokedSince(
  session: Session,
  since: number,
  countMax: number,
  o: CallOptions,
): Promise<News | null> {
  const revoked = new Map<string, RevocationAnswer>();
  const later = new Map<string, RevocationAnswer>();
  let count = 0;
  for (let after = since; ;) {
    const query = { kind: "revocations_since", after, limit: ROWS_PER_ANSWER } as const;
    const { answer, laterRevocation, confirmation } = await confirm(session, query, o);
    const rows = expectAnswer(query, "rows", answer).rows.map((row) => revocationAnswer.parse(row));
    for (const row of rows) if (isOfShard(row)) revoked.set(row.subject, row);
    if (laterRevocation && isOfShard(laterRevocation)) later.set(laterRevocation.subject, laterRevocation);
    count += rows.length;
    const last = rows.at(-1);
    if (!last || rows.length < ROWS_PER_ANSWER) return { revoked, later, index: confirmation.index };
    if (count > countMax) return null;
    after = last.index;
  }
}

function isOfShard({ subject }: RevocationAnswer): boolean {
  return subject.startsWith("b3:");
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
 * @throws ShardpactError as `PageGate.pass`
 */
export async function requireNoneRevokedSince(
  session: Session,
  { name, positions, entries }: PagesInUse,
  since: number,
  o: CallOptions = {},
): Promise<number> {
  const news = await shardsRevokedSince(session, since, Number.POSITIVE_INFINITY, o);
  invariant(news, "however many were revoked, all are told");
  const revoked = new Map([...news.revoked, ...news.later]);
  if (revoked.size > 0) {
    await inParallel(positions, LIMITS.pagesInFlightMax, async (position) =>
      refuseShards(name, await entries(position), revoked),
    );
  }
  return news.index;
}

function refuseShards(name: string, entries: readonly ShardEntry[], revoked: Revocations): void {
  for (const { digest, name: shard } of entries) {
    const revocation = revoked.get(digest);
    if (revocation) refuseRevoked(`shard ${shard} of ${name}`, revocation);
  }
}
