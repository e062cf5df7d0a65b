/**
 * Owns the check that a group's history contains a point that was written down earlier: in a lock file, a loader's state, a
 * receipt. A group that was founded anew, or whose database was set back, has another one.
 */
import { ShardpactError } from "../model/errors.ts";
import { expectAnswer } from "./answers.ts";
import { confirm, type CallOptions, type Confirmed } from "./confirm.ts";
import type { Session } from "./session.ts";
import type { HistoryPoint } from "./types.ts";

/** `what` held the point. @throws ShardpactError `group_forked` */
export function requireGroup({ group, groupId: own }: Session, what: string, { groupId }: HistoryPoint): void {
  if (groupId === own) return;
  throw new ShardpactError("group_forked", `${what} belongs to group ${groupId}, this is ${group} (${own})`, {
    details: { expected: groupId, got: own },
    hint: `Connect to the group that ${what} was made in; what another group holds has to be looked at, opened and locked anew.`,
  });
}

/**
 * `what` held the point; `confirmation` is a later answer of the group.
 * @throws ShardpactError `group_forked` (another group, or another chain at that index), and as `confirm`
 */
export async function requireHistory(
  session: Session,
  what: string,
  point: HistoryPoint,
  { confirmation }: Pick<Confirmed, "confirmation">,
  o: CallOptions = {},
): Promise<void> {
  requireGroup(session, what, point);
  const { index, chain } = point;
  let got: unknown = confirmation.index === index ? confirmation.chain : null;
  if (confirmation.index > index && index > 0) {
    const query = { kind: "ledger", after: index - 1, limit: 1 } as const;
    const { answer } = await confirm(session, query, o);
    const [row] = expectAnswer(query, "rows", answer).rows;
    got = row?.["index"] === index ? row["chain"] : null;
  }
  if (got === chain) return;
  throw new ShardpactError(
    "group_forked",
    `at index ${index} group ${session.group} has another history than ${what} was made in`,
    {
      details: { index, expected: chain, got },
      hint: "The group was restored from an older backup or replaced. Stop, and compare with `shardpact audit verify`.",
    },
  );
}
