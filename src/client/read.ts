/**
 * Owns reads from any single replica whose answers the caller can check: pages, objects, manifests.
 *
 * No replica is believed. `check` says whether an answer is good; one that is not is named to the caller's notices and
 * the next replica is asked. A replica that can't answer in time is asked again later, until the deadline.
 */
import { decodeApi, encodeApi, readReply, SUBJECTS, type CatalogQuery, type ReadRequest } from "../model/api.ts";
import { isShardpactError, ShardpactError, toShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { errorOf } from "./answers.ts";
import type { CallOptions } from "./confirm.ts";
import type { Session } from "./session.ts";
import { backoffMs, requestOptions, startDeadline, type Deadline } from "./timing.ts";

/** Asks the one replica of this try. */
export type Ask = (query: CatalogQuery) => Promise<unknown>;

export interface ReadOptions extends CallOptions {
  /** For messages: `page 3 of mnist@v1`. */
  readonly what: string;
  /** Replicas answer as of this index once they have applied it. */
  readonly asOf: number;
}

/**
 * What `fetch` makes of one replica's answers; when it throws, of the next one's. A check that fails must throw a
 * ShardpactError that is not retryable.
 * @throws ShardpactError the last failed check when every replica's answer was bad; `unavailable`, `timeout`, `aborted`
 */
export async function readFromAny<T>(session: Session, o: ReadOptions, fetch: (ask: Ask) => Promise<T>): Promise<T> {
  const deadline = startDeadline(session.timing, o.timeoutMs ?? LIMITS.openTimeoutMs, o.signal);
  const bad = new Map<string, ShardpactError>();
  let last = new ShardpactError("unavailable", `no replica was asked for ${o.what}`);
  for (let round = 0; deadline.remainingMs() > 0; round++) {
    for (const replica of session.askingOrder()) {
      if (bad.has(replica)) continue;
      deadline.throwIfAborted();
      if (deadline.remainingMs() === 0) break;
      try {
        return await fetch((query) => ask(session, replica, query, o.asOf, deadline));
      } catch (error) {
        last = toShardpactError(error);
        if (isShardpactError(error, "aborted") || isShardpactError(error, "closed")) throw error;
        if (last.retryable) continue;
        bad.set(replica, last);
        noticeBad(session, replica, o.what, last);
      }
    }
    if (session.askingOrder().every((id) => bad.has(id))) throw allBad(o.what, bad, last);
    const pauseMs = Math.min(backoffMs(round, session.timing.random), deadline.remainingMs());
    await session.timing.sleep(pauseMs, deadline.signal);
  }
  deadline.throwIfAborted();
  throw new ShardpactError(
    "unavailable",
    `no replica of group ${session.group} gave ${o.what} within ${deadline.timeoutMs} ms`,
    {
      details: { bad: [...bad.keys()], last: last.toJSON() },
      hint: "`shardpact status` shows which replicas run.",
      cause: last,
    },
  );
}

async function ask(
  session: Session,
  replica: string,
  query: CatalogQuery,
  asOf: number,
  deadline: Deadline,
): Promise<unknown> {
  const options = requestOptions(deadline, LIMITS.requestTimeoutMs);
  const request: ReadRequest = { query, asOf, minIndex: asOf, waitMs: Math.ceil(options.timeoutMs / 2) };
  const subject = SUBJECTS.api(session.group, replica, "read");
  const reply = decodeApi(readReply, await session.transport.request(subject, encodeApi(request), options));
  if (!reply.ok) throw errorOf(reply.error);
  return reply.answer;
}

function noticeBad(session: Session, replica: string, what: string, error: ShardpactError): void {
  session.notice({
    code: "replica_bad_bytes",
    message: `replica ${replica} gave a bad answer for ${what}: ${error.message}`,
    details: { replica, what, error: error.toJSON() },
  });
}

function allBad(what: string, bad: ReadonlyMap<string, ShardpactError>, last: ShardpactError): ShardpactError {
  return new ShardpactError(last.code, `no replica has a good copy of ${what}: ${last.message}`, {
    details: { ...last.details, what, replicas: [...bad.keys()].sort() },
    hint: last.hint || "Compare the replicas' databases with `shardpact audit verify`.",
    cause: last,
  });
}
