/**
 * Owns lists that one replica answers, as fresh as the caller asks: cheaper than a confirmation, and one replica's word.
 *
 * For looking around. What is trained on is confirmed (`confirm.ts`) and proven by digests (`read.ts`).
 */
import { decodeApi, encodeApi, readReply, SUBJECTS, type ReadConsistency, type ReadRequest } from "../model/api.ts";
import { isShardpactError, ShardpactError, toShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { errorOf, expectAnswer, type AnswerRow } from "./answers.ts";
import type { CallOptions } from "./confirm.ts";
import type { ListQuery } from "./runs.ts";
import type { Session } from "./session.ts";
import { backoffMs, requestOptions, startDeadline, type Deadline } from "./timing.ts";

export interface ToldRows {
  readonly rows: readonly AnswerRow[];
  readonly replica: string;
  /** The log index that the answer holds at least. */
  readonly index: number;
  /** All that was acknowledged longer than this before the replica answered is in it; null: not asked for. */
  readonly ageMs: number | null;
}

/**
 * Rows of a list query as one replica has them. A replica that cannot be as fresh as asked says so, and the next is asked.
 * @throws ShardpactError `unavailable` when none can in time, `not_found`, `aborted`
 */
export async function rowsFromOne(
  session: Session,
  query: ListQuery,
  consistency: ReadConsistency,
  o: CallOptions = {},
): Promise<ToldRows> {
  const deadline = startDeadline(session.timing, o.timeoutMs ?? LIMITS.openTimeoutMs, o.signal);
  let last: ShardpactError | null = null;
  for (let round = 0; deadline.remainingMs() > 0; round++) {
    for (const replica of session.askingOrder()) {
      deadline.throwIfAborted();
      if (deadline.remainingMs() === 0) break;
      try {
        return await ask(session, replica, query, consistency, deadline);
      } catch (error) {
        last = toShardpactError(error);
        if (!last.retryable || isShardpactError(error, "aborted")) throw error;
      }
    }
    const pauseMs = Math.min(backoffMs(round, session.timing.random), deadline.remainingMs());
    await session.timing.sleep(pauseMs, deadline.signal);
  }
  deadline.throwIfAborted();
  throw new ShardpactError(
    "unavailable",
    `no replica of group ${session.group} could answer (${consistency.kind}) within ${deadline.timeoutMs} ms` +
      (last === null ? "" : `: ${last.message}`),
    { hint: last?.hint || "`shardpact status` shows which replicas run.", ...(last === null ? {} : { cause: last }) },
  );
}

async function ask(
  session: Session,
  replica: string,
  query: ListQuery,
  consistency: ReadConsistency,
  deadline: Deadline,
): Promise<ToldRows> {
  const options = requestOptions(deadline, LIMITS.requestTimeoutMs);
  const waitMs = Math.ceil(options.timeoutMs / 2);
  const request: ReadRequest = { query, asOf: null, minIndex: 0, waitMs, consistency };
  const subject = SUBJECTS.api(session.group, replica, "read");
  const reply = decodeApi(readReply, await session.transport.request(subject, encodeApi(request), options));
  if (!reply.ok) throw errorOf(reply.error);
  const ageMs = reply.ageMs ?? null;
  // A replica of an older release does not know the question and answers what it has.
  if (consistency.kind !== "any" && ageMs === null) {
    throw new ShardpactError("unavailable", `${replica} does not say how old its answers are`, {
      hint: "Bring all replicas to this release.",
    });
  }
  return { rows: expectAnswer(query, "rows", reply.answer).rows, replica, index: reply.applied, ageMs };
}
