/**
 * Owns the small commands people give: tags, pins, run ends, revocations; and the checks that a lock file asks for.
 */
import type { CatalogQuery, QueryKind } from "../model/api.ts";
import type { CommandBody, CommandKind } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { expectAnswer, type AnswerRow } from "./answers.ts";
import { confirm, type CallOptions, type Confirmed } from "./confirm.ts";
import { makeCommand, propose, type Applied } from "./propose.ts";
import { requireGroup, requireHistory } from "./history.ts";
import type { Session } from "./session.ts";
import { resolve, type Resolved } from "./open.ts";
import { type Lock, type LockedDataset, trustLock } from "./lock.ts";

/** Proposes one command under a fresh id; lost answers are retried within the call. @throws as `propose` */
export function command<K extends CommandKind>(
  session: Session,
  kind: K,
  body: CommandBody<K>,
  o: CallOptions = {},
): Promise<Applied> {
  return propose(session, makeCommand(session, session.timing.uniqueHex(), kind, body), o);
}

const LOCK = "the lock file";

export type ListQuery = Extract<CatalogQuery, { kind: Exclude<QueryKind, "resolve" | "pages" | "object"> }>;

/** Rows of a list query that a majority confirmed. @throws as `confirm`, `not_found` */
export async function confirmedRows(
  session: Session,
  query: ListQuery,
  o: CallOptions = {},
): Promise<{ readonly rows: readonly AnswerRow[]; readonly confirmation: Confirmed["confirmation"] }> {
  const { answer, confirmation } = await confirm(session, query, o);
  return { rows: expectAnswer(query, "rows", answer).rows, confirmation };
}

/**
 * The locked version, if the group still has the history that the lock was written in.
 * @throws ShardpactError `group_forked` (another group, or another chain at the locked index), `lock_mismatch` (another
 * root under the locked version), and all that `resolve` throws
 */
export async function resolveLocked(
  session: Session,
  lock: Lock,
  dataset: string,
  locked: LockedDataset,
  o: CallOptions = {},
): Promise<Resolved> {
  const point = { groupId: lock.group.id, index: locked.index, chain: locked.chain };
  requireGroup(session, LOCK, point);
  trustLock(session, lock);
  const resolved = await resolve(session, { dataset, target: { kind: "version", version: locked.version } }, o);
  if (resolved.version.root !== locked.root) {
    throw new ShardpactError(
      "lock_mismatch",
      `${dataset}@v${locked.version} has root ${resolved.version.root}, the lock file says ${locked.root}`,
      { details: { expected: locked.root, got: resolved.version.root } },
    );
  }
  await requireHistory(session, LOCK, point, resolved, o);
  return resolved;
}
