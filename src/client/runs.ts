/**
 * Owns the small commands people give: tags, pins, run ends, revocations; and the checks that a lock file asks for.
 */
import type { CatalogQuery, QueryKind } from "../model/api.ts";
import type { CommandBody, CommandKind } from "../model/commands.ts";
import { ShardpactError } from "../model/errors.ts";
import { expectAnswer, type AnswerRow } from "./answers.ts";
import { confirm, type CallOptions, type Confirmed } from "./confirm.ts";
import { makeCommand, propose, type Applied } from "./propose.ts";
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
  if (lock.group.id !== session.groupId) {
    throw new ShardpactError(
      "group_forked",
      `the lock file belongs to group ${lock.group.name} (${lock.group.id}), this is ${session.group} (${session.groupId})`,
      { details: { expected: lock.group.id, got: session.groupId }, hint: "Connect to the group of the lock file." },
    );
  }
  trustLock(session, lock);
  const resolved = await resolve(session, { dataset, target: { kind: "version", version: locked.version } }, o);
  if (resolved.version.root !== locked.root) {
    throw new ShardpactError(
      "lock_mismatch",
      `${dataset}@v${locked.version} has root ${resolved.version.root}, the lock file says ${locked.root}`,
      { details: { expected: locked.root, got: resolved.version.root } },
    );
  }
  await requireChain(session, locked, resolved, o);
  return resolved;
}

/** The chain at the locked index is the one in the lock: the group's history contains the one that was locked. */
async function requireChain(
  session: Session,
  locked: LockedDataset,
  { confirmation }: Resolved,
  o: CallOptions,
): Promise<void> {
  let got: unknown = confirmation.index === locked.index ? confirmation.chain : null;
  if (confirmation.index > locked.index && locked.index > 0) {
    const { rows } = await confirmedRows(session, { kind: "ledger", after: locked.index - 1, limit: 1 }, o);
    got = rows[0]?.["index"] === locked.index ? rows[0]["chain"] : null;
  }
  if (got === locked.chain) return;
  throw new ShardpactError(
    "group_forked",
    `at index ${locked.index} group ${session.group} has another history than the lock file was written in`,
    {
      details: { index: locked.index, expected: locked.chain, got },
      hint: "The group was restored from an older backup or replaced. Stop, and compare with `shardpact audit verify`.",
    },
  );
}
